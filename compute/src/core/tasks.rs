use situ_wire::ids::{ActionId, DatasetId, ExecutorId, JobId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::limits::TASK_RESULT_LEN_BYTES;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, Lost, StageOutput, StagePlan, TaskDone, TaskFailure, TaskOutcome,
};
use situ_wire::time::TimeMs;

use super::job::{Action, Attempt, Job};
use super::policy::ms;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::{DoneTask, StageKey, index};

/// The most partitions that one task may say it left in memory.
const CACHED_PER_TASK: usize = 10_000;

impl Scheduler {
    /// Takes in what happened at an executor; it may have been told before.
    pub(super) fn executor_event(&mut self, now: TimeMs, executor: ExecutorId, event: ExecutorEvent) {
        match event {
            ExecutorEvent::TaskEnded { attempt, outcome } => self.task_ended(now, executor, attempt, outcome),
            ExecutorEvent::DriverEnded { job, attempt, error, away: true, .. } if self.jobs.contains_key(&job) => {
                self.driver_away(now, executor, (job, attempt), &error.unwrap_or_default());
            }
            ExecutorEvent::DriverEnded { job, attempt, error, retry, .. } => {
                self.driver_process_ended(now, executor, (job, attempt), error, retry);
            }
            ExecutorEvent::WorkerLost { job, reason: _ } => {
                self.worker_crashed(now, job, executor);
                self.lose_cached(now, executor, job);
                self.changed.insert(job);
            }
            ExecutorEvent::WorkerEnded { job } => {
                self.lose_cached(now, executor, job);
                self.changed.insert(job);
            }
            ExecutorEvent::Holds(holding) => self.holds(now, executor, holding),
        }
    }

    fn task_ended(&mut self, now: TimeMs, executor: ExecutorId, id: TaskAttemptId, outcome: TaskOutcome) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        // Told twice, not its own, or in no plan yet.
        let Some(attempt) = job.attempts.get(&id).copied().filter(|attempt| attempt.executor == executor) else {
            return self.reported_ended(now, executor, id, outcome);
        };
        job.attempts.remove(&id);
        if let Some(executor) = self.executors.get_mut(executor) {
            executor.running.remove(&id);
        }
        self.changed.insert(id.job);
        if attempt.cancelled {
            if let StageKey::Shuffle(shuffle) = attempt.stage
                && !job.stages.contains_key(&attempt.stage)
            {
                // It may have left something since its shuffle was released.
                let release = ExecutorCommand::Release { job: id.job, shuffles: vec![shuffle] };
                return self.executors.command(executor, release);
            }
            if let TaskOutcome::Done(done) = outcome {
                job.keep_spare(attempt.stage, id, executor, *done);
            }
            return;
        }
        let outcome = match outcome {
            TaskOutcome::Done(done) => match check_done(&done, job.stages.get(&attempt.stage).map(|stage| &stage.plan))
            {
                Ok(()) => return self.task_done(now, id, attempt, *done),
                Err(message) => TaskFailure::Program { message },
            },
            TaskOutcome::Failed(failure) => failure,
        };
        if let Some(stage) = job.stages.get_mut(&attempt.stage)
            && !stage.stop(id)
        {
            stage.wait(id.partition.0, &job.cached);
        }
        self.task_failed(now, id, attempt, outcome);
    }

    /// The first attempt at a task that ends well is the one that counts.
    fn task_done(&mut self, now: TimeMs, id: TaskAttemptId, attempt: Attempt, done: TaskDone) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let node = self.executors.node(attempt.executor);
        job.add_metrics(&done.metrics);
        for what in done.dropped {
            job.cached.remove(what, attempt.executor);
        }
        let mut keeps = false;
        for (dataset, partition) in done.cached {
            if !job.is_persisted(attempt.stage, (dataset, partition)) {
                continue;
            }
            job.cached.insert((dataset, partition), attempt.executor, id);
            job.recoveries.recover(RecoveredBy::Cache(dataset, partition), id, &node, now);
            keeps = true;
        }
        if let Some(there) = self.executors.get_mut(attempt.executor).filter(|_| keeps) {
            there.workers.keep(id.job, now, ms(self.policy.crowded_ms));
        }
        job.recoveries.recover(RecoveredBy::Task(attempt.stage, id.partition), id, &node, now);
        let Some(stage) = job.stages.get_mut(&attempt.stage) else { return };
        let duration_ms = u64::try_from(now.since(attempt.started).as_millis()).unwrap_or(u64::MAX);
        let left = DoneTask {
            attempt: id,
            executor: attempt.executor,
            pieces: done.pieces.into(),
            result: Box::from(&*done.result),
        };
        let len = left.result.len();
        let differing = stage.differs(id.partition, &left.pieces);
        let others = stage.finish(left, duration_ms);
        let complete = stage.is_complete();
        job.kept_len_bytes += len;
        for other in others.into_iter().filter(|other| *other != id) {
            self.cancel(other);
        }
        if let Err(reason) = self.check_results(id.job, attempt.stage) {
            return self.fail_job(now, id.job, &reason);
        }
        if let (StageKey::Shuffle(shuffle), false) = (attempt.stage, differing.is_empty()) {
            self.roll_back(now, id.job, shuffle, Some(id.partition), &differing);
        }
        if complete {
            self.stage_complete(now, id.job, attempt.stage);
            self.adopt(now, id.job);
        }
    }

    pub(super) fn stage_complete(&mut self, now: TimeMs, job: JobId, key: StageKey) {
        match key {
            StageKey::Result(action) => self.finish_action(now, job, action),
            StageKey::Shuffle(shuffle) => {
                self.check_given(now, job, shuffle);
                self.note_held(now, job, shuffle);
                let Some(found) = self.jobs.get_mut(&job) else { return };
                found.find_needed(now, self.executors.places());
                let ends_here = |action: &ActionId| found.root(*action) == Some(key);
                let ended: Vec<ActionId> = found.under_way.iter().copied().filter(ends_here).collect();
                ended.into_iter().for_each(|action| self.finish_action(now, job, action));
            }
        }
    }

    /// An attempt is not needed any more: its executor shall give it up. It takes its slot until it has.
    pub(super) fn cancel(&mut self, id: TaskAttemptId) {
        let attempt = self.jobs.get_mut(&id.job).and_then(|job| job.attempts.get_mut(&id));
        let Some(attempt) = attempt else { return };
        attempt.cancelled = true;
        self.executors.command(attempt.executor, ExecutorCommand::CancelTask { attempt: id });
    }

    /// A piece of a map output could not be fetched: it counts as lost, if it is still the one that counts. When that
    /// happens again and again with one executor, all that the job has there counts as lost.
    pub(super) fn lose_fetched(&mut self, now: TimeMs, job: JobId, shuffle: ShuffleId, map: TaskAttemptId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let key = StageKey::Shuffle(shuffle);
        let task = found.stages.get(&key).and_then(|stage| stage.tasks.get(index(map.partition.0)));
        let Some(done) = task.and_then(|task| task.done.as_ref()).filter(|done| done.attempt == map) else { return };
        let executor = done.executor;
        if self.blame_server(now, job, executor) >= self.policy.exclude_fetch_failures {
            self.lose_outputs(now, executor, job);
        } else {
            let node = self.executors.node(executor);
            let Some(found) = self.jobs.get_mut(&job) else { return };
            if let Some(stage) = found.stages.get_mut(&key) {
                stage.lose_or_fall_back(map.partition, node, now, &found.cached);
            }
        }
        if self.executors.get(executor).is_some_and(|there| there.liveness == Liveness::Suspect) {
            self.await_return(now, executor, job);
        }
        if let Some(found) = self.jobs.get_mut(&job) {
            found.find_needed(now, self.executors.places());
        }
    }

    /// All map outputs that a job has on an executor are lost.
    pub(super) fn lose_outputs(&mut self, now: TimeMs, executor: ExecutorId, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let node = self.executors.node(executor);
        let Job { stages, cached, .. } = found;
        for (key, stage) in stages {
            if matches!(key, StageKey::Result(_)) {
                continue;
            }
            stage.spares.drop_executor(executor);
            let there = |task: &super::stage::Task| task.done.as_ref().is_some_and(|done| done.executor == executor);
            let lost: Vec<u32> =
                (0..).zip(&stage.tasks).filter(|(_, task)| there(task)).map(|(partition, _)| partition).collect();
            for partition in lost {
                stage.lose_or_fall_back(PartitionId(partition), node.clone(), now, cached);
            }
        }
    }

    /// All that a job holds in memory on an executor is gone.
    pub(super) fn lose_cached(&mut self, now: TimeMs, executor: ExecutorId, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let node = self.executors.node(executor);
        for ((dataset, partition), by) in found.cached.drop_executor(executor) {
            found.recoveries.lose(Lost::CachedPartition, by, node.clone(), now, RecoveredBy::Cache(dataset, partition));
        }
        let Job { stages, needed, .. } = found;
        for key in &*needed {
            if let Some(stage) = stages.get_mut(key) {
                stage.holder_gone(executor);
            }
        }
    }
}

impl Job {
    /// Whether a stage keeps that partition in memory, as its plan says: an executor's word alone is not enough to send
    /// tasks there.
    pub(super) fn is_persisted(&self, key: StageKey, (dataset, partition): (DatasetId, PartitionId)) -> bool {
        let Some(stage) =
            self.stages.get(&key).filter(|stage| stage.plan.persisted.iter().any(|kept| kept.dataset == dataset))
        else {
            return false;
        };
        let plan = stage.needed_by.and_then(|action| match self.actions.get(&action) {
            Some(Action::Running { plan, .. }) => Some(plan),
            _ => None,
        });
        let node = plan.and_then(|plan| plan.nodes.iter().find(|node| node.id == dataset));
        node.is_some_and(|node| partition.0 < node.partitions)
    }
}

/// Whether a done task left what its stage asks of it.
pub(super) fn check_done(done: &TaskDone, plan: Option<&StagePlan>) -> Result<(), String> {
    let Some(plan) = plan else { return Err("its stage is gone".to_owned()) };
    let pieces = match plan.output {
        StageOutput::Shuffle { reducers, .. } => index(reducers),
        StageOutput::Result { .. } => 0,
    };
    if done.pieces.len() != pieces {
        return Err(format!("it left {} pieces for a shuffle; {pieces} were expected", done.pieces.len()));
    }
    if pieces > 0 && !done.result.is_empty() {
        return Err("it left a result beside what it wrote for a shuffle".to_owned());
    }
    if done.result.len() > TASK_RESULT_LEN_BYTES {
        return Err(format!(
            "its result takes {} bytes; at most {TASK_RESULT_LEN_BYTES} are allowed, a larger one must be a file",
            done.result.len()
        ));
    }
    if done.cached.len() > CACHED_PER_TASK {
        return Err(format!(
            "it left {} partitions in memory; at most {CACHED_PER_TASK} are allowed",
            done.cached.len()
        ));
    }
    Ok(())
}
