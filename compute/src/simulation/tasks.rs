use situ_wire::ids::{DatasetId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{
    MapOutput, Request, StageOutput, TaskDone, TaskFailure, TaskOutcome, TaskSpec, TaskWork,
};

use super::FAULTS_END;
use super::plans::{VARYING, plan, result_of};
use super::processes::Pid;
use super::world::{Answer, Happens, Simulation, Who};
use situ_wire::messages::scheduler::Response;

/// The shuffle that the tasks of results read.
fn input_of(task: &TaskSpec) -> ShuffleId {
    plan(task.attempt.job, task.work.action()).stages[1].reads[0]
}

impl Simulation {
    /// A task runs for a while and ends with `done`, or fails.
    fn work(&mut self, worker: Pid, task: &TaskSpec, done: TaskDone) {
        let attempt = task.attempt;
        // Time enough to lose what it has read.
        let reads = attempt.job == VARYING && matches!(task.output, StageOutput::Result { .. });
        let slow = if reads || self.random.percent(4) { 8_000 } else { 400 };
        let outcome = match self.random.below(100) {
            0 if self.now < FAULTS_END => {
                // In other words each time.
                let message = format!("no: {attempt} on {}", worker.executor);
                self.oracle.failing.insert(attempt);
                TaskOutcome::Failed(TaskFailure::Program { message })
            }
            1 if self.now < FAULTS_END => {
                let message = "the namenode is away".to_owned();
                TaskOutcome::Failed(TaskFailure::Storage { message, transient: true })
            }
            _ => TaskOutcome::Done(Box::new(done)),
        };
        self.later(slow, Happens::TaskEnds(worker, attempt, outcome));
    }

    pub(super) fn map(&mut self, worker: Pid, task: &TaskSpec, reducers: u32) {
        assert!(matches!(task.work, TaskWork::Replay { .. }), "no plan has other work");
        let content = if task.attempt.job == VARYING { self.random.below(4) } else { 0 };
        let piece = ShufflePiece { len_bytes: 9, crc32c: u32::try_from(content).unwrap(), records: 3 };
        let pieces = vec![piece; reducers.try_into().unwrap()];
        self.work(worker, task, TaskDone { pieces, ..TaskDone::default() });
    }

    /// A reducer asks where its input is.
    pub(super) fn fetch(&mut self, worker: Pid, task: Box<TaskSpec>) {
        let attempt = task.attempt;
        let request = Request::MapOutputs {
            job: attempt.job,
            secret: self.scheduler.secret(attempt.job),
            shuffle: input_of(&task),
            reduce: (attempt.partition, PartitionId(attempt.partition.0 + 1)),
            by: attempt,
        };
        self.later(20, Happens::Call(Who::Reducer { worker, task }, Box::new(request)));
    }

    /// A reducer hears where its input is.
    pub(super) fn reducer_told(&mut self, worker: Pid, task: &TaskSpec, answer: Answer) {
        match answer {
            Ok(Response::MapOutputs(outputs)) => self.reduce(worker, task, &outputs),
            // Outputs are lost, the job has ended, or nobody knows of the task any more.
            Err(_) => {
                let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
                self.later(10, Happens::TaskEnds(worker, task.attempt, outcome));
            }
            Ok(other) => panic!("{task:?} was told {other:?}"),
        }
    }

    /// A reducer fetches its input, from whoever still has it.
    fn reduce(&mut self, worker: Pid, task: &TaskSpec, outputs: &[MapOutput]) {
        let TaskAttemptId { job, partition, .. } = task.attempt;
        let (action, shuffle) = (task.work.action(), input_of(task));
        let maps = usize::try_from(plan(job, action).stages[0].partitions).unwrap();
        assert_eq!(outputs.len(), maps, "all outputs are listed");
        let missing = outputs.iter().find(|output| {
            let there = self.executors.get(&u32::from(output.address.port())).unwrap();
            let is_there = there.files.contains_key(&(job, shuffle, output.map));
            !there.alive || there.hangs_until > self.now || !is_there
        });
        if let Some(output) = missing {
            self.oracle.starved.insert(job);
            let reason = "gone".to_owned();
            let outcome = TaskOutcome::Failed(TaskFailure::Fetch { shuffle, map: output.map, reason });
            return self.later(500, Happens::TaskEnds(worker, task.attempt, outcome));
        }
        let contents: Vec<u32> = outputs.iter().map(|output| output.pieces[0].crc32c).collect();
        let result = result_of(job, action, partition.0, &contents);
        let cached = vec![(DatasetId(action.0, 2), partition)];
        self.work(worker, task, TaskDone { result, cached, ..TaskDone::default() });
    }
}
