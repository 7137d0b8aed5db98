//! The real world, as this process sees it: its user, its credentials, its log, and who asks it to end.

use std::path::Path;

use situ_runtime::real::RealRuntime;
use situ_runtime::security::Credentials;
use situ_runtime::transport::net::Route;

use crate::error::CliResult;

/// The world as the holder of the certificate in `credentials`; without one only this host's own user is reached.
/// `SITU_TRANSPORT=quic` keeps to QUIC also on this host, for measurements.
///
/// # Errors
/// When the certificate cannot be used.
pub fn runtime(credentials: Option<&Path>) -> CliResult<RealRuntime> {
    let credentials = credentials.map(Credentials::load).transpose()?;
    let quic_only = std::env::var_os("SITU_TRANSPORT").is_some_and(|wanted| wanted == "quic");
    let route = if quic_only { Route::QuicOnly } else { Route::Auto };
    Ok(RealRuntime::with_route(credentials.as_ref(), route)?)
}

/// Waits for Ctrl-C or SIGTERM, from now on.
pub async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    let pressed = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminated => {}
        () = pressed => {}
    }
}

/// The exit code of a process that a second Ctrl-C ends, as a shell shows it.
const INTERRUPTED_TWICE: i32 = 130;

/// Whether this process has been asked to end since somebody first waited for that. Whoever asks twice does not want to
/// wait until everything is tidied up.
#[derive(Debug, Default)]
pub struct Interrupt {
    seen: std::sync::OnceLock<tokio::sync::watch::Receiver<bool>>,
}

impl Interrupt {
    /// Waits for Ctrl-C or SIGTERM; comes at once if there was one since the first call.
    pub async fn wait(&self) {
        let seen = self.seen.get_or_init(|| {
            let (tell, seen) = tokio::sync::watch::channel(false);
            tokio::spawn(async move {
                interrupted().await;
                tell.send_replace(true);
                interrupted().await;
                std::process::exit(INTERRUPTED_TWICE);
            });
            seen
        });
        if seen.clone().wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
        .try_init();
}
