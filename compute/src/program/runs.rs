//! The runs of the program in a worker, and the tasks that are done with what they have made.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use situ_wire::ids::ActionId;
use situ_wire::messages::scheduler::{StageOutput, TaskFailure, TaskOutcome, TaskSpec, TaskWork};
use situ_wire::time::TimeMs;

use super::check::compute_twice;
use super::follow::{DriverSide, Follower};
use super::memory::{MemoryLimits, MemoryManager};
use super::replay::{AsksDriver, NotReached, Reached, Replay, Standing, shown};
use super::task::{TaskContext, TaskControl, TaskOutput, cut, run_task};
use super::world::{ScopePath, World};
use crate::dataset::{Context, END, Graph, StageTask};
use crate::engine::{Assignment, Engines, TaskError, Works, run_assignment};

/// How much stack the threads have that run tasks and the program: datasets that are made from each other by thousands call
/// each other as deep, and are dropped so. Only what is used takes memory.
pub(crate) const STACK_LEN_BYTES: usize = 256 << 20;

/// The run of the program that tasks are done with, and when the program is checked another one to compare it with.
pub(super) struct Runs {
    driver: Arc<dyn DriverSide>,
    engines: Engines,
    works: Works,
    pub(super) first: Run,
    pub(super) second: Option<Run>,
}

/// One run of the program in a worker.
pub(super) struct Run {
    pub(super) replay: Arc<Replay>,
    pub(super) memory: Arc<MemoryManager>,
}

/// What a task shall do, and the graph that says so.
pub(super) struct Found {
    pub(super) task: StageTask,
    pub(super) graph: Arc<Graph>,
}

impl Run {
    fn new(limits: MemoryLimits) -> Self {
        Self { replay: Replay::new(), memory: MemoryManager::new(limits) }
    }
}

impl Runs {
    /// Runs that have so much memory together.
    pub(super) fn new(driver: Arc<dyn DriverSide>, engines: Engines, limits: MemoryLimits, checked: bool) -> Self {
        let limits = if checked { limits.halved() } else { limits };
        Self {
            driver,
            engines,
            works: Works::default(),
            first: Run::new(limits),
            second: checked.then(|| Run::new(limits)),
        }
    }

    /// The context with which a run follows the driver, on this thread.
    pub(super) fn context(&self, run: &Run) -> Context {
        run.replay.begin();
        let (replay, memory) = (Arc::clone(&run.replay), Arc::clone(&run.memory));
        Context::new(Arc::new(Follower::new(Arc::clone(&self.driver), replay, memory, self.second.is_some())))
    }

    fn each(&self) -> impl Iterator<Item = &Run> {
        std::iter::once(&self.first).chain(&self.second)
    }

    /// Tasks that wait for the program look whether they were given up.
    pub(super) fn wake(&self) {
        self.each().for_each(|run| run.replay.wake());
    }

    /// Whether a run of the program has ended because what it needs is away: this worker is of no use any more.
    pub(super) fn is_away(&self) -> bool {
        self.each().any(|run| run.replay.is_away())
    }

    /// Does one task. Blocks.
    pub(super) fn run(&self, spec: &TaskSpec, control: &Arc<TaskControl>, world: &Arc<dyn World>) -> TaskOutcome {
        let asked = match &spec.work {
            TaskWork::Replay { action, plan_digest } => (*action, *plan_digest),
            TaskWork::Payload { kind, digest, .. } => return self.run_payload(spec, kind, *digest, control, world),
        };
        let found = match self.find(spec, asked, control, &self.first, "this worker") {
            Ok(found) => found,
            Err(failure) => return TaskOutcome::Failed(cut(failure)),
        };
        let Some(second) = &self.second else {
            let control = Arc::clone(control);
            let work = |context: &TaskContext| run_stage_task(&found.task, context);
            return run_task((spec.attempt, spec.slots), control, world, &self.first.memory, work);
        };
        match self.find(spec, asked, control, second, "a second run in this worker") {
            Ok(again) => compute_twice(
                (spec.attempt, spec.slots),
                control,
                world,
                (&found, &self.first.memory),
                (&again, &second.memory),
            ),
            Err(failure) => TaskOutcome::Failed(cut(failure)),
        }
    }

    /// Does a task that no run of the program knows. Blocks.
    fn run_payload(
        &self,
        spec: &TaskSpec,
        kind: &str,
        digest: [u8; 32],
        control: &Arc<TaskControl>,
        world: &Arc<dyn World>,
    ) -> TaskOutcome {
        let stage = spec.attempt.stage;
        let ask = || {
            let work = self.driver.stage_work(stage)?;
            // Nobody waits for a task whose stage is gone.
            let work = work.filter(|given| given.work.digest == digest).ok_or(TaskFailure::Cancelled)?;
            Assignment::load(&work, world.files()).map_err(|error| TaskError::from(error).into())
        };
        let load = || self.works.get((stage, digest), ask);
        let task = ((spec.attempt, spec.slots), spec.output);
        run_assignment((&self.engines, kind), task, Arc::clone(control), world, &self.first.memory, load)
    }

    /// What a task shall do, once a run of the program has come to its action and its graph is known to be the driver's.
    fn find(
        &self,
        spec: &TaskSpec,
        (action, plan_digest): (ActionId, [u8; 32]),
        control: &TaskControl,
        run: &Run,
        whose: &str,
    ) -> Result<Found, TaskFailure> {
        let mismatch = |message: String| TaskFailure::PlanMismatch { message };
        let driver = OfDriver { driver: self.driver.as_ref(), action, whose, looked: Looked::default() };
        let at_end = spec.attempt.stage.1 == END;
        let reached = run.replay.wait_for(action, control, &driver, at_end).map_err(|why| match why {
            NotReached::Passed | NotReached::GivenUp => TaskFailure::Cancelled,
            NotReached::Away(error) => TaskFailure::Storage {
                message: format!("the program could not go on in {whose} before {action}: {error}"),
                transient: true,
            },
            NotReached::Ended => mismatch(format!("the program ended in {whose} before {action}")),
            NotReached::Astray(scope) => {
                mismatch(format!("the program is in {scope} in {whose}, in which it never was in the driver"))
            }
            NotReached::Elsewhere(difference) => mismatch(difference),
            NotReached::Other => mismatch(format!(
                "{action} is an action in the driver, but a value that the driver records in {whose}"
            )),
            NotReached::Failed(error) => TaskFailure::Program {
                message: format!(
                    "the program failed in {whose} before {action}: {error}; what only the driver can have, as a file of its \
                     node, comes through `context.once`"
                ),
            },
        })?;
        if reached.digest != plan_digest {
            return Err(mismatch(self.difference(action, &reached, whose)));
        }
        let found = |task| Ok(Found { task, graph: Arc::clone(&reached.graph) });
        match (reached.graph.stage_task(spec.attempt.stage), spec.output) {
            (
                Some(StageTask::Map { shuffle, reducers, task }),
                StageOutput::Shuffle { shuffle: asked, reducers: asked_reducers },
            ) if shuffle == asked && reducers == asked_reducers => found(StageTask::Map { shuffle, reducers, task }),
            (Some(StageTask::Result { action, task, checked }), StageOutput::Result { action: asked })
                if action == asked =>
            {
                found(StageTask::Result { action, task, checked })
            }
            (_, output) => Err(mismatch(format!("{} does not give {output:?} in {whose}", spec.attempt.stage))),
        }
    }

    /// Says where a run's graph differs from the driver's.
    fn difference(&self, action: ActionId, reached: &Reached, whose: &str) -> String {
        let mine = reached.graph.plan(self.driver.build());
        let what = match self.driver.plan(action) {
            Ok(Some(driver)) => driver.difference("the driver", &mine, whose),
            Ok(None) => None,
            Err(error) => Some(format!("the driver's plan cannot be had: {error}")),
        };
        what.unwrap_or_else(|| "the plans differ".to_owned())
    }
}

/// The driver, as a task of one of its actions sees it that waits for a run of the program.
struct OfDriver<'a> {
    driver: &'a dyn DriverSide,
    action: ActionId,
    whose: &'a str,
    looked: Looked,
}

/// How often a run had come to something when it was last looked at, and since when that is so.
#[derive(Default)]
struct Looked(Cell<Option<(u64, TimeMs)>>);

impl Looked {
    /// Whether the run has come to nothing for so long; then not again before it has for as long once more.
    fn stood_still(&self, changes: u64, now: TimeMs, grace: Duration) -> bool {
        let since = self.0.get().filter(|(before, _)| *before == changes).map_or(now, |(_, since)| since);
        let has_stood = now.since(since) >= grace;
        self.0.set(Some((changes, if has_stood { now } else { since })));
        has_stood
    }
}

impl AsksDriver for OfDriver<'_> {
    /// What cannot be asked now may be known.
    fn was_in(&self, scope: &ScopePath) -> bool {
        !matches!(self.driver.outcome("a scope", scope, false), Ok(None))
    }

    /// The program's own thread stands still at the task's action in the driver. If it has not done there what the same
    /// thread stands at here, it did not come this way; whatever other threads do, which are not spoken of.
    fn difference(&self, standing: &Standing) -> Option<String> {
        if !self.looked.stood_still(standing.changes, self.driver.now(), self.driver.grace()) {
            return None;
        }
        let is_unknown = match standing.action {
            Some(action) => action != self.action && self.driver.is_unknown(action, &standing.scope),
            None => !self.was_in(&standing.scope),
        };
        // The action is asked for last: it was under way all the time then.
        let plan = self.driver.plan(self.action).ok().flatten().filter(|_| is_unknown)?;
        let theirs = shown(&plan.name, plan.own_thread.as_ref()?);
        Some(format!("the program has come to {theirs} in the driver, and to {} in {}", standing.shown, self.whose))
    }
}

/// Does what a stage's tasks do.
pub(super) fn run_stage_task(task: &StageTask, context: &TaskContext) -> TaskOutput {
    let partition = context.attempt().partition.0;
    match task {
        StageTask::Map { task, .. } => TaskOutput::Pieces(task(context, partition)),
        StageTask::Result { task, .. } => TaskOutput::Result(task(context, partition)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_is_given_all_its_time_again() {
        let (looked, grace) = (Looked::default(), Duration::from_millis(30));
        let stood = |changes, now| looked.stood_still(changes, TimeMs(now), grace);
        assert!(!stood(1, 100) && !stood(1, 129));
        assert!(!stood(2, 130) && !stood(2, 159), "it has come to something");
        assert!(stood(2, 160) && !stood(2, 161) && stood(2, 190), "and the driver is not asked all the time");
    }
}
