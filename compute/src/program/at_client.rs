//! A driver in its user's terminal: the process ends when the job does, and the job when its user ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::real::RealRuntime;
use situ_wire::messages::scheduler::{Request, Response};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::entry::fail;
use super::environment::CUT_OFF;
use super::session::Session;

/// The exit code when the job has ended without its driver.
const LOST: i32 = 1;
/// What ends both, Ctrl-C, `kill` and a terminal that is closed, and with which exit code: as a shell shows a process that
/// such a signal has ended.
const ENDING: [(SignalKind, i32); 3] =
    [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143), (SignalKind::hangup(), 129)];
/// How long the scheduler may take to hear that it is over. Who does not want to wait so long asks again.
const LIMIT: Duration = Duration::from_secs(10);

/// Ends the process when its job is `lost`. Whoever sets `ends` first says how it ends.
pub(super) fn watch_loss(cluster: &Arc<Cluster<RealRuntime>>, session: &Session, ends: &Arc<AtomicBool>) {
    let (ended, mut lost, is_placed) = (Arc::clone(ends), session.lost(), !session.is_attached());
    cluster.runtime.spawn("lost-session", async move {
        // The sender goes with the session, which has ended in order then.
        let Ok(Some(lost)) = lost.wait_for(Option::is_some).await.map(|lost| lost.clone()) else { return };
        if !ended.swap(true, Ordering::SeqCst) {
            fail(&lost.why);
            std::process::exit(if lost.is_cut_off && is_placed { CUT_OFF.into() } else { LOST });
        }
    });
}

/// Ends the job when the process is asked to end.
pub(super) fn watch_signals(cluster: &Arc<Cluster<RealRuntime>>, ends: &Arc<AtomicBool>) {
    let mut asked = match asked_to_end(&cluster.runtime) {
        Ok(asked) => asked,
        Err(error) => return tracing::warn!(%error, "without a handler a signal ends the process, and the job later"),
    };
    let (cluster, ends) = (Arc::clone(cluster), Arc::clone(ends));
    cluster.runtime.clone().spawn("interrupted", async move {
        let Some(code) = asked.recv().await else { return };
        if ends.swap(true, Ordering::SeqCst) {
            return;
        }
        let job = cluster.environment.job;
        let kill = Request::Kill { job, reason: "interrupted at its client".to_owned() };
        let told = cluster.scheduler.ask(&kill);
        let said = tokio::select! {
            told = cluster.runtime.clock().timeout(LIMIT, told) => match told {
                Some(Ok(Response::Done)) => format!("interrupted; {job} is ended"),
                Some(Ok(other)) => format!("interrupted; the scheduler answered {other:?}: `situ job status {}`", job.0),
                Some(Err(error)) => format!("interrupted; {job} ends soon, for its client is gone: {error}"),
                None => format!("interrupted; {job} ends when the scheduler is back and does not hear its client"),
            },
            _ = asked.recv() => format!("interrupted; {job} ends soon, for its client is gone"),
        };
        fail(&said);
        std::process::exit(code);
    });
}

/// Tells each time that the process is asked to end, and the exit code for that.
fn asked_to_end(runtime: &RealRuntime) -> io::Result<mpsc::UnboundedReceiver<i32>> {
    let (tell, asked) = mpsc::unbounded_channel();
    let hears_no_hangup = ignored_signals("/proc/self/status") & HANGUP != 0;
    for (kind, code) in ENDING {
        if kind == SignalKind::hangup() && hears_no_hangup {
            continue;
        }
        let (mut signal, tell) = (signal(kind)?, tell.clone());
        runtime.spawn("signal", async move {
            while signal.recv().await.is_some() {
                if tell.send(code).is_err() {
                    return;
                }
            }
        });
    }
    Ok(asked)
}

/// SIGHUP among the signals that a process ignores.
const HANGUP: u64 = 1;

/// The signals that a process ignores, the first one in the lowest bit, as its status says: `nohup` has it ignore SIGHUP,
/// and whoever starts it so wants it to outlive the terminal.
fn ignored_signals(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_ignores_is_read_from_its_status() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n").unwrap();
        assert_eq!(ignored_signals(file.path().to_str().unwrap()), 0x1001);
        // As in every Rust program, SIGPIPE at least.
        assert_ne!(ignored_signals("/proc/self/status"), 0);
        assert_eq!(ignored_signals("/no/such"), 0);
    }
}
