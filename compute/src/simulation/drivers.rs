use situ_wire::ids::{ActionId, JobId, ScopeId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{ExecutorEvent, Request};
use situ_wire::path::DfsPath;

use super::ACTIONS;
use super::plans::plan;
use super::world::{Happens, Simulation, Who};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Driver {
    pub(super) executor: u32,
    pub(super) life: u64,
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) secret: JobSecret,
}

impl Simulation {
    /// Whether a driver's process is there.
    pub(super) fn runs(&self, Driver { executor, life, job, attempt, .. }: Driver) -> bool {
        let executor = &self.executors[&executor];
        executor.alive && executor.life == life && executor.drivers.contains(&(job, attempt))
    }

    pub(super) fn write_aside(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        let output = DfsPath::parse(&format!("/{job}")).unwrap();
        let request = Request::Publishing { job, secret, attempt, action: ActionId(ScopeId::ROOT, ACTIONS), output };
        self.later(50, Happens::Call(Who::Aside { process }, Box::new(request)));
    }

    pub(super) fn begin(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        self.later(50, Happens::Call(Who::Begin { process }, Box::new(Request::DriverBegin { job, secret, attempt })));
    }

    /// A driver goes on: with that action, or to its end.
    pub(super) fn run_action(&mut self, process: Driver, action: u32) {
        let Driver { job, secret, attempt, .. } = process;
        let (who, request) = if action < ACTIONS {
            let plan = Box::new(plan(0, job, action));
            let request = Request::RunAction { job, secret, attempt, action: ActionId(ScopeId::ROOT, action), plan };
            (Who::Action { process, action }, request)
        } else {
            // Publishing takes it away.
            self.aside.remove(&job);
            (
                Who::Publish { process },
                Request::Published { job, secret, attempt, action: ActionId(ScopeId::ROOT, ACTIONS) },
            )
        };
        self.later(50, Happens::Call(who, Box::new(request)));
    }

    pub(super) fn end(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        let request = Request::DriverEnd { job, secret, attempt, error: None };
        self.later(50, Happens::Call(Who::End { process }, Box::new(request)));
    }

    pub(super) fn driver_dies(&mut self, number: u32) {
        let executor = self.executors.get_mut(&number).unwrap();
        if let Some((job, attempt)) = executor.drivers.pop_first() {
            let error = Some("SIGKILL".to_owned());
            executor.tell(ExecutorEvent::DriverEnded { job, attempt, error, retry: true, away: false });
        }
    }
}
