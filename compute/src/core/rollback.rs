use std::collections::BTreeSet;

use situ_wire::ids::{JobId, NodeName, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{Lost, Plan, StageOutput};
use situ_wire::time::TimeMs;

use super::JobRecord;
use super::job::{Action, Job};
use super::pieces::Pieces;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::{DoneTask, Stage, StageKey, Task};

/// Of how many shuffles one record says what they held: it must fit into the journal, beside an action's results too. What is
/// left has records of its own.
const GIVEN_PER_RECORD: usize = 2_000;

/// The pieces of one map output, each as one number: what it takes to see whether it is the same when it is computed again.
pub(super) type Fingerprint = Box<[u64]>;

impl Scheduler {
    /// An output was computed again, and is not what it was for some reducers. Whoever has read what it was runs again; what
    /// they leave is compared in its turn. Where that cannot be, because the program has a result of it already, the job
    /// fails: never is there a silent difference.
    pub(super) fn roll_back(
        &mut self,
        now: TimeMs,
        job: JobId,
        shuffle: ShuffleId,
        map: Option<PartitionId>,
        reducers: &[u32],
    ) {
        self.outputs_vary(job);
        let Some(found) = self.jobs.get_mut(&job) else { return };
        if found.given.contains_key(&shuffle) {
            let what = "a result that the program has already was computed from what it was before";
            let reason = found.not_the_same(shuffle, map, what);
            return self.fail_job(now, job, &reason);
        }
        let reads = |stage: &Stage| stage.plan.reads.contains(&shuffle);
        let readers: Vec<StageKey> =
            found.stages.iter().filter(|(_, stage)| reads(stage)).map(|(key, _)| *key).collect();
        let mut cancelled = Vec::new();
        for key in readers {
            let Some(stage) = found.stages.get(&key) else { continue };
            let read = |task: &Task| task.has_read(reducers);
            let partitions: Vec<u32> =
                (0..).zip(&stage.tasks).filter(|(_, task)| read(task)).map(|(partition, _)| partition).collect();
            if !partitions.is_empty() && !stage.plan.persisted.is_empty() {
                // No worker can be told to compute one partition anew.
                let what = format!("{} has read it and keeps in memory what it made of it", stage.plan.name);
                let reason = found.not_the_same(shuffle, map, &what);
                return self.fail_job(now, job, &reason);
            }
            for partition in partitions {
                let Job { stages, cached, recoveries, kept_len_bytes, .. } = &mut *found;
                let Some(stage) = stages.get_mut(&key) else { continue };
                let (id, by) = (PartitionId(partition), RecoveredBy::Task(key, PartitionId(partition)));
                stage.task_mut(id).forget_read();
                let attempts: Vec<TaskAttemptId> = stage.attempts(partition).map(|running| running.attempt).collect();
                for attempt in attempts {
                    if !stage.stop(attempt) {
                        stage.wait(partition, cached);
                    }
                    recoveries.lose(Lost::Superseded, attempt, NodeName::default(), now, by);
                    cancelled.push(attempt);
                }
                let Some(done) = &stage.task(id).done else { continue };
                let node = self.executors.node(done.executor);
                if let StageKey::Shuffle(_) = key {
                    stage.lose(id, node, now, cached);
                } else if let Some(done) = stage.retract(id) {
                    *kept_len_bytes -= done.result.len();
                    stage.wait(partition, cached);
                    recoveries.lose(Lost::Superseded, done.attempt, node, now, by);
                }
            }
        }
        found.find_needed(now, self.executors.places());
        cancelled.into_iter().for_each(|attempt| self.cancel(attempt));
    }

    /// All outputs of a shuffle are there. An action that is done may have used it, in an earlier life of the scheduler too:
    /// it must hold what it held then.
    pub(super) fn check_given(&mut self, now: TimeMs, job: JobId, shuffle: ShuffleId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let Some(given) = found.given.get(&shuffle) else { return };
        let stage = found.stages.get(&StageKey::Shuffle(shuffle));
        if stage.and_then(Stage::digest).is_some_and(|digest| digest != *given) {
            let what = "a result that the program has already was computed from what it was before";
            let reason = found.not_the_same(shuffle, None, what);
            self.fail_job(now, job, &reason);
        }
    }
}

impl Job {
    /// An attempt at a task hears where the outputs of a shuffle are for a range of reducers. What it was told counts as read
    /// from here on, whatever becomes of them.
    pub(super) fn note_read(&mut self, shuffle: ShuffleId, reducers: (u32, u32), by: TaskAttemptId) {
        if let Some(stage) = self.stages.get_mut(&StageKey::Shuffle(shuffle)) {
            stage.told = true;
        }
        let reader = self.attempts.get(&by).and_then(|attempt| self.stages.get_mut(&attempt.stage));
        if let Some(task) = reader.and_then(|stage| stage.tasks.get_mut(super::stage::index(by.partition.0))) {
            task.note_read(reducers);
        }
    }

    /// An action is done: what its shuffles hold is what its result was computed from, and must stay so. What was not known
    /// before of them, for the record.
    pub(super) fn give(&mut self, plan: &Plan) -> Vec<(ShuffleId, u64)> {
        let filled = plan.stages.iter().filter_map(|stage| match stage.output {
            StageOutput::Shuffle { shuffle, .. } => Some(shuffle),
            StageOutput::Result { .. } => None,
        });
        let mut new = Vec::new();
        for shuffle in filled.filter(|shuffle| !self.given.contains_key(shuffle)) {
            // What is nowhere, and was never read, has given nothing.
            if let Some(digest) = self.stages.get(&StageKey::Shuffle(shuffle)).and_then(Stage::digest) {
                new.push((shuffle, digest));
            }
        }
        self.given.extend(new.iter().copied());
        new
    }

    /// The records of what shuffles held, but for those that stand in the record of an action.
    pub(super) fn given_records(&self) -> impl Iterator<Item = JobRecord> {
        let done = self.actions.values().filter_map(|action| match action {
            Action::Done(done) => Some(&done.given),
            Action::Running { .. } | Action::Recorded { .. } => None,
        });
        let told: BTreeSet<ShuffleId> = done.flatten().map(|(shuffle, _)| *shuffle).collect();
        let mut rest: Vec<(ShuffleId, u64)> = self
            .given
            .iter()
            .filter(|(shuffle, _)| !told.contains(shuffle))
            .map(|(id, digest)| (*id, *digest))
            .collect();
        let job = self.id();
        std::iter::from_fn(move || split_given(&mut rest)).map(move |given| JobRecord::Given { job, given })
    }

    pub(super) fn not_the_same(&self, shuffle: ShuffleId, map: Option<PartitionId>, what: &str) -> String {
        let stage = self.stages.get(&StageKey::Shuffle(shuffle)).map(|stage| (&stage.plan.name, stage.plan.stage));
        let (name, stage) = stage.map_or((String::new(), String::new()), |(name, id)| (name.clone(), id.to_string()));
        let part = map.map(|map| format!(", {map},")).unwrap_or_default();
        format!(
            "{name} ({stage}{part} for {shuffle}) did not give the same output when it was computed again, and {what}: the \
             program does not do the same each time it runs. Sort what has no order of its own (a HashMap's entries) before it \
             is used, use BTreeMap and BTreeSet in records, and compute what varies (time, randomness) once in the driver, with once()"
        )
    }
}

/// Takes off what does not fit into the record at hand; none when all does and nothing is left.
fn split_given(given: &mut Vec<(ShuffleId, u64)>) -> Option<Vec<(ShuffleId, u64)>> {
    let part = given.split_off(given.len().saturating_sub(GIVEN_PER_RECORD));
    (!part.is_empty()).then_some(part)
}

impl Scheduler {
    /// What the shuffles of an action held, as far as it goes into its own record; the rest is recorded before that.
    pub(super) fn record_given(&mut self, job: JobId, mut given: Vec<(ShuffleId, u64)>) -> Vec<(ShuffleId, u64)> {
        let own = split_given(&mut given).unwrap_or_default();
        while let Some(given) = split_given(&mut given) {
            self.append(JobRecord::Given { job, given });
        }
        own
    }
}

impl Task {
    fn note_read(&mut self, (first, end): (u32, u32)) {
        self.read =
            if self.read.0 < self.read.1 { (self.read.0.min(first), self.read.1.max(end)) } else { (first, end) };
    }

    fn forget_read(&mut self) {
        self.read = (0, 0);
    }

    /// Whether an attempt at it may have read a piece for one of these, which are in order.
    fn has_read(&self, reducers: &[u32]) -> bool {
        let from = reducers.partition_point(|reducer| *reducer < self.read.0);
        reducers.get(from).is_some_and(|reducer| *reducer < self.read.1)
    }
}

impl Stage {
    /// For which reducers an output that was computed again is not what it was, in order. Nothing is known of one that
    /// nobody can have read.
    pub(super) fn differs(&mut self, partition: PartitionId, pieces: &Pieces) -> Vec<u32> {
        let Some(before) = self.fingerprints.remove(&partition.0) else { return Vec::new() };
        let same = |(before, piece): (&u64, ShufflePiece)| *before == number(piece);
        let pairs = before.iter().zip(pieces.iter()).map(same);
        (0..).zip(pairs).filter(|(_, same)| !same).map(|(reducer, _)| reducer).collect()
    }

    /// What it takes to know later whether an output is the same again.
    pub(super) fn keep_fingerprint(&mut self, partition: PartitionId, pieces: &Pieces) {
        if self.told {
            self.fingerprints.insert(partition.0, fingerprint(pieces.iter()));
        }
    }

    /// One number for all that it has left, the lost outputs that somebody has read among it; none while there is something
    /// missing. It stands in the journal: how it is computed must not change.
    pub(super) fn digest(&self) -> Option<u64> {
        self.digest_with(|_| None)
    }

    /// The same, with what `others` gives for what is missing.
    pub(super) fn digest_with<'a>(&self, others: impl Fn(u32) -> Option<&'a [ShufflePiece]>) -> Option<u64> {
        let mut digest = 0;
        for (partition, task) in (0..).zip(&self.tasks) {
            let mut add = |piece| digest = mix(digest ^ piece);
            match (&task.done, self.fingerprints.get(&partition)) {
                (Some(done), _) => done.pieces.iter().map(number).for_each(&mut add),
                (None, Some(lost)) => lost.iter().copied().for_each(&mut add),
                (None, None) => others(partition)?.iter().copied().map(number).for_each(&mut add),
            }
        }
        Some(digest)
    }

    /// The result of a done task counts no more.
    fn retract(&mut self, partition: PartitionId) -> Option<DoneTask> {
        let done = self.task_mut(partition).done.take()?;
        self.done -= 1;
        self.results_len_bytes -= done.result.len();
        Some(done)
    }
}

pub(super) fn fingerprint(pieces: impl Iterator<Item = ShufflePiece>) -> Fingerprint {
    pieces.map(number).collect()
}

/// A piece as a number. Two that differ have the same one by chance, once in 2^64.
fn number(piece: ShufflePiece) -> u64 {
    mix(mix(mix(piece.len_bytes) ^ u64::from(piece.crc32c)) ^ piece.records)
}

/// The end of splitmix64: each bit of the result depends on each bit of what goes in.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
