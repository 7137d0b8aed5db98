use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::ids::{ActionId, ExecutorId, NodeName, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{Locality, StageOutput, StagePlan, StageStatus, TaskLocation};
use situ_wire::time::TimeMs;

use super::attribution::Trouble;
use super::job::Cached;
use super::pending::{Offer, Pending, Places};
use super::policy::{SchedulingPolicy, ms};
use super::rollback::Fingerprint;

/// How many of the last durations of a stage's tasks are kept for the median.
const DURATIONS: usize = 512;

/// What a stage is for: the name under which a job keeps it. Two stages may end with the same dataset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum StageKey {
    /// It fills a shuffle.
    Shuffle(ShuffleId),
    /// It gives the result of an action.
    Result(ActionId),
}

impl From<StageOutput> for StageKey {
    fn from(output: StageOutput) -> Self {
        match output {
            StageOutput::Shuffle { shuffle, .. } => Self::Shuffle(shuffle),
            StageOutput::Result { action } => Self::Result(action),
        }
    }
}

/// What a done task left.
#[derive(Debug)]
pub(super) struct DoneTask {
    pub(super) attempt: TaskAttemptId,
    /// Where its shuffle output is.
    pub(super) executor: ExecutorId,
    pub(super) pieces: Vec<ShufflePiece>,
    pub(super) result: Bytes,
}

/// One task of a stage: it waits, runs (perhaps twice), or is done.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) done: Option<DoneTask>,
    /// Its attempts that run and were not cancelled.
    pub(super) running: Vec<TaskAttemptId>,
    /// How many attempts failed by their own doing.
    pub(super) failures: u32,
    /// How many failed because shuffle pieces could not be fetched.
    pub(super) fetch_failures: u32,
    /// Where they failed: another place is tried first.
    pub(super) failed_on: Vec<ExecutorId>,
    /// What is known beside; none as long as all goes well.
    pub(super) trouble: Option<Box<Trouble>>,
    /// Of which reducers it may have read pieces, first and one past the last; none if these are equal.
    pub(super) read: (u32, u32),
}

/// A map output that was lost and is not known to be missed yet.
#[derive(Debug)]
pub(super) struct LostOutput {
    pub(super) at: TimeMs,
    pub(super) executor: ExecutorId,
    pub(super) attempt: TaskAttemptId,
    pub(super) node: NodeName,
}

/// The same work for every partition of a dataset: a task set.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) plan: StagePlan,
    pub(super) tasks: Vec<Task>,
    pub(super) pending: Pending,
    /// Tasks that may not be started yet: their file system is away.
    pub(super) resting: BTreeSet<u32>,
    /// Tasks with an attempt that runs.
    pub(super) running: BTreeSet<u32>,
    pub(super) done: u32,
    pub(super) failed: u32,
    pub(super) localities: [u32; 5],
    /// The first action under way that needs it; none if nobody does now.
    pub(super) needed_by: Option<ActionId>,
    /// Whether all shuffles that it reads are complete.
    pub(super) ready: bool,
    /// Since when it leaves slots unused in the hope of nearer ones; none while there are none to be left.
    holding_back: Option<TimeMs>,
    /// For how long it has done so before, since it last had nothing to hold back.
    held_back: Duration,
    /// Lost outputs that nobody has missed yet.
    pub(super) lost: BTreeMap<u32, LostOutput>,
    /// Whether anybody has heard where its outputs are, and may have read them.
    pub(super) told: bool,
    /// What lost outputs were that somebody may have read, until they are there again.
    pub(super) fingerprints: BTreeMap<u32, Fingerprint>,
    /// How much its results take.
    pub(super) results_len_bytes: usize,
    durations_ms: VecDeque<u64>,
}

impl Stage {
    /// A stage of which nothing has run.
    pub(super) fn new(plan: StagePlan, places: &Places) -> Self {
        let mut stage = Self {
            tasks: (0..plan.partitions).map(|_| Task::default()).collect(),
            pending: Pending::default(),
            resting: BTreeSet::new(),
            running: BTreeSet::new(),
            done: 0,
            failed: 0,
            localities: [0; 5],
            needed_by: None,
            ready: false,
            holding_back: None,
            held_back: Duration::ZERO,
            lost: BTreeMap::new(),
            told: false,
            fingerprints: BTreeMap::new(),
            results_len_bytes: 0,
            durations_ms: VecDeque::new(),
            plan,
        };
        for partition in 0..stage.plan.partitions {
            stage.wait(partition, &Cached::default(), places);
        }
        stage
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done == self.plan.partitions
    }

    /// Whether tasks of it may be started.
    pub(super) fn is_open(&self) -> bool {
        self.needed_by.is_some() && self.ready && !self.pending.is_empty()
    }

    pub(super) fn task(&self, partition: PartitionId) -> &Task {
        &self.tasks[index(partition.0)]
    }

    pub(super) fn task_mut(&mut self, partition: PartitionId) -> &mut Task {
        &mut self.tasks[index(partition.0)]
    }

    /// Where the input of a partition lies.
    pub(super) fn preferred(&self, partition: u32) -> &[TaskLocation] {
        self.plan.preferred.get(index(partition)).map_or(&[], Vec::as_slice)
    }

    /// A task waits for a slot.
    pub(super) fn wait(&mut self, partition: u32, cached: &Cached, places: &Places) {
        let preferred = self.plan.preferred.get(index(partition)).map_or(&[][..], Vec::as_slice);
        self.pending.insert(partition, preferred, &cached.holders(&self.plan.persisted, partition), places);
    }

    /// Indexes all waiting tasks anew: executors or what they hold in memory, or the places of the input have changed.
    pub(super) fn wait_anew(&mut self, preferred: Option<Vec<Vec<TaskLocation>>>, cached: &Cached, places: &Places) {
        let waiting: Vec<u32> = self.pending.iter().collect();
        if let Some(preferred) = preferred {
            self.plan.preferred = preferred;
        }
        self.pending = Pending::default();
        self.hold_nothing_back();
        for partition in waiting {
            self.wait(partition, cached, places);
        }
    }

    /// An attempt at a task runs.
    pub(super) fn start(&mut self, attempt: TaskAttemptId, locality: Locality) {
        self.localities[slot(locality)] += 1;
        self.take_up(attempt);
    }

    /// An attempt at a task runs, which somebody else may have started.
    pub(super) fn take_up(&mut self, attempt: TaskAttemptId) {
        let partition = attempt.partition.0;
        let preferred = self.plan.preferred.get(index(partition)).map_or(&[][..], Vec::as_slice);
        self.pending.remove(partition, preferred);
        self.running.insert(partition);
        let task = self.task_mut(attempt.partition);
        assert!(task.done.is_none(), "a done task is not started");
        task.running.push(attempt);
    }

    /// An attempt runs no more; whether another one does.
    pub(super) fn stop(&mut self, attempt: TaskAttemptId) -> bool {
        let task = self.task_mut(attempt.partition);
        task.running.retain(|other| *other != attempt);
        let runs = !task.running.is_empty();
        if !runs {
            self.running.remove(&attempt.partition.0);
        }
        runs
    }

    /// A task is done; the other attempts at it, which run for nothing now.
    pub(super) fn finish(&mut self, done: DoneTask, duration_ms: u64) -> Vec<TaskAttemptId> {
        if self.durations_ms.len() == DURATIONS {
            self.durations_ms.pop_front();
        }
        self.durations_ms.push_back(duration_ms);
        self.complete(done)
    }

    /// What a task left is there; the attempts at it.
    pub(super) fn complete(&mut self, done: DoneTask) -> Vec<TaskAttemptId> {
        let partition = done.attempt.partition;
        let preferred = self.plan.preferred.get(index(partition.0)).map_or(&[][..], Vec::as_slice);
        self.pending.remove(partition.0, preferred);
        self.running.remove(&partition.0);
        self.lost.remove(&partition.0);
        self.done += 1;
        self.results_len_bytes += done.result.len();
        let task = self.task_mut(partition);
        assert!(task.done.is_none(), "the first attempt that ends wins");
        task.done = Some(done);
        task.trouble = None;
        std::mem::take(&mut task.running)
    }

    /// The output of a done task is gone.
    pub(super) fn lose(
        &mut self,
        partition: PartitionId,
        node: NodeName,
        at: TimeMs,
        cached: &Cached,
        places: &Places,
    ) {
        let Some(done) = self.task_mut(partition).done.take() else { return };
        self.done -= 1;
        self.keep_fingerprint(partition, &done.pieces);
        self.lost.insert(partition.0, LostOutput { at, executor: done.executor, attempt: done.attempt, node });
        self.wait(partition.0, cached, places);
    }

    /// There are slots that it leaves unused.
    pub(super) fn hold_back(&mut self, now: TimeMs) {
        self.holding_back = Some(self.held_since(now).unwrap_or(now));
    }

    /// All slots are taken. What it has waited still counts when the next one is free: a stage whose input lies on few
    /// nodes would else wait anew for every task that it gives to another node.
    pub(super) fn pause_holding_back(&mut self, now: TimeMs) {
        if let Some(since) = self.holding_back.take() {
            self.held_back = now.since(since);
        }
    }

    /// It has nothing to hold back, or its places have changed: the next wait begins anew.
    pub(super) fn hold_nothing_back(&mut self) {
        (self.holding_back, self.held_back) = (None, Duration::ZERO);
    }

    /// Since when it holds back, as if without a pause; none if it never began to.
    fn held_since(&self, now: TimeMs) -> Option<TimeMs> {
        let ms = u64::try_from(self.held_back.as_millis()).unwrap_or(u64::MAX);
        self.holding_back.or((ms > 0).then(|| TimeMs(now.0.saturating_sub(ms))))
    }

    /// How far from its input a task may be started now.
    pub(super) fn allowed(&self, now: TimeMs, places: &Places, policy: &SchedulingPolicy) -> Locality {
        self.relaxations(now, places, policy)
            .into_iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, level)| level)
            .max()
            .unwrap_or(
                // Nothing to hold back for.
                Locality::Any,
            )
    }

    /// When the next level is allowed, if it holds back.
    pub(super) fn next_relaxation(&self, now: TimeMs, places: &Places, policy: &SchedulingPolicy) -> Option<TimeMs> {
        self.holding_back?;
        self.relaxations(now, places, policy).into_iter().map(|(at, _)| at).filter(|at| *at > now).min()
    }

    /// From when on which level is allowed. Levels at which no task has a place are passed at once.
    fn relaxations(&self, now: TimeMs, places: &Places, policy: &SchedulingPolicy) -> Vec<(TimeMs, Locality)> {
        let since = self.held_since(now);
        let mut at = since.unwrap_or_default();
        let levels = self.pending.levels(places);
        let waits = [policy.wait_process_ms, policy.wait_node_ms, policy.wait_rack_ms];
        let mut allowed = Vec::new();
        for ((level, wait), has) in
            [Locality::Process, Locality::Node, Locality::Rack].into_iter().zip(waits).zip(levels)
        {
            if has {
                allowed.push((at, level));
                at = if since.is_some() { at + ms(wait) } else { TimeMs::NEVER };
            }
        }
        allowed.push((at, Locality::Any));
        allowed
    }

    /// The best task of this stage for a slot. A task avoids executors on which it failed while one of `usable` is left on
    /// which it did not.
    pub(super) fn pick(&self, offer: Offer<'_>, allowed: Locality, usable: &[ExecutorId]) -> Option<(Locality, u32)> {
        self.pending.pick(offer, allowed, &self.plan.preferred, |partition| {
            let failed_on = &self.task(PartitionId(partition)).failed_on;
            !failed_on.contains(&offer.executor) || usable.iter().all(|other| failed_on.contains(other))
        })
    }

    /// The median duration of the tasks that ended last, in ms.
    pub(super) fn median_ms(&self) -> Option<u64> {
        let mut durations: Vec<u64> = self.durations_ms.iter().copied().collect();
        let middle = durations.len() / 2;
        (!durations.is_empty()).then(|| *durations.select_nth_unstable(middle).1)
    }

    pub(super) fn status(&self) -> StageStatus {
        StageStatus {
            stage: self.plan.stage,
            name: self.plan.name.clone(),
            output: self.plan.output,
            tasks: self.plan.partitions,
            done: self.done,
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            failed: self.failed,
            localities: self.localities,
        }
    }

    /// The results of its tasks, in order.
    pub(super) fn into_results(self) -> Vec<Bytes> {
        assert!(self.is_complete() && self.running.is_empty(), "only a finished stage has all results");
        self.tasks.into_iter().map(|task| task.done.map(|done| done.result).unwrap_or_default()).collect()
    }

    pub(super) fn check(&self) {
        let mut done = 0;
        for (partition, task) in (0..).zip(&self.tasks) {
            let rests = self.resting.contains(&partition);
            let states = [task.done.is_some(), !task.running.is_empty(), self.pending.contains(partition), rests];
            assert_eq!(
                states.iter().filter(|is| **is).count(),
                1,
                "a task is done, runs, waits or rests: {partition} {states:?}"
            );
            assert_eq!(states[1], self.running.contains(&partition), "running tasks are known");
            assert!(task.running.len() <= 2, "at most one second attempt");
            done += u32::from(states[0]);
        }
        assert_eq!(done, self.done, "done tasks are counted");
        assert!(self.running.len() + self.pending.len() <= self.tasks.len(), "no task is counted twice");
    }
}

/// A partition's place in a list. Partitions of known stages are below [`situ_wire::limits::PARTITIONS`].
pub(super) fn index(partition: u32) -> usize {
    usize::try_from(partition).expect("a partition's number fits into memory")
}

/// A locality's place in the statistics.
fn slot(locality: Locality) -> usize {
    match locality {
        Locality::Process => 0,
        Locality::Node => 1,
        Locality::Rack => 2,
        Locality::Any => 3,
        Locality::NoPreference => 4,
    }
}
