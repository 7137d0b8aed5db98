use bytes::Bytes;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{ActionId, JobId, ScopeId};
use situ_wire::messages::scheduler::{ActionResult, Lost, Request, Response, TaskFailure, TaskOutcome};

use super::plans::{plan, result_of};
use super::world::{Happens, Simulation, Who};
use super::{ACTIONS, FAULTS_END, PATIENCE};
use crate::core::{CallId, Caller, Effect, Event, RecordId};

impl Simulation {
    pub(super) fn call(&mut self, who: Who, request: Request) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        let (role, name) = match &who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => (Role::User, "ada".to_owned()),
            Who::Poll { executor, .. } | Who::Register { executor, .. } | Who::Reducer { executor, .. } => {
                (Role::Executor, format!("n{executor}"))
            }
            Who::Begin { process }
            | Who::Aside { process }
            | Who::Action { process, .. }
            | Who::Publish { process }
            | Who::End { process } => (Role::Executor, format!("n{}", process.executor)),
        };
        self.calls.insert(call, who);
        let event = Event::Call {
            call,
            caller: Caller { role, name },
            deadline: self.now + PATIENCE,
            request: Box::new(request),
        };
        self.scheduler.handle(self.now, event);
    }

    pub(super) fn effects(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            self.trace.update(format!("{:?} {effect:?}\n", self.now).as_bytes());
            match effect {
                Effect::Append { id, record } => {
                    self.appended.push(*record);
                    self.later(5, Happens::Synced(id));
                }
                Effect::Answer { call, result, when: Some(record) } => self.held.push((record, call, *result)),
                Effect::Answer { call, result, when: None } => self.answered(call, *result),
            }
        }
    }

    /// A record is on the disk, and so are all before it.
    pub(super) fn on_synced(&mut self, record: RecordId, seed: u64) {
        let count = self.before + usize::try_from(record.0).unwrap();
        if count <= self.synced || count > self.appended.len() {
            return;
        }
        self.synced = count;
        self.scheduler.handle(self.now, Event::Synced { record });
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(at, ..)| *at <= record);
        self.held = held;
        for (_, call, result) in Vec::from_iter(ready) {
            self.answered(call, result);
        }
        let _ = seed;
    }

    /// An answer arrives, or is lost, or finds nobody.
    pub(super) fn answered(&mut self, call: CallId, result: Result<Response, RemoteError>) {
        let who = self.calls.remove(&call).expect("a call is answered once");
        if !self.is_alive(&who) {
            return;
        }
        if self.now < FAULTS_END && self.random.percent(3) {
            return self.ask_again(who);
        }
        match (who, result) {
            (Who::Client(sequence), Ok(Response::Submitted { job, .. })) => {
                let before = self.submitted.insert(sequence, job);
                assert!(before.is_none_or(|before| before == job), "a submission makes one job");
                self.follow(job, 0);
            }
            (Who::Follower(job), Ok(Response::Status(status))) => {
                if status.summary.state.is_final() {
                    let before = self.ended.insert(job, status.summary.state.clone());
                    assert!(before.is_none_or(|before| before == status.summary.state), "a job ends once");
                    self.lost += status.recoveries.len();
                    self.superseded +=
                        status.recoveries.iter().filter(|recovery| recovery.lost == Lost::Superseded).count();
                } else {
                    self.follow(job, status.revision);
                }
            }
            (Who::Poll { executor, life, told, .. }, Ok(Response::Commands { last, commands })) => {
                self.executors.get_mut(&executor).unwrap().events.retain(|(number, _)| *number > told);
                self.commanded(executor, life, last, commands);
            }
            (Who::Register { executor, life }, Ok(Response::Registered { jobs, .. })) => {
                self.executors.get_mut(&executor).unwrap().report(&jobs);
                self.poll(executor, life);
            }
            (Who::Begin { process }, Ok(_)) => self.write_aside(process),
            (Who::Aside { process }, Ok(Response::Publication { published })) => {
                assert!(published || !self.published.contains(&process.job), "what is published stays published");
                if published {
                    self.run_action(process, 0);
                } else {
                    self.later(500, Happens::Makes(process));
                }
            }
            (Who::Publish { process }, Ok(Response::Done)) => {
                self.published.insert(process.job);
                self.end(process);
            }
            (Who::Killer(_), Ok(_)) => {}
            (Who::Action { process, action }, Ok(Response::Action(ActionResult::Done(results)))) => {
                let (job, id) = (process.job, ActionId(ScopeId::ROOT, action));
                self.done.entry((job, id)).or_insert(self.scheduler_life);
                let text = String::from_utf8(results[0].to_vec()).unwrap();
                let contents = text.split(['[', ']']).nth(1).unwrap().split(", ").map(|it| it.parse().unwrap());
                let contents: Vec<u32> = contents.collect();
                let before = self.contents.entry(job).or_insert_with(|| contents.clone());
                assert_eq!(*before, contents, "all results of a job come of the same outputs");
                let expected = plan(0, job, action).stages[1].partitions;
                let expected: Vec<Bytes> =
                    (0..expected).map(|partition| result_of(job, id, partition, &contents)).collect();
                assert_eq!(results, expected, "each partition has its result");
                self.run_action(process, action + 1);
            }
            (Who::Reducer { executor, life, task }, Ok(Response::MapOutputs(outputs))) => {
                self.reduce(executor, life, &task, &outputs);
            }
            (Who::Reducer { executor, life, task }, Err(error)) if error.code == ErrorCode::OutputsLost => {
                let (attempt, outcome) = (task.attempt, TaskOutcome::Failed(TaskFailure::Cancelled));
                self.later(10, Happens::TaskEnds { executor, life, attempt, outcome });
            }
            (who, Err(error)) if error.code == ErrorCode::Unavailable => self.ask_again(who),
            (Who::Poll { executor, .. }, Err(error)) if error.code == ErrorCode::NotRegistered => {
                // Its processes go on.
                let unknown = self.executors.get_mut(&executor).unwrap();
                (unknown.seen, unknown.last_poll) = (0, u64::MAX);
                let life = unknown.life;
                self.register(executor, life);
            }
            // The job has ended: its processes are ended soon. Or nobody knows of the task any more.
            (Who::Reducer { executor, life, task }, Err(_)) => {
                let (attempt, outcome) = (task.attempt, TaskOutcome::Failed(TaskFailure::Cancelled));
                self.later(10, Happens::TaskEnds { executor, life, attempt, outcome });
            }
            (
                Who::End { process }
                | Who::Publish { process }
                | Who::Begin { process }
                | Who::Aside { process }
                | Who::Action { process, .. },
                _,
            ) => {
                self.executors.get_mut(&process.executor).unwrap().drivers.remove(&(process.job, process.attempt));
            }
            (who, result) => panic!("{who:?} was told {result:?}"),
        }
    }

    /// The answer was lost, or told to ask later.
    pub(super) fn ask_again(&mut self, who: Who) {
        match who {
            Who::Client(sequence) => self.later(100, Happens::Submit(sequence)),
            Who::Follower(job) => self.follow(job, 0),
            Who::Poll { executor, life, .. } => self.later(100, Happens::PollAgain { executor, life }),
            Who::Register { executor, life } => self.register(executor, life),
            Who::Begin { process } => self.begin(process),
            Who::Aside { process } => self.write_aside(process),
            Who::Killer(sequence) => self.later(100, Happens::Kill(sequence)),
            Who::Action { process, action } => self.run_action(process, action),
            Who::Publish { process } => self.run_action(process, ACTIONS),
            Who::End { process } => self.end(process),
            Who::Reducer { executor, life, task } => self.fetch(executor, life, task),
        }
    }

    pub(super) fn follow(&mut self, job: JobId, seen: u64) {
        self.later(20, Happens::Call(Who::Follower(job), Box::new(Request::Status { job, seen })));
    }
}
