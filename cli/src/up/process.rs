//! One role as a child process that cannot outlive its parent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::error::{CliError, CliResult, LocalContext};

/// How long a role may take to listen: a namenode replays its journal before it does.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a role that comes back waits for its old port, and how often it looks.
const PORT_TIMEOUT: Duration = Duration::from_secs(30);
const PORT_RETRY: Duration = Duration::from_millis(200);
/// How long a role may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a supervised role says on its standard output, once, when it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens.
    pub listening: SocketAddr,
}

/// How to start a role.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The `situ` executable.
    pub program: PathBuf,
    /// The role's subcommand.
    pub role: &'static str,
    /// What people call this process, such as `datanode-2`.
    pub name: String,
    /// The role's configuration.
    pub config: PathBuf,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// Where it listens if not where the configuration says: a role that comes back keeps its address.
    pub listen: Option<SocketAddr>,
}

/// A role that runs, or that is to be started.
#[derive(Debug)]
pub struct RoleProcess {
    launch: Launch,
    /// None before it has started for the first time, and while it is known to have ended.
    child: Option<Child>,
    /// Its end tells the child to stop, also when this process is killed.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
}

impl RoleProcess {
    /// Starts a role and waits until it can be reached.
    ///
    /// # Errors
    /// When it cannot be started or ends before it listens; the message carries the end of its log.
    pub async fn start(launch: Launch) -> CliResult<Self> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .local("cannot write the log", &launch.log)?;
        let log_from = log.metadata().map_or(0, |metadata| metadata.len());
        let mut command = Command::new(&launch.program);
        command.arg(launch.role).arg("--config").arg(&launch.config).arg("--supervised");
        if let Some(listen) = launch.listen {
            command.arg("--listen").arg(listen.to_string());
        }
        // A group of its own: Ctrl-C reaches the supervisor alone, which stops the roles in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .local("cannot start", &launch.program)?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(CliError::failed(format!("{}: started without a standard output", launch.name)));
        };
        let mut first_line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(READY_TIMEOUT, reader.read_line(&mut first_line)).await;
        match (read, serde_json::from_str::<Ready>(&first_line)) {
            (Ok(Ok(_)), Ok(ready)) => Ok(Self { launch, child: Some(child), stdin, address: ready.listening }),
            (Ok(_), _) => {
                let status = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await;
                let ended = match status {
                    Ok(Ok(status)) => format!("it ended with {status}"),
                    _ => "it closed its standard output".to_owned(),
                };
                Err(CliError::failed(format!(
                    "{} did not start: {ended}\n{}see {}; its configuration is {}",
                    launch.name,
                    log_tail(&launch.log, log_from),
                    launch.log.display(),
                    launch.config.display()
                )))
            }
            (Err(_), _) => Err(CliError::failed(format!(
                "{} did not listen within {READY_TIMEOUT:?}\n{}see {}",
                launch.name,
                log_tail(&launch.log, log_from),
                launch.log.display()
            ))),
        }
    }

    /// One that did not start, and that [`RoleProcess::restart`] tries to start again.
    pub(super) fn to_be_started(launch: Launch) -> Self {
        let address = launch.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { launch, child: None, stdin: None, address }
    }

    /// Whether it runs, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id; none when it has ended or not started.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Starts it again at the same address after it has ended.
    ///
    /// # Errors
    /// As [`RoleProcess::start`].
    pub async fn restart(&mut self) -> CliResult {
        let launch = Launch { listen: Some(self.address), ..self.launch.clone() };
        let begun = std::time::Instant::now();
        loop {
            match Self::start(launch.clone()).await {
                Ok(started) => {
                    *self = started;
                    return Ok(());
                }
                // While nobody listened there the system may have lent the port to somebody's outgoing connection.
                Err(error) if is_address_taken(&error) && begun.elapsed() < PORT_TIMEOUT => {
                    tokio::time::sleep(PORT_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends it at once, as a power switch would, and waits until it is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill(&mut self) -> CliResult {
        let Some(child) = &mut self.child else { return Ok(()) };
        let killed = child.kill().await;
        killed.map_err(|error| CliError::failed(format!("cannot kill {}: {error}", self.name())))
    }

    /// Waits until it ends by itself; one that does not run does not.
    pub async fn ended(&mut self) -> String {
        let Some(child) = &mut self.child else { return std::future::pending().await };
        let how = match child.wait().await {
            Ok(status) => describe(status),
            Err(error) => error.to_string(),
        };
        self.child = None;
        how
    }

    /// Asks it to end and waits until it has; one that does not is killed.
    pub async fn stop(mut self) -> Result<(), String> {
        drop(self.stdin.take());
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match tokio::time::timeout(STOP_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{} ended with {}", self.name(), describe(status))),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name())),
            Err(_) => {
                let killed = child.kill().await;
                Err(format!("{} did not end within {STOP_TIMEOUT:?} and was killed ({killed:?})", self.name()))
            }
        }
    }
}

/// Whether a role did not start since it cannot listen where it should.
pub(super) fn is_address_taken(error: &CliError) -> bool {
    error.message.contains("cannot listen on")
}

/// An exit status in words.
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of what a log got since `from`, indented.
fn log_tail(log: &Path, from: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    let text = String::from_utf8_lossy(&text[from..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("  {line}\n")).collect()
}
