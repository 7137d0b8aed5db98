//! The conversation with the scheduler: events up, commands down.
//!
//! A poll waits at the scheduler until there is a command. When something happens here meanwhile, the poll is given up
//! and made again with the event; events are repeated until a poll that carried them is answered, and commands until
//! their number has been seen, so that each takes effect once. A scheduler that was started anew does not know this
//! executor: it registers, and what it has of unfinished jobs goes first. How far tasks have come goes with the next poll, whenever
//! that is.

use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Caller, Connector, RpcError};
use situ_wire::codec;
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, ExecutorRegistration, Request, Response, TaskProgress,
};
use tokio::sync::{mpsc, watch};

/// How long a call may take: longer than the scheduler lets a poll wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The first and the longest wait before the scheduler is called again after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How many bytes of events one poll carries, unless a single one is longer; the rest goes with the next.
const POLL_LEN_BYTES: usize = 8 << 20;

/// What the owner hears from the scheduler.
#[derive(Debug)]
pub(super) enum FromScheduler {
    /// The scheduler knows this executor from now on, and that these jobs have not ended. The owner says [`ToLink::Began`]
    /// and then what it has of them.
    Registered(Vec<JobId>),
    /// Carry this out.
    Command(ExecutorCommand),
}

/// What the owner says to the link.
#[derive(Debug)]
pub(super) enum ToLink {
    /// It has heard that this executor is registered: what it said before was for an earlier registration.
    Began,
    /// Tell the scheduler.
    Event(ExecutorEvent),
}

type SchedulerCaller<R> = Caller<R, Request, Response>;

/// The link to the scheduler; runs until the owner is gone.
pub(super) struct Link<R: Runtime> {
    pub(super) connector: Connector<R>,
    pub(super) registration: ExecutorRegistration,
    pub(super) scheduler: std::net::SocketAddr,
    pub(super) commands: mpsc::Sender<FromScheduler>,
    pub(super) events: mpsc::UnboundedReceiver<ToLink>,
    pub(super) progress: watch::Receiver<Vec<TaskProgress>>,
}

/// Why a conversation ended.
enum End {
    /// The owner is gone.
    Owner,
    /// The scheduler does not know this executor.
    Unknown,
    /// The scheduler could not be asked.
    Failed(RpcError),
}

impl<R: Runtime> Link<R> {
    /// Talks to the scheduler until the owner is gone.
    pub(super) async fn run(mut self) {
        let mut unheard: Vec<ExecutorEvent> = Vec::new();
        let mut seen = 0;
        let mut registered = false;
        let mut wait = BACKOFF.0;
        loop {
            let end = self.converse(&mut unheard, &mut seen, &mut registered, &mut wait).await;
            match end {
                End::Owner => return,
                End::Unknown => registered = false,
                End::Failed(error) => {
                    tracing::warn!(scheduler = %self.scheduler, %error, "the scheduler cannot be reached; trying again");
                    self.connector.runtime().clock().sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Talks over one stream of calls until something goes wrong.
    async fn converse(
        &mut self,
        unheard: &mut Vec<ExecutorEvent>,
        seen: &mut u64,
        registered: &mut bool,
        wait: &mut Duration,
    ) -> End {
        let caller = match self.connector.caller(self.scheduler, Role::Scheduler).await {
            Ok(caller) => caller,
            Err(error) => return End::Failed(error),
        };
        if !*registered {
            if let Err(end) = self.register(&caller).await {
                return end;
            }
            (*registered, *seen) = (true, 0);
            unheard.clear();
        }
        let mut progress = Vec::new();
        loop {
            if self.progress.has_changed().unwrap_or_default() {
                progress.clone_from(&self.progress.borrow_and_update());
            }
            let told = told_at_once(unheard);
            let (id, events) = (self.registration.id, unheard[..told].to_vec());
            let poll = Request::ExecutorPoll { id, seen: *seen, events, progress: progress.clone() };
            tokio::select! {
                answer = caller.call(&poll, CALL_TIMEOUT) => match answer {
                    Ok(Response::Commands { last, commands }) => {
                        *wait = BACKOFF.0;
                        unheard.drain(..told);
                        progress.clear();
                        for (number, command) in commands {
                            if number > *seen && self.commands.send(FromScheduler::Command(command)).await.is_err() {
                                return End::Owner;
                            }
                            *seen = (*seen).max(number);
                        }
                        *seen = (*seen).max(last);
                    }
                    Ok(other) => return End::Failed(wrong("ExecutorPoll", &other)),
                    Err(RpcError::Remote(error)) if error.code == ErrorCode::NotRegistered => return End::Unknown,
                    Err(error) => return End::Failed(error),
                },
                event = self.events.recv() => match event {
                    None => return End::Owner,
                    Some(said) => {
                        let mut said = Ok(said);
                        while let Ok(ToLink::Event(event)) = said {
                            unheard.push(event);
                            said = self.events.try_recv();
                        }
                    }
                },
            }
        }
    }

    /// Registers; the next thing that the owner says is for this registration.
    async fn register(&mut self, caller: &SchedulerCaller<R>) -> Result<(), End> {
        let request = Request::ExecutorRegister(self.registration.clone());
        match caller.call(&request, CALL_TIMEOUT).await {
            Ok(Response::Registered { jobs, .. }) => {
                tracing::info!(scheduler = %self.scheduler, "registered with the scheduler");
                self.commands.send(FromScheduler::Registered(jobs)).await.map_err(|_| End::Owner)?;
                loop {
                    match self.events.recv().await {
                        Some(ToLink::Began) => return Ok(()),
                        Some(ToLink::Event(_)) => {}
                        None => return Err(End::Owner),
                    }
                }
            }
            Ok(other) => Err(End::Failed(wrong("ExecutorRegister", &other))),
            Err(error) => Err(End::Failed(error)),
        }
    }
}

fn wrong(request: &'static str, found: &Response) -> RpcError {
    let found: String = format!("{found:?}").chars().take(120).collect();
    RpcError::WrongAnswer { request, found }
}

/// How many of the events fit into one poll; at least one if there is any.
fn told_at_once(events: &[ExecutorEvent]) -> usize {
    let mut len = 0;
    for (index, event) in events.iter().enumerate() {
        // One that cannot be encoded at all goes alone, and its failure is told.
        len += codec::encode(event).map_or(POLL_LEN_BYTES, |encoded| encoded.len());
        if len > POLL_LEN_BYTES && index > 0 {
            return index;
        }
    }
    events.len()
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{PartitionId, ScopeId, StageId, TaskAttemptId};
    use situ_wire::messages::scheduler::{TaskDone, TaskFailure, TaskOutcome};

    use super::*;

    fn ended(outcome: TaskOutcome) -> ExecutorEvent {
        let attempt =
            TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(0), attempt: 0 };
        ExecutorEvent::TaskEnded { attempt, outcome }
    }

    #[test]
    fn what_one_poll_carries_fits_into_a_message() {
        let text = |len| "x".repeat(len);
        let failed = |len| ended(TaskOutcome::Failed(TaskFailure::Program { message: text(len) }));
        let done =
            |len| ended(TaskOutcome::Done(Box::new(TaskDone { result: text(len).into(), ..TaskDone::default() })));
        let lost = |len| ExecutorEvent::WorkerLost { job: JobId(1), reason: text(len) };
        for event in [&failed as &dyn Fn(usize) -> ExecutorEvent, &done, &lost] {
            assert_eq!(told_at_once(&[]), 0);
            assert_eq!(told_at_once(&vec![event(1_000); 1_000]), 1_000);
            assert_eq!(told_at_once(&vec![event(2 << 20); 9]), 3);
            assert_eq!(told_at_once(&vec![event(12 << 20); 2]), 1, "one always goes");
        }
    }
}
