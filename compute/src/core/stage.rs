use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use situ_wire::codec;
use situ_wire::ids::{ActionId, ExecutorId, NodeName, PartitionId, ScopeId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{Locality, ReduceTotal, StageOutput, StagePlan, StageStatus, TaskLocation};
use situ_wire::time::TimeMs;

use super::attribution::Trouble;
use super::executors::Executors;
use super::homes::Homes;
use super::job::Cached;
use super::pending::Pending;
use super::pieces::Pieces;
use super::places::{Home, Places};
use super::policy::{SchedulingPolicy, ms};
use super::rollback::Fingerprint;
use super::spares::Spares;

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

impl StageKey {
    /// The scope that it belongs to.
    pub(super) fn scope(self) -> ScopeId {
        match self {
            Self::Shuffle(shuffle) => shuffle.0,
            Self::Result(action) => action.0,
        }
    }
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
    pub(super) pieces: Pieces,
    pub(super) result: Box<[u8]>,
}

/// One task of a stage: it waits, runs (perhaps twice), or is done.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) done: Option<DoneTask>,
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

/// An attempt at a task that runs and was not cancelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) attempt: TaskAttemptId,
    pub(super) executor: ExecutorId,
    pub(super) started: TimeMs,
    /// How far it had come when that was last told.
    steps: u64,
    /// Since when it has come no further.
    pub(super) quiet_since: TimeMs,
    /// The same when it was last looked at: under this it is listed.
    listed: TimeMs,
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
    /// Its attempts that run and were not cancelled, by partition and number.
    running: BTreeMap<(u32, u32), Running>,
    /// How many tasks they are at.
    tasks_running: u32,
    /// The same attempts, the oldest first, and those that have made no progress for longest first.
    started: BTreeSet<(TimeMs, u32, u32)>,
    quiet: BTreeSet<(TimeMs, u32, u32)>,
    pub(super) done: u32,
    pub(super) failed: u32,
    pub(super) localities: [u32; 5],
    /// The first action under way that needs it; none if nobody does now.
    pub(super) needed_by: Option<ActionId>,
    /// Whether all shuffles that it reads are complete.
    pub(super) ready: bool,
    /// Since when it may leave slots unused in the hope of nearer ones, of a clock that runs while there are any.
    pub(super) holding_back: Option<TimeMs>,
    /// Lost outputs that nobody has missed yet.
    pub(super) lost: BTreeMap<u32, LostOutput>,
    /// Outputs beside those that count.
    pub(super) spares: Spares,
    /// Whether anybody has heard where its outputs are, and may have read them.
    pub(super) told: bool,
    /// What lost outputs were that somebody may have read, until they are there again.
    pub(super) fingerprints: BTreeMap<u32, Fingerprint>,
    /// How much its results take.
    pub(super) results_len_bytes: usize,
    durations_ms: VecDeque<u64>,
    /// The same in order.
    sorted_ms: Vec<u64>,
}

impl Stage {
    /// A stage of which nothing has run, and which nobody needs yet.
    pub(super) fn new(mut plan: StagePlan, places: &mut Places) -> Self {
        let preferred = std::mem::take(&mut plan.preferred);
        Self {
            tasks: (0..plan.partitions).map(|_| Task::default()).collect(),
            pending: Pending::new(plan.partitions, &preferred, places),
            resting: BTreeSet::new(),
            running: BTreeMap::new(),
            tasks_running: 0,
            started: BTreeSet::new(),
            quiet: BTreeSet::new(),
            done: 0,
            failed: 0,
            localities: [0; 5],
            needed_by: None,
            ready: false,
            holding_back: None,
            lost: BTreeMap::new(),
            spares: Spares::default(),
            told: false,
            fingerprints: BTreeMap::new(),
            results_len_bytes: 0,
            durations_ms: VecDeque::new(),
            sorted_ms: Vec::new(),
            plan,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done == self.plan.partitions
    }

    /// Whether tasks of it may be started.
    pub(super) fn is_open(&self) -> bool {
        self.needed_by.is_some() && self.ready && !self.pending.is_empty()
    }

    /// Whether its tasks may take more than a slot.
    pub(super) fn is_large(&self) -> bool {
        self.plan.resources.cores > 1 || self.plan.resources.memory_bytes > 0
    }

    pub(super) fn task(&self, partition: PartitionId) -> &Task {
        &self.tasks[index(partition.0)]
    }

    pub(super) fn task_mut(&mut self, partition: PartitionId) -> &mut Task {
        &mut self.tasks[index(partition.0)]
    }

    /// A task waits for a slot.
    pub(super) fn wait(&mut self, partition: u32, cached: &Cached) {
        let holders = || cached.holders(&self.plan.persisted, partition);
        let holders = if self.plan.persisted.is_empty() { BTreeSet::new() } else { holders() };
        self.pending.insert(partition, &holders);
    }

    /// Somebody needs it who did not before: its waiting tasks are sorted by where their input lies now.
    pub(super) fn sort(&mut self, cached: &Cached, places: &Places) {
        let persisted = &self.plan.persisted;
        let holders = |partition| {
            if persisted.is_empty() { BTreeSet::new() } else { cached.holders(persisted, partition) }
        };
        self.pending.sort(holders, places);
        self.hold_nothing_back();
    }

    /// Nobody needs it any more.
    pub(super) fn rest(&mut self) {
        self.needed_by = None;
        self.pending.unsort();
        self.hold_nothing_back();
    }

    /// The places of its input have changed.
    pub(super) fn move_input(&mut self, preferred: &[Vec<TaskLocation>], cached: &Cached, places: &mut Places) {
        self.pending.homes = Homes::new(preferred, places);
        if self.needed_by.is_some() {
            self.sort(cached, places);
        }
    }

    /// The first executor came to a node, or the last one left it.
    pub(super) fn node_changed(&mut self, home: Home, places: &Places) {
        if self.pending.node_changed(home, places) {
            self.hold_nothing_back();
        }
    }

    /// An executor has nothing of the job in memory any more.
    pub(super) fn holder_gone(&mut self, executor: ExecutorId) {
        if self.pending.holder_gone(executor) {
            self.hold_nothing_back();
        }
    }

    /// An attempt at a task runs.
    pub(super) fn start(&mut self, attempt: TaskAttemptId, executor: ExecutorId, now: TimeMs, locality: Locality) {
        self.localities[slot(locality)] += 1;
        self.take_up(attempt, executor, now);
    }

    /// An attempt at a task runs, which somebody else may have started.
    pub(super) fn take_up(&mut self, attempt: TaskAttemptId, executor: ExecutorId, now: TimeMs) {
        let key = (attempt.partition.0, attempt.attempt);
        self.pending.remove(key.0);
        assert!(self.task(attempt.partition).done.is_none(), "a done task is not started");
        let first = self.attempts(key.0).next().is_none();
        self.tasks_running += u32::from(first);
        let running = Running { attempt, executor, started: now, steps: 0, quiet_since: now, listed: now };
        self.running.insert(key, running);
        self.started.insert((now, key.0, key.1));
        self.quiet.insert((now, key.0, key.1));
    }

    /// The attempts at a task that run.
    pub(super) fn attempts(&self, partition: u32) -> impl Iterator<Item = &Running> {
        self.running.range((partition, 0)..=(partition, u32::MAX)).map(|(_, running)| running)
    }

    /// All attempts that run, by partition.
    pub(super) fn all_attempts(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    /// An attempt runs no more; whether another one does.
    pub(super) fn stop(&mut self, attempt: TaskAttemptId) -> bool {
        let partition = attempt.partition.0;
        let stopped = self.stop_one((partition, attempt.attempt));
        let runs = self.attempts(partition).next().is_some();
        self.tasks_running -= u32::from(stopped && !runs);
        runs
    }

    fn stop_one(&mut self, key: (u32, u32)) -> bool {
        let Some(Running { started, listed, .. }) = self.running.remove(&key) else { return false };
        self.started.remove(&(started, key.0, key.1));
        self.quiet.remove(&(listed, key.0, key.1));
        true
    }

    /// How far an attempt has come.
    pub(super) fn progress(&mut self, attempt: TaskAttemptId, steps: u64, now: TimeMs) {
        if let Some(running) = self.running.get_mut(&(attempt.partition.0, attempt.attempt))
            && running.steps != steps
        {
            (running.steps, running.quiet_since) = (steps, now);
        }
    }

    /// Its attempts, the oldest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &Running> {
        self.started.iter().filter_map(|(_, partition, attempt)| self.running.get(&(*partition, *attempt)))
    }

    /// Those that were started at `until` or before.
    pub(super) fn started_before(&self, until: Option<TimeMs>) -> impl Iterator<Item = &Running> {
        self.oldest().take_while(move |running| Some(running.started) <= until)
    }

    /// Its attempts with since when each is listed to have made no progress, for longest first. Some have made more since.
    pub(super) fn quietest(&self) -> impl Iterator<Item = (TimeMs, &Running)> {
        let found = |(_, partition, attempt): &(TimeMs, u32, u32)| self.running.get(&(*partition, *attempt));
        self.quiet.iter().filter_map(move |listed| Some((listed.0, found(listed)?)))
    }

    /// Those that have made no progress since `until` or before, for longest first.
    pub(super) fn quiet_since(&mut self, until: Option<TimeMs>) -> Vec<Running> {
        let mut quiet = Vec::new();
        let mut after = Bound::Unbounded;
        while let Some((listed, partition, number)) = self.quiet.range((after, Bound::Unbounded)).next().copied() {
            if Some(listed) > until {
                break;
            }
            after = Bound::Excluded((listed, partition, number));
            let Some(running) = self.running.get_mut(&(partition, number)) else { continue };
            if running.quiet_since > listed {
                // It has come further since it was listed.
                running.listed = running.quiet_since;
                self.quiet.remove(&(listed, partition, number));
                self.quiet.insert((running.listed, partition, number));
            } else {
                quiet.push(*running);
            }
        }
        quiet
    }

    /// A task is done; the other attempts at it, which run for nothing now.
    pub(super) fn finish(&mut self, done: DoneTask, duration_ms: u64) -> Vec<TaskAttemptId> {
        self.add_duration(duration_ms);
        self.complete(done)
    }

    /// What a task left is there; the attempts at it.
    pub(super) fn complete(&mut self, done: DoneTask) -> Vec<TaskAttemptId> {
        let partition = done.attempt.partition;
        self.pending.remove(partition.0);
        self.lost.remove(&partition.0);
        self.done += 1;
        self.results_len_bytes += done.result.len();
        let others: Vec<TaskAttemptId> = self.attempts(partition.0).map(|running| running.attempt).collect();
        self.tasks_running -= u32::from(!others.is_empty());
        for other in &others {
            self.stop_one((partition.0, other.attempt));
        }
        let task = self.task_mut(partition);
        assert!(task.done.is_none(), "the first attempt that ends wins");
        task.done = Some(done);
        task.trouble = None;
        others
    }

    fn add_duration(&mut self, duration_ms: u64) {
        if self.durations_ms.len() == DURATIONS
            && let Some(oldest) = self.durations_ms.pop_front()
        {
            self.sorted_ms.remove(self.sorted_ms.partition_point(|other| *other < oldest));
        }
        self.durations_ms.push_back(duration_ms);
        self.sorted_ms.insert(self.sorted_ms.partition_point(|other| *other < duration_ms), duration_ms);
    }

    /// The output of a done task is gone, and so is what was the same.
    pub(super) fn lose(&mut self, partition: PartitionId, node: NodeName, at: TimeMs, cached: &Cached) {
        let Some(done) = self.task_mut(partition).done.take() else { return };
        self.done -= 1;
        self.spares.forget(partition);
        self.keep_fingerprint(partition, &done.pieces);
        self.lost.insert(partition.0, LostOutput { at, executor: done.executor, attempt: done.attempt, node });
        self.wait(partition.0, cached);
    }

    /// It has tasks to start and may leave slots unused from now on. `at` is of a clock that runs while there are any: what
    /// it has waited still counts when all were taken meanwhile. A stage whose input lies on few nodes would else wait anew
    /// for every task that it gives to another node.
    pub(super) fn hold_back(&mut self, at: TimeMs) {
        self.holding_back.get_or_insert(at);
    }

    /// It has nothing to hold back, or its places have changed: the next wait begins anew.
    pub(super) fn hold_nothing_back(&mut self) {
        self.holding_back = None;
    }

    /// How far from its input a task may be started at `at`, of the same clock.
    pub(super) fn allowed(&self, at: TimeMs, policy: &SchedulingPolicy) -> Locality {
        let levels = self.relaxations(policy).into_iter().flatten();
        // Without any there is nothing to hold back for.
        levels.filter(|(from, _)| *from <= at).map(|(_, level)| level).max().unwrap_or(Locality::Any)
    }

    /// When the next level is allowed, if it holds back.
    pub(super) fn next_relaxation(&self, at: TimeMs, policy: &SchedulingPolicy) -> Option<TimeMs> {
        self.holding_back?;
        self.relaxations(policy).into_iter().flatten().map(|(from, _)| from).filter(|from| *from > at).min()
    }

    /// From when on which level is allowed. Levels at which no task has a place are passed at once.
    fn relaxations(&self, policy: &SchedulingPolicy) -> [Option<(TimeMs, Locality)>; 4] {
        let mut at = self.holding_back.unwrap_or_default();
        let [process, node, rack] = self.pending.levels();
        let mut level = |has: bool, level, wait| {
            let from = at;
            if has {
                at = if self.holding_back.is_some() { at + ms(wait) } else { TimeMs::NEVER };
            }
            has.then_some((from, level))
        };
        let levels = [
            level(process, Locality::Process, policy.wait_process_ms),
            level(node, Locality::Node, policy.wait_node_ms),
            level(rack, Locality::Rack, policy.wait_rack_ms),
        ];
        let [process, node, rack] = levels;
        [process, node, rack, Some((at, Locality::Any))]
    }

    /// The median duration of the tasks that ended last, in ms.
    pub(super) fn median_ms(&self) -> Option<u64> {
        self.sorted_ms.get(self.sorted_ms.len() / 2).copied()
    }

    pub(super) fn status(&self) -> StageStatus {
        StageStatus {
            stage: self.plan.stage,
            name: self.plan.name.clone(),
            output: self.plan.output,
            tasks: self.plan.partitions,
            done: self.done,
            running: self.tasks_running,
            failed: self.failed,
            localities: self.localities,
            quiet: None,
        }
    }

    /// The results of its tasks, in order.
    pub(super) fn into_results(self) -> Vec<Bytes> {
        assert!(self.is_complete() && self.running.is_empty(), "only a finished stage has all results");
        let results = |task: Task| task.done.map(|done| Bytes::from(done.result)).unwrap_or_default();
        self.tasks.into_iter().map(results).collect()
    }

    /// What there is of its shuffle for each reduce partition, encoded.
    pub(super) fn totals(&self) -> Vec<Bytes> {
        assert!(self.is_complete(), "only a finished stage has all pieces");
        let done = self.tasks.iter().filter_map(|task| task.done.as_ref());
        totals(self.plan.output, done.map(|done| done.pieces.iter()))
    }

    pub(super) fn check(&self, executors: &Executors) {
        assert_eq!(self.needed_by.is_some(), self.pending.near().is_some(), "what somebody needs is sorted by place");
        self.pending.check(executors);
        self.check_spares(executors);
        let (mut done, mut tasks_running) = (0, 0);
        for (partition, task) in (0..).zip(&self.tasks) {
            let attempts = self.attempts(partition).count();
            let rests = self.resting.contains(&partition);
            let states = [task.done.is_some(), attempts > 0, self.pending.contains(partition), rests];
            assert_eq!(
                states.iter().filter(|is| **is).count(),
                1,
                "a task is done, runs, waits or rests: {partition} {states:?}"
            );
            assert!(attempts <= 2, "at most one second attempt");
            done += u32::from(states[0]);
            tasks_running += u32::from(states[1]);
        }
        assert_eq!((done, tasks_running), (self.done, self.tasks_running), "done and running tasks are counted");
        let sizes = (self.started.len(), self.quiet.len());
        assert_eq!(sizes, (self.running.len(), self.running.len()), "each attempt is listed once");
        for ((partition, number), running) in &self.running {
            assert!(self.started.contains(&(running.started, *partition, *number)), "by when it was started");
            assert!(
                self.quiet.contains(&(running.listed, *partition, *number)),
                "and by when it was last seen to go on"
            );
        }
        let mut sorted: Vec<u64> = self.durations_ms.iter().copied().collect();
        sorted.sort_unstable();
        assert_eq!(sorted, self.sorted_ms, "durations are sorted");
    }
}

/// The result of an action that ends in a shuffle: what its map tasks wrote for each reduce partition, together, as an
/// encoded [`ReduceTotal`].
pub(crate) fn totals<P: Iterator<Item = ShufflePiece>>(
    output: StageOutput,
    tasks: impl Iterator<Item = P>,
) -> Vec<Bytes> {
    let StageOutput::Shuffle { reducers, .. } = output else { return Vec::new() };
    let mut totals = vec![ReduceTotal::default(); index(reducers)];
    for (reduce, piece) in tasks.flat_map(|pieces| (0..index(reducers)).zip(pieces)) {
        let total = &mut totals[reduce];
        total.len_bytes = total.len_bytes.saturating_add(piece.len_bytes);
        total.records = total.records.saturating_add(piece.records);
    }
    totals.iter().map(|total| codec::encode(total).expect("two numbers fit into a message")).collect()
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
