//! The real world, as this process sees it: its user, its credentials, its log, and who asks it to end.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use situ_runtime::real::RealRuntime;
use situ_runtime::security::Credentials;
use situ_runtime::transport::net::Route;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{CliError, CliResult, INTERRUPTED};
use crate::show::escaped;

/// The world as the holder of the certificate in `credentials`; without one only this host's own user is reached.
/// `SITU_TRANSPORT=quic` keeps to QUIC also on this host, for measurements.
///
/// # Errors
/// When the certificate cannot be used, or `SITU_TRANSPORT` names no way.
pub fn runtime(credentials: Option<&Path>) -> CliResult<RealRuntime> {
    let credentials = credentials.map(Credentials::load).transpose()?;
    Ok(RealRuntime::with_route(credentials.as_ref(), route(std::env::var_os("SITU_TRANSPORT").as_deref())?)?)
}

/// The ways that connections take, as `SITU_TRANSPORT` says.
fn route(wanted: Option<&OsStr>) -> CliResult<Route> {
    match wanted.map(OsStr::to_string_lossy).as_deref() {
        None | Some("" | "auto") => Ok(Route::Auto),
        Some("quic") => Ok(Route::QuicOnly),
        Some(other) => Err(CliError::usage(format!(
            "SITU_TRANSPORT={}: expected `quic` (for this host, too) or `auto` (Unix sockets on this host, which is what \
             holds without it)",
            escaped(other)
        ))),
    }
}

/// Whether this process has been asked to end, by Ctrl-C or SIGTERM, since somebody first listened for that; a clone has
/// heard the same. Whoever asks twice does not want to wait until everything is tidied up.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    seen: Arc<OnceLock<watch::Receiver<bool>>>,
}

impl Interrupt {
    /// Listens from now on.
    pub fn listen() -> Self {
        let interrupt = Self::default();
        interrupt.begin();
        interrupt
    }

    /// Listens from now on, if nobody has listened before.
    pub fn begin(&self) {
        drop(self.seen());
    }

    /// Waits until this process is asked to end; comes at once if it was since somebody first listened.
    pub async fn wait(&self) {
        if self.seen().wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn seen(&self) -> watch::Receiver<bool> {
        self.seen.get_or_init(signalled).clone()
    }
}

fn signalled() -> watch::Receiver<bool> {
    let (tell, seen) = watch::channel(false);
    // Without a handler the signal ends the process by itself.
    if let (Ok(mut pressed), Ok(mut terminated)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = pressed.recv() => {}
                    _ = terminated.recv() => {}
                }
                if again {
                    std::process::exit(INTERRUPTED.into());
                }
                tell.send_replace(true);
            }
        });
    }
    seen
}

/// The name of the user who runs this process.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    // The password file is the plain truth on most machines; where it is not, the number is a name as good as any.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .next()
        .unwrap_or_else(|| format!("uid-{uid}"))
}

/// Sends what the libraries log to standard error; `SITU_LOG` says how much.
pub fn start_log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SITU_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // It would say that on standard error, too, and panic: a role whose log is on a full disk goes on without it.
        .log_internal_errors(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn what_asks_to_end_is_remembered_until_somebody_waits() {
        let interrupt = Interrupt::listen();
        let clone = interrupt.clone();
        // One that is not handled would end the tests.
        kill_process(getpid(), Signal::TERM).unwrap();
        clone.wait().await;
        interrupt.wait().await;
    }

    #[test]
    fn a_transport_that_is_not_known_is_refused() {
        assert!(matches!(route(None), Ok(Route::Auto)));
        assert!(matches!(route(Some(OsStr::new("quic"))), Ok(Route::QuicOnly)));
        let error = route(Some(OsStr::new("bogus"))).unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.message.starts_with("SITU_TRANSPORT=bogus: expected `quic`"), "{error}");
    }
}
