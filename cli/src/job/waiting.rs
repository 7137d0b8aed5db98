//! What keeps a job from going on.

use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{DriverPlace, ExecutorStatus, JobState, JobStatus};

use crate::error::CliResult;
use crate::session::Session;
use crate::show::count;

/// What a job waits for before any of it can run; none if something of it runs, or could.
///
/// # Errors
/// When the scheduler cannot be asked for too long.
pub(super) async fn why(session: &Session, status: &JobStatus) -> CliResult<Option<String>> {
    if status.summary.state.is_final() || status.stages.iter().any(|stage| stage.running > 0) {
        return Ok(None);
    }
    let lacking = lacking(&session.client.scheduler().executors().await?);
    let driverless = status.summary.state == JobState::Waiting;
    let begins = match status.driver {
        DriverPlace::Placed => "its driver to begin: too many others may be running already",
        DriverPlace::Attached => "its driver to begin, at its client",
    };
    Ok(lacking.or_else(|| driverless.then(|| begins.to_owned())))
}

/// What there is too little of to run anything.
fn lacking(executors: &[ExecutorStatus]) -> Option<String> {
    let live: Vec<&ExecutorStatus> = executors.iter().filter(|executor| executor.liveness == Liveness::Live).collect();
    if live.is_empty() {
        let known = match executors.len() as u64 {
            0 => "none has come to the scheduler yet".to_owned(),
            gone => format!("{} known, none of them live", count(gone, "executor")),
        };
        return Some(format!("executors: {known}; start one (`situ executor`), and the job goes on by itself"));
    }
    let slots: u64 = live.iter().map(|executor| u64::from(executor.registration.slots)).sum();
    let taken: u64 = live.iter().map(|executor| u64::from(executor.running)).sum();
    (taken >= slots).then(|| format!("a free slot: {} of {} taken", taken, count(slots, "slot")))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use situ_wire::ids::{ExecutorId, NodeName, RackName};
    use situ_wire::messages::scheduler::ExecutorRegistration;
    use situ_wire::time::TimeMs;

    use super::*;

    fn executor(id: u128, liveness: Liveness, running: u32) -> ExecutorStatus {
        let registration = ExecutorRegistration {
            id: ExecutorId(id),
            node: NodeName(format!("node-{id}")),
            rack: RackName("/rack".to_owned()),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            slots: 2,
            worker_memory_bytes: 1,
        };
        ExecutorStatus { registration, liveness, running, last_poll: TimeMs(0) }
    }

    #[test]
    fn a_lack_of_executors_or_slots_is_named() {
        let said = |executors: &[ExecutorStatus]| lacking(executors).unwrap_or_default();
        assert!(said(&[]).contains("none has come"));
        assert!(said(&[executor(1, Liveness::Dead, 0)]).contains("1 executor known, none of them live"));
        let busy = [executor(1, Liveness::Live, 2), executor(2, Liveness::Live, 2), executor(3, Liveness::Dead, 0)];
        assert_eq!(said(&busy), "a free slot: 4 of 4 slots taken");
        assert_eq!(lacking(&[executor(1, Liveness::Live, 2), executor(2, Liveness::Live, 1)]), None);
    }
}
