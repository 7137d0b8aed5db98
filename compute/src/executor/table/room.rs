//! Which jobs have a worker at once: the memory holds so many.

use std::collections::{BTreeSet, VecDeque};

use situ_wire::ids::JobId;
use situ_wire::messages::executor::ProcessLife;
use situ_wire::time::TimeMs;

use super::worker::Worker;
use super::{Action, JobTable, next_life};

/// How many workers there may be, and who waits for a place.
#[derive(Debug)]
pub(super) struct Room {
    /// How many places there are.
    places: usize,
    /// Workers of jobs that have ended, whose processes may not be gone yet.
    lingering: BTreeSet<(JobId, ProcessLife)>,
    /// Jobs with tasks and without a worker, those that have waited longest first.
    waiting: VecDeque<JobId>,
}

impl Room {
    pub(super) fn new(workers: u32) -> Self {
        Self {
            places: usize::try_from(workers).unwrap_or(usize::MAX).max(1),
            lingering: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A job has ended; its worker has its place until it is gone.
    pub(super) fn linger(&mut self, job: JobId, life: ProcessLife) {
        self.lingering.insert((job, life));
    }

    /// The process of a worker is gone.
    pub(super) fn gone(&mut self, job: JobId, life: ProcessLife) {
        self.lingering.remove(&(job, life));
    }

    /// A job needs a worker.
    pub(super) fn wait(&mut self, job: JobId) {
        if !self.waiting.contains(&job) {
            self.waiting.push_back(job);
        }
    }
}

impl JobTable {
    /// Starts the workers of jobs that wait for one, as far as there are places, and ends workers that have nothing to do so
    /// that there are more: first those that keep no partitions, then those that have done nothing for longest.
    pub(super) fn give_places(&mut self, now: TimeMs) {
        let Self { jobs, room, .. } = self;
        if room.waiting.is_empty() {
            return;
        }
        room.waiting.retain(|id| jobs.get(id).is_some_and(|job| job.worker.is_none() && !job.queued.is_empty()));
        let workers = jobs.values().filter_map(|job| job.worker.as_ref());
        let (mut taken, mut leaving) = (room.lingering.len(), room.lingering.len());
        for worker in workers {
            taken += 1;
            leaving += usize::from(worker.is_ending());
        }
        while taken < room.places
            && let Some(id) = room.waiting.pop_front()
            && let Some(job) = jobs.get_mut(&id)
        {
            let life = next_life(&mut self.last_life);
            job.worker = Some(Worker::new(life, now));
            self.actions.push_back(Action::StartWorker { launch: job.launch.clone(), life });
            taken += 1;
        }
        for _ in leaving..room.waiting.len() {
            let idle = jobs.iter_mut().filter_map(|(id, job)| {
                let keeps = job.left.keeps_partitions();
                let worker = job.worker.as_mut().filter(|worker| worker.is_idle() && job.queued.is_empty())?;
                Some(((keeps, worker.used()), *id, worker))
            });
            let Some((_, id, worker)) = idle.min_by_key(|(order, id, _)| (*order, *id)) else { return };
            worker.make_room(&mut self.actions);
            self.actions.push_back(Action::EndProcess { job: id, life: worker.life });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use situ_wire::ids::{ActionId, DatasetId, PartitionId, ScopeId, StageId, TaskAttemptId};
    use situ_wire::messages::executor::WorkerPoll;
    use situ_wire::messages::scheduler::{
        ExecutorCommand, ExecutorEvent, Locality, StageOutput, TaskDone, TaskFailure, TaskOutcome, TaskProgress,
        TaskSpec, TaskWork,
    };

    use super::*;
    use crate::executor::table::tests::{SECRET, launch_of};
    use crate::executor::table::{Event, WaiterId, report};

    fn attempt(job: u64, partition: u32) -> TaskAttemptId {
        let stage = StageId(ScopeId::ROOT, 0);
        TaskAttemptId { job: JobId(job), stage, partition: PartitionId(partition), attempt: 0 }
    }

    /// A table with places for so many workers, and what happens to it.
    struct Table {
        table: JobTable,
        now: TimeMs,
        polls: u64,
    }

    impl Table {
        fn new(workers: u32) -> Self {
            let mut table =
                Self { table: JobTable::new(Duration::from_secs(30), 0, workers), now: TimeMs(1), polls: 0 };
            for job in 1..=4 {
                assert_eq!(table.command(ExecutorCommand::BeginJob { job: launch_of(JobId(job)) }), []);
            }
            table
        }

        /// What is to be done, but for answers to polls.
        fn handle(&mut self, event: Event) -> Vec<Action> {
            self.now = self.now + Duration::from_millis(1);
            self.table.handle(self.now, event);
            let actions = std::iter::from_fn(|| self.table.poll_action());
            actions.filter(|action| !matches!(action, Action::Answer { .. } | Action::Progress(_))).collect()
        }

        fn command(&mut self, command: ExecutorCommand) -> Vec<Action> {
            self.handle(Event::Command(command))
        }

        fn run(&mut self, job: u64, partition: u32) -> Vec<Action> {
            let action = ActionId(ScopeId::ROOT, 0);
            let task = Box::new(TaskSpec {
                attempt: attempt(job, partition),
                work: TaskWork::Replay { action, plan_digest: [0; 32] },
                output: StageOutput::Result { action },
                locality: Locality::Node,
                alone: false,
                slots: 1,
            });
            self.command(ExecutorCommand::RunTask { task })
        }

        /// A job's worker says that it holds a task, or that it is done.
        fn poll(&mut self, job: u64, life: u64, held: &[u32], done: &[(u32, TaskDone)]) -> Vec<Action> {
            self.polls += 1;
            let held = held.iter().map(|partition| TaskProgress { attempt: attempt(job, *partition), steps: 0 });
            let ended = done
                .iter()
                .map(|(partition, done)| (attempt(job, *partition), TaskOutcome::Done(Box::new(done.clone()))));
            let poll = WorkerPoll {
                job: JobId(job),
                secret: SECRET,
                life: ProcessLife(life),
                number: self.polls,
                held: held.collect(),
                ended: ended.collect(),
                free: 1,
            };
            self.handle(Event::Poll { waiter: WaiterId(self.polls), poll })
        }

        fn gone(&mut self, job: u64, life: u64) -> Vec<Action> {
            let (job, life, reason) = (JobId(job), ProcessLife(life), "signal 9".to_owned());
            self.handle(Event::WorkerEnded { job, life, reason, away: false })
        }
    }

    fn start(job: u64, life: u64) -> Action {
        Action::StartWorker { launch: launch_of(JobId(job)), life: ProcessLife(life) }
    }

    fn end(job: u64, life: u64) -> Action {
        Action::EndProcess { job: JobId(job), life: ProcessLife(life) }
    }

    fn made_room(job: u64) -> Action {
        Action::Report(ExecutorEvent::WorkerEnded { job: JobId(job) })
    }

    fn done(job: u64, partition: u32) -> Action {
        report(attempt(job, partition), TaskOutcome::Done(Box::default()))
    }

    #[test]
    fn a_worker_begins_when_the_one_without_tasks_is_gone() {
        let mut table = Table::new(1);
        assert_eq!(table.run(1, 0), [start(1, 1)]);
        assert_eq!(table.poll(1, 1, &[], &[]), []);
        assert_eq!(table.run(2, 0), [], "the memory is taken");
        assert_eq!(table.poll(1, 1, &[0], &[]), [], "by somebody who has work");
        assert_eq!(table.poll(1, 1, &[], &[(0, TaskDone::default())]), [done(1, 0), end(1, 1)]);
        // It has work again, but it is too late.
        assert_eq!(table.run(1, 1), []);
        assert_eq!(table.gone(1, 1), [made_room(1), start(2, 2)], "nobody is to blame");
        table.poll(2, 2, &[], &[]);
        assert_eq!(table.poll(2, 2, &[], &[(0, TaskDone::default())]), [done(2, 0), end(2, 2)]);
        assert_eq!(table.gone(2, 2), [made_room(2), start(1, 3)]);
    }

    #[test]
    fn a_worker_that_was_not_ready_makes_room_and_its_next_tasks_wait() {
        let mut table = Table::new(1);
        assert_eq!(table.run(1, 0), [start(1, 1)]);
        let cancelled = report(attempt(1, 0), TaskOutcome::Failed(TaskFailure::Cancelled));
        assert_eq!(table.command(ExecutorCommand::CancelTask { attempt: attempt(1, 0) }), [cancelled]);
        assert_eq!(table.run(2, 0), [end(1, 1)]);
        assert_eq!(table.run(1, 1), []);
        assert_eq!(table.gone(1, 1), [made_room(1), start(2, 2)]);
        // The next one dies before it is ready, as always: its tasks end with it, and the place is free.
        let failed = table.gone(2, 2);
        assert!(matches!(&failed[..], [Action::Report(ExecutorEvent::WorkerLost { .. }), Action::Report(_), next]
            if *next == start(1, 3)));
    }

    #[test]
    fn a_worker_that_makes_room_while_its_program_is_fetched_ends_no_tasks() {
        let mut table = Table::new(1);
        assert_eq!(table.run(1, 0), [start(1, 1)]);
        table.command(ExecutorCommand::CancelTask { attempt: attempt(1, 0) });
        assert_eq!(table.run(2, 0), [end(1, 1)]);
        assert_eq!(table.run(1, 1), []);
        let (job, life, reason) = (JobId(1), ProcessLife(1), "it could not be fetched in time".to_owned());
        let gone = table.handle(Event::WorkerEnded { job, life, reason, away: true });
        assert_eq!(gone, [made_room(1), start(2, 2)]);
        table.poll(2, 2, &[], &[]);
        assert_eq!(table.poll(2, 2, &[], &[(0, TaskDone::default())]), [done(2, 0), end(2, 2)]);
        assert_eq!(table.gone(2, 2), [made_room(2), start(1, 3)]);
    }

    #[test]
    fn the_worker_of_an_ended_job_has_its_place_until_it_is_gone() {
        let mut table = Table::new(2);
        assert_eq!(table.run(1, 0), [start(1, 1)]);
        assert_eq!(table.run(2, 0), [start(2, 2)]);
        assert_eq!(table.run(3, 0), []);
        assert_eq!(table.command(ExecutorCommand::EndJob { job: JobId(1) }), [Action::EndJob { job: JobId(1) }]);
        assert_eq!(table.run(4, 0), []);
        assert_eq!(table.gone(1, 1), [start(3, 3)]);
        assert_eq!(table.command(ExecutorCommand::EndJob { job: JobId(4) }), [Action::EndJob { job: JobId(4) }]);
        assert_eq!(table.command(ExecutorCommand::EndJob { job: JobId(2) }), [Action::EndJob { job: JobId(2) }]);
        assert_eq!(table.gone(2, 2), [], "nobody waits any more");
    }

    #[test]
    fn those_that_keep_nothing_make_room_first_and_no_more_of_them_than_are_needed() {
        let mut table = Table::new(3);
        for job in 1..=3 {
            assert_eq!(table.run(job, 0), [start(job, job)]);
            table.poll(job, job, &[], &[]);
        }
        let kept = TaskDone { cached: vec![(DatasetId(ScopeId::ROOT, 0), PartitionId(0))], ..TaskDone::default() };
        assert_eq!(table.poll(1, 1, &[], &[(0, kept)]).len(), 1);
        assert_eq!(table.poll(3, 3, &[], &[(0, TaskDone::default())]), [done(3, 0)]);
        assert_eq!(table.poll(2, 2, &[], &[(0, TaskDone::default())]), [done(2, 0)]);
        assert_eq!(table.run(4, 0), [end(3, 3)], "the first keeps partitions, and the second was busy later");
        assert_eq!(table.gone(3, 3), [made_room(3), start(4, 4)]);
        table.poll(4, 4, &[], &[]);
        assert_eq!(table.run(3, 1), [end(2, 2)]);
        assert_eq!(table.gone(2, 2), [made_room(2), start(3, 5)]);
        table.poll(3, 5, &[], &[]);
        assert_eq!(table.run(2, 1), [end(1, 1)]);
        assert_eq!(table.gone(1, 1), [made_room(1), start(2, 6)]);
    }
}
