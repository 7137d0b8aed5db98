//! The heartbeat of a worker: the one call to its executor says what it holds and what has ended, and brings what it
//! shall do. See [`WorkerPoll`] for what makes that safe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::ids::{JobId, TaskAttemptId};
use situ_wire::messages::executor::{JobSecret, ProcessLife, Request, Response, WorkerPoll};
use situ_wire::messages::scheduler::{TaskOutcome, TaskProgress, TaskSpec};
use tokio::sync::mpsc;

use super::calls::wrong_answer;
use super::task::{TaskControl, about_len_bytes};
use super::worker::Worker;

/// How long a poll may take before it is given up: longer than an executor lets one wait.
const POLL_LIMIT: Duration = Duration::from_secs(5);
/// How long a worker whose slots are all taken waits for the end of a task before it polls: it needs no task yet, and for
/// a short task it polls once.
const BUSY: Duration = Duration::from_millis(100);
/// How many bytes of outcomes one poll carries, unless a single one is longer; the rest goes with the next.
const OUTCOMES_LEN_BYTES: usize = 8 << 20;

/// How a task ended.
type Ended = (TaskAttemptId, TaskOutcome);

/// What a worker holds.
pub(crate) struct Holdings {
    job: JobId,
    secret: JobSecret,
    life: ProcessLife,
    slots: u32,
    /// Whether it takes no more tasks.
    leaving: bool,
    polls: u64,
    /// The tasks that its executor is not known to know the end of.
    held: BTreeMap<TaskAttemptId, Arc<TaskControl>>,
    /// How many slots those take that run.
    taken: BTreeMap<TaskAttemptId, u32>,
    /// Of these, how those ended that have.
    ended: Vec<Ended>,
}

impl Holdings {
    /// A worker that holds nothing yet.
    pub(crate) fn new(job: JobId, secret: JobSecret, life: ProcessLife, slots: u32) -> Self {
        let (held, taken) = (BTreeMap::new(), BTreeMap::new());
        Self { job, secret, life, slots, leaving: false, polls: 0, held, taken, ended: Vec::new() }
    }

    /// The next poll, and how many outcomes it tells. The one before was answered or is given up.
    pub(crate) fn next_poll(&mut self) -> (WorkerPoll, usize) {
        self.polls += 1;
        let told = told_at_once(&self.ended);
        let ended = &self.ended[..told];
        let without: BTreeSet<TaskAttemptId> = ended.iter().map(|(attempt, _)| *attempt).collect();
        let others = self.held.iter().filter(|(attempt, _)| !without.contains(attempt));
        let held =
            others.map(|(attempt, control)| TaskProgress { attempt: *attempt, steps: control.steps() }).collect();
        let Self { job, secret, life, polls: number, .. } = *self;
        let free = self.free();
        (WorkerPoll { job, secret, life, number, held, ended: ended.to_vec(), free }, told)
    }

    /// How many slots nobody has.
    fn free(&self) -> u32 {
        if self.leaving {
            return 0;
        }
        self.slots.saturating_sub(self.taken.values().sum())
    }

    /// The poll in force, which told so many outcomes, was answered.
    pub(crate) fn heard(&mut self, told: usize) {
        for (attempt, _) in self.ended.drain(..told) {
            self.held.remove(&attempt);
        }
    }

    /// Takes a task that takes so many slots; what it is given up by.
    pub(crate) fn take(&mut self, attempt: TaskAttemptId, slots: u32) -> Arc<TaskControl> {
        self.taken.insert(attempt, slots);
        Arc::clone(self.held.entry(attempt).or_default())
    }

    /// It takes no more tasks. Whether it has none any more either.
    pub(crate) fn leave(&mut self) -> bool {
        self.leaving = true;
        self.held.is_empty()
    }

    /// A task has ended.
    pub(crate) fn end(&mut self, attempt: TaskAttemptId, outcome: TaskOutcome) {
        self.taken.remove(&attempt);
        self.ended.push((attempt, outcome));
    }

    fn give_up(&self, attempt: TaskAttemptId) {
        if let Some(control) = self.held.get(&attempt) {
            control.give_up();
        }
    }
}

/// How many of the outcomes fit into one poll; at least one if there is any.
fn told_at_once(ended: &[Ended]) -> usize {
    let mut len = 0;
    let fits = |(index, (_, outcome)): &(usize, &Ended)| {
        len += about_len_bytes(outcome);
        len <= OUTCOMES_LEN_BYTES || *index == 0
    };
    ended.iter().enumerate().take_while(fits).count()
}

/// Runs the tasks that the executor gives, at most `slots` at once, until it says that this worker shall end.
///
/// # Errors
/// When the executor cannot be reached, or refuses this worker; or when the program stands still for good.
pub(super) async fn serve<R: Runtime>(
    worker: Arc<Worker<R>>,
    executor: SocketAddr,
    life: ProcessLife,
    slots: u32,
) -> Result<(), String> {
    let cluster = Arc::clone(&worker.cluster);
    let (job, secret) = (cluster.environment.job, cluster.environment.secret);
    let mut holdings = Holdings::new(job, secret, life, slots);
    let (end, mut ends) = mpsc::unbounded_channel();
    let executor = cluster.executor(executor);
    let mut patience = executor.patience();
    loop {
        while let Ok((attempt, outcome)) = ends.try_recv() {
            holdings.end(attempt, outcome);
        }
        // What has begun ends first, and is told.
        if worker.runs.is_away() && holdings.leave() {
            return Err("its run of the program cannot go on; a new worker begins anew".to_owned());
        }
        let (poll, told) = holdings.next_poll();
        let request = Request::Poll(poll);
        let orders = tokio::select! {
            // An answer that is there is better looked at than asked for again.
            biased;
            answer = executor.ask_once(&request, POLL_LIMIT) => match answer {
                Ok(Response::Orders(orders)) => orders,
                Ok(other) => return Err(wrong_answer("Poll", &other).to_string()),
                Err(error) => {
                    patience.bear(error).await.map_err(|error| error.to_string())?;
                    continue;
                }
            },
            Some((attempt, outcome)) = ends.recv() => {
                holdings.end(attempt, outcome);
                continue;
            }
        };
        patience.heard();
        holdings.heard(told);
        if orders.end {
            return Ok(());
        }
        if !orders.give_up.is_empty() {
            orders.give_up.into_iter().for_each(|attempt| holdings.give_up(attempt));
        }
        // They look at the time, too.
        worker.runs.wake();
        for task in orders.run {
            let control = holdings.take(task.attempt, task.slots);
            run(Arc::clone(&worker), task, control, end.clone());
        }
        if holdings.free() == 0
            && let Some(Some((attempt, outcome))) = cluster.runtime.clock().timeout(BUSY, ends.recv()).await
        {
            holdings.end(attempt, outcome);
        }
    }
}

/// Runs a task on a thread of its own, and says how it ended.
fn run<R: Runtime>(
    worker: Arc<Worker<R>>,
    task: TaskSpec,
    control: Arc<TaskControl>,
    end: mpsc::UnboundedSender<Ended>,
) {
    let runtime = worker.cluster.runtime.clone();
    runtime.clone().spawn("task", async move {
        let attempt = task.attempt;
        let outcome = runtime.blocking(move || worker.run(&task, &control)).await;
        // Nobody waits for it only when the process is ending.
        let _ = end.send((attempt, outcome));
    });
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{PartitionId, ScopeId, StageId};
    use situ_wire::messages::scheduler::TaskDone;

    use super::*;

    const JOB: JobId = JobId(1);

    fn attempt(partition: u32) -> TaskAttemptId {
        TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(partition), attempt: 0 }
    }

    fn done(len: usize) -> TaskOutcome {
        TaskOutcome::Done(Box::new(TaskDone { result: vec![0; len].into(), ..TaskDone::default() }))
    }

    fn holdings(tasks: u32) -> Holdings {
        let mut holdings = Holdings::new(JOB, JobSecret([0; 16]), ProcessLife(1), 4);
        (0..tasks).for_each(|task| drop(holdings.take(attempt(task), 1)));
        holdings
    }

    /// Number, what is held, what has ended, how many are free, how many are told.
    fn polls(holdings: &mut Holdings) -> (u64, Vec<u32>, Vec<u32>, u32, usize) {
        let (poll, told) = holdings.next_poll();
        assert!(situ_wire::codec::encode(&poll).unwrap().len() < situ_wire::limits::MESSAGE_LEN_BYTES);
        let held = poll.held.iter().map(|task| task.attempt.partition.0).collect();
        let ended = poll.ended.iter().map(|(attempt, _)| attempt.partition.0).collect();
        (poll.number, held, ended, poll.free, told)
    }

    #[test]
    fn an_outcome_is_told_until_a_poll_that_told_it_is_answered() {
        let mut holdings = holdings(3);
        assert_eq!(polls(&mut holdings), (1, vec![0, 1, 2], vec![], 1, 0));
        holdings.end(attempt(1), done(5));
        assert_eq!(polls(&mut holdings), (2, vec![0, 2], vec![1], 2, 1));
        holdings.end(attempt(0), done(5));
        assert_eq!(polls(&mut holdings), (3, vec![2], vec![1, 0], 3, 2), "nobody has answered");
        holdings.heard(2);
        assert_eq!(polls(&mut holdings), (4, vec![2], vec![], 3, 0));
    }

    #[test]
    fn who_leaves_takes_no_more_and_goes_when_all_is_told() {
        let mut holdings = holdings(1);
        assert!(!holdings.leave());
        assert_eq!(polls(&mut holdings), (1, vec![0], vec![], 0, 0));
        holdings.end(attempt(0), done(5));
        assert!(!holdings.leave());
        assert_eq!(polls(&mut holdings), (2, vec![], vec![0], 0, 1));
        holdings.heard(1);
        assert!(holdings.leave());
    }

    #[test]
    fn what_does_not_fit_is_held_until_it_is_told() {
        let mut holdings = holdings(4);
        (0..3).for_each(|task| holdings.end(attempt(task), done(5 << 20)));
        assert_eq!(polls(&mut holdings), (1, vec![1, 2, 3], vec![0], 3, 1));
        holdings.heard(1);
        assert_eq!(polls(&mut holdings), (2, vec![2, 3], vec![1], 3, 1));
    }

    #[test]
    fn the_steps_of_tasks_are_told_and_what_is_given_up_hears_of_it() {
        let mut holdings = holdings(0);
        let control = holdings.take(attempt(7), 1);
        holdings.give_up(attempt(7));
        holdings.give_up(attempt(8));
        assert_eq!(format!("{control:?}"), "TaskControl { steps: 0, given_up: true }");
        let held = holdings.next_poll().0.held;
        assert_eq!(held, [TaskProgress { attempt: attempt(7), steps: 0 }]);
    }
}
