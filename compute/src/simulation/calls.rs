use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{Lost, Request, Response};
use situ_wire::time::TimeMs;

use super::world::{Answer, Happens, Simulation, Who};
use super::{FAULTS_END, PATIENCE};
use crate::core::{CallId, Caller, Effect, Event, JobRecord, RecordId};

impl Simulation {
    /// Whether who made a call is there, and still waits for it.
    pub(super) fn is_alive(&self, who: &Who) -> bool {
        let lives = |executor: &u32, life: u64| self.executors[executor].alive && self.executors[executor].life == life;
        match who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => true,
            Who::Poll { executor, life, number, .. } => {
                lives(executor, *life) && self.executors[executor].link.last_poll == *number
            }
            Who::Register { executor, life } => lives(executor, *life),
            Who::Driver { process, .. } => self.process(process.pid).is_some(),
            Who::Reducer { worker, task } => {
                let worker = self.process(*worker).and_then(|process| process.worker.as_ref());
                worker.is_some_and(|worker| worker.running.contains_key(&task.attempt))
            }
        }
    }

    /// Until when who makes a call stands still, if that is so.
    pub(super) fn stands_still(&self, who: &Who) -> Option<TimeMs> {
        match who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => None,
            Who::Poll { executor, .. } | Who::Register { executor, .. } => {
                Some(self.executors[executor].hangs_until).filter(|until| *until > self.now)
            }
            Who::Driver { process, .. } => self.stopped(process.pid),
            Who::Reducer { worker, .. } => self.stopped(*worker),
        }
    }

    pub(super) fn call(&mut self, who: Who, request: Request) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        let (role, name) = match &who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => (Role::User, "ada".to_owned()),
            Who::Poll { executor, .. } | Who::Register { executor, .. } => (Role::Executor, format!("n{executor}")),
            Who::Driver { process, .. } => (Role::Executor, format!("n{}", process.pid.executor)),
            Who::Reducer { worker, .. } => (Role::Executor, format!("n{}", worker.executor)),
        };
        self.calls.insert(call, who);
        let caller = Caller { role, name };
        let event = Event::Call { call, caller, deadline: self.now + PATIENCE, request: Box::new(request) };
        self.scheduler.handle(self.now, event);
    }

    pub(super) fn effects(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            self.oracle.trace.update(format!("{:?} {effect:?}\n", self.now).as_bytes());
            match effect {
                Effect::Append { id, record } => {
                    if let JobRecord::Driver { job, node, .. } = &*record {
                        self.driver_placed(*job, node);
                    }
                    self.journal.appended.push(*record);
                    self.later(5, Happens::Synced(id));
                }
                Effect::Answer { call, result, when: Some(record) } => self.journal.held.push((record, call, *result)),
                Effect::Answer { call, result, when: None } => self.answered(call, *result),
            }
        }
    }

    /// A record is on the disk, and so are all before it.
    pub(super) fn on_synced(&mut self, record: RecordId) {
        let count = self.journal.before + usize::try_from(record.0).unwrap();
        if count <= self.journal.synced || count > self.journal.appended.len() {
            return;
        }
        self.journal.synced = count;
        self.scheduler.handle(self.now, Event::Synced { record });
        for (_, call, result) in self.journal.held.extract_if(.., |(at, ..)| *at <= record).collect::<Vec<_>>() {
            self.answered(call, result);
        }
    }

    fn answered(&mut self, call: CallId, result: Answer) {
        let who = self.calls.remove(&call).expect("a call is answered once");
        self.told(who, result);
    }

    /// An answer arrives, or is lost, or finds nobody.
    pub(super) fn told(&mut self, who: Who, result: Answer) {
        if !self.is_alive(&who) {
            return;
        }
        if let Some(until) = self.stands_still(&who) {
            return self.at(until, Happens::Told(who, Box::new(result)));
        }
        if self.now < FAULTS_END && self.random.percent(3) {
            return self.ask_again(who);
        }
        match (who, result) {
            (Who::Driver { process, step }, result) => self.driver_told(process, step, result),
            (who, Err(error)) if error.code == ErrorCode::Unavailable => self.ask_again(who),
            (Who::Reducer { worker, task }, result) => self.reducer_told(worker, &task, result),
            (Who::Client(sequence), Ok(Response::Submitted { job, .. })) => {
                let before = self.submitted.insert(sequence, job);
                assert!(before.is_none_or(|before| before == job), "a submission makes one job");
                self.follow(job, 0);
            }
            (Who::Follower(job), Ok(Response::Status(status))) => {
                if status.summary.state.is_final() {
                    let before = self.oracle.ended.insert(job, status.summary.state.clone());
                    assert!(before.is_none_or(|before| before == status.summary.state), "a job ends once");
                    self.oracle.lost += status.recoveries.len();
                    let superseded = status.recoveries.iter().filter(|recovery| recovery.lost == Lost::Superseded);
                    self.oracle.superseded += superseded.count();
                } else {
                    self.follow(job, status.revision);
                }
            }
            (Who::Poll { executor, life, told, .. }, Ok(Response::Commands { last, commands })) => {
                self.commanded(executor, life, told, last, commands);
            }
            (Who::Register { executor, life }, Ok(Response::Registered { jobs, .. })) => {
                self.registered(executor, life, jobs);
            }
            (Who::Killer(_), Ok(_)) => {}
            (Who::Poll { executor, .. }, Err(RemoteError { code: ErrorCode::NotRegistered, .. })) => {
                self.unknown(executor);
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
            Who::Killer(sequence) => self.later(100, Happens::Kill(sequence)),
            Who::Driver { process, step } => self.take_step(process, step),
            Who::Reducer { worker, task } => self.fetch(worker, task),
        }
    }

    fn follow(&mut self, job: JobId, seen: u64) {
        self.later(20, Happens::Call(Who::Follower(job), Box::new(Request::Status { job, seen })));
    }
}
