use situ_wire::error::ErrorCode;
use situ_wire::ids::{ActionId, JobId, ScopeId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{ActionResult, Request, Response};
use situ_wire::path::DfsPath;

use super::FAULTS_END;
use super::plans::{Step, plan, program};
use super::processes::{Ending, Pid};
use super::world::{Answer, Happens, Simulation, Who};

/// The action that names what a job publishes.
const PUBLISHES: ActionId = ActionId(ScopeId::ROOT, 99);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Driver {
    pub(super) pid: Pid,
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) secret: JobSecret,
}

impl Simulation {
    /// Whether a driver's process is there.
    fn runs(&self, driver: Driver) -> bool {
        self.process(driver.pid).is_some()
    }

    /// A driver comes to a step of its program, or tries it again.
    pub(super) fn take_step(&mut self, process: Driver, step: usize) {
        let Driver { job, secret, attempt, .. } = process;
        if !self.runs(process) {
            return;
        }
        let request = match program(job).swap_remove(step) {
            Step::Begin => Request::DriverBegin { job, secret, attempt },
            Step::Aside => {
                let output = DfsPath::parse(&format!("/{job}")).unwrap();
                Request::Publishing { job, secret, attempt, action: PUBLISHES, output }
            }
            // Nobody has been here before the first attempt.
            Step::Enter(_) if attempt == 0 => return self.take_step(process, step + 1),
            Step::Enter(within) => Request::ScopeOutcome { job, secret, within, wait: false },
            Step::Run(action) => Request::RunAction { job, secret, attempt, action, plan: Box::new(plan(job, action)) },
            Step::Leave(within) => {
                // What it comes to varies: that which is recorded counts.
                let outcome = format!("{} by {attempt}", within[0]).into();
                Request::EndScope { job, secret, attempt, within, outcome }
            }
            Step::Publish => {
                // Publishing takes it away.
                if self.stopped(process.pid).is_none() {
                    self.oracle.aside.remove(&job);
                }
                Request::Published { job, secret, attempt, action: PUBLISHES }
            }
            Step::End => Request::DriverEnd { job, secret, attempt, error: None },
        };
        self.later(50, Happens::Call(Who::Driver { process, step }, Box::new(request)));
    }

    /// A driver hears the answer to what it asked for.
    pub(super) fn driver_told(&mut self, process: Driver, step: usize, answer: Answer) {
        let job = process.job;
        let action = |answer: ActionResult| match answer {
            ActionResult::Done(results) => Some(results),
            // The job has ended: so does the driver.
            ActionResult::Failed(_) => None,
            other => panic!("{process:?} was told {other:?}"),
        };
        let goes_on = match (program(job).swap_remove(step), answer) {
            (_, Err(error)) if error.code == ErrorCode::Unavailable => return self.take_step(process, step),
            // It was given up, or the job has ended.
            (_, Err(_)) => false,
            (Step::Begin, Ok(Response::Begun { .. })) => true,
            (Step::Aside, Ok(Response::Publication { published })) => {
                assert!(published || !self.oracle.published.contains(&job), "what is published stays published");
                if !published {
                    return self.later(500, Happens::Makes(process, step + 1));
                }
                true
            }
            (Step::Enter(within), Ok(Response::Action(ActionResult::Done(outcome)))) => {
                self.oracle.scope_ended(job, &within, &outcome);
                let leaves = program(job).iter().position(|step| *step == Step::Leave(within.clone()));
                return self.take_step(process, leaves.unwrap() + 1);
            }
            (Step::Enter(_), Ok(Response::Action(ActionResult::Unknown))) => true,
            (Step::Run(of), Ok(Response::Action(result))) => {
                action(result).is_some_and(|results| self.action_done(job, of, &results))
            }
            (Step::Leave(within), Ok(Response::Action(result))) => action(result).is_some_and(|outcome| {
                self.oracle.scope_ended(job, &within, &outcome);
                self.later(8_000, Happens::Looks(job, within));
                true
            }),
            (Step::Publish, Ok(Response::Done)) => {
                self.oracle.published.insert(job);
                true
            }
            (Step::End, Ok(Response::Done)) => {
                return self.ends(process.pid, Ending { error: None, retry: false, away: false });
            }
            (step, other) => panic!("{process:?} was told {other:?} at {step:?}"),
        };
        if goes_on {
            self.take_step(process, step + 1);
        } else {
            self.ends(process.pid, Ending::with("it was given up"));
        }
    }

    pub(super) fn makes(&mut self, process: Driver, step: usize) {
        if let Some(until) = self.stopped(process.pid) {
            return self.at(until, Happens::Makes(process, step));
        }
        if self.runs(process) {
            self.oracle.aside.insert(process.job);
            self.take_step(process, step);
        }
    }

    pub(super) fn cleans(&mut self, process: Driver) {
        if let Some(until) = self.stopped(process.pid) {
            return self.at(until, Happens::Cleans(process));
        }
        if !self.runs(process) {
            return;
        }
        let failed = self.now < FAULTS_END && self.random.percent(30);
        if failed {
            return self.ends(process.pid, Ending::with("the namenode is away"));
        }
        self.oracle.aside.remove(&process.job);
        self.ends(process.pid, Ending { error: None, retry: false, away: false });
    }
}
