use situ_wire::ids::{DatasetId, PartitionId, ScopeId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{ExecutorEvent, MapOutput, Request, TaskDone, TaskFailure, TaskOutcome, TaskSpec};

use super::FAULTS_END;
use super::plans::{Partitions, VARYING, plan, result_of};
use super::world::{Happens, Simulation, Who};

impl Simulation {
    /// A task runs for a while and ends with `done`, or fails.
    pub(super) fn work(&mut self, executor: u32, life: u64, attempt: TaskAttemptId, done: TaskDone) {
        // Time enough to lose what it has read.
        let reads = attempt.job == VARYING && attempt.stage == plan(0, VARYING, 0).stages[1].stage;
        let slow = if reads || self.random.percent(4) { 8_000 } else { 400 };
        let outcome = match self.random.below(100) {
            0 if self.now < FAULTS_END => {
                // In other words each time.
                TaskOutcome::Failed(TaskFailure::Program { message: format!("no: {attempt} on {executor}") })
            }
            1 if self.now < FAULTS_END => {
                let message = "the namenode is away".to_owned();
                TaskOutcome::Failed(TaskFailure::Storage { message, transient: true })
            }
            2..=3 if self.now < FAULTS_END => {
                let company = u32::try_from(self.random.below(3)).unwrap();
                TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "no".to_owned(), company })
            }
            _ => TaskOutcome::Done(Box::new(done)),
        };
        self.later(slow, Happens::TaskEnds { executor, life, attempt, outcome });
    }

    pub(super) fn map(&mut self, executor: u32, life: u64, task: &TaskSpec, reducers: u32) {
        let content = if task.attempt.job == VARYING { self.random.below(4) } else { 0 };
        let piece = ShufflePiece { len_bytes: 9, crc32c: u32::try_from(content).unwrap(), records: 3 };
        let pieces = vec![piece; reducers.try_into().unwrap()];
        self.work(executor, life, task.attempt, TaskDone { pieces, ..TaskDone::default() });
    }

    /// A reducer asks where its input is.
    pub(super) fn fetch(&mut self, executor: u32, life: u64, task: Box<TaskSpec>) {
        let attempt = task.attempt;
        let plan = plan(0, attempt.job, 0);
        let request = Request::MapOutputs {
            job: attempt.job,
            secret: self.scheduler.secret(attempt.job),
            shuffle: plan.stages[1].reads[0],
            reduce: (attempt.partition, PartitionId(attempt.partition.0 + 1)),
            by: attempt,
        };
        self.later(20, Happens::Call(Who::Reducer { executor, life, task }, Box::new(request)));
    }

    /// A reducer fetches its input, from whoever still has it.
    pub(super) fn reduce(&mut self, executor: u32, life: u64, task: &TaskSpec, outputs: &[MapOutput]) {
        let attempt = task.attempt;
        assert_eq!(outputs.len(), plan(0, attempt.job, 0).stages[0].plan_partitions(), "all outputs are listed");
        let missing = outputs.iter().find(|output| {
            let there = self.executors.get(&u32::from(output.address.port())).unwrap();
            !there.alive || there.hangs_until > self.now || !there.outputs.contains_key(&output.map)
        });
        if let Some(output) = missing {
            self.starved.insert(attempt.job);
            let shuffle = plan(0, attempt.job, 0).stages[1].reads[0];
            let outcome =
                TaskOutcome::Failed(TaskFailure::Fetch { shuffle, map: output.map, reason: "gone".to_owned() });
            return self.later(500, Happens::TaskEnds { executor, life, attempt, outcome });
        }
        let contents: Vec<u32> = outputs.iter().map(|output| output.pieces[0].crc32c).collect();
        let result = result_of(attempt.job, task.work.action(), attempt.partition.0, &contents);
        let cached = vec![(DatasetId(ScopeId::ROOT, 2), attempt.partition)];
        self.work(executor, life, attempt, TaskDone { result, cached, ..TaskDone::default() });
    }

    pub(super) fn task_ends(&mut self, number: u32, life: u64, attempt: TaskAttemptId, outcome: TaskOutcome) {
        let executor = self.executors.get_mut(&number).unwrap();
        if !executor.alive || executor.life != life {
            return;
        }
        let Some(task) = executor.running.remove(&attempt) else { return };
        if let TaskOutcome::Done(done) = &outcome {
            executor.outputs.insert(attempt, (task.output, TaskDone::clone(done)));
        }
        executor.tell(ExecutorEvent::TaskEnded { attempt, outcome });
        // It does not wait for the answer to the poll that is under way.
        self.poll(number, life);
    }
}
