//! Starting, watching and ending the processes of jobs.
//!
//! A process has a group of its own, so that what it starts ends with it, and a standard input that it watches, so that
//! it ends when the executor does.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// How often a process's memory is looked at.
const MEMORY_CHECK: Duration = Duration::from_millis(100);
/// How much of the end of a standard error is looked at for the reason of a failure.
const TAIL_LEN_BYTES: u64 = 4 << 10;
/// How many lines of it are told.
const TAIL_LINES: usize = 6;
/// What is passed on of the executor's own environment: what programs need to find their way, and no secrets.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE", "SITU_LOG", "SITU_TRANSPORT"];

/// How to start a process.
#[derive(Debug)]
pub(super) struct ProcessSpec {
    /// The executable.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Its environment, beside what is inherited.
    pub(super) variables: Vec<(&'static str, OsString)>,
    /// Its working directory.
    pub(super) directory: PathBuf,
    /// Where its standard output goes.
    pub(super) stdout: PathBuf,
    /// Where its standard error goes.
    pub(super) stderr: PathBuf,
    /// How much memory it may use.
    pub(super) memory_bytes: u64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// Nothing if it ended with 0; else what is known.
    pub(super) error: Option<String>,
    /// Whether another attempt may end otherwise.
    pub(super) retry: bool,
}

/// Runs a process to its end, or until `stop` is sent or dropped; then it and all that it started are killed.
pub(super) async fn run<R: Runtime>(runtime: R, spec: ProcessSpec, mut stop: oneshot::Receiver<()>) -> Ending {
    let stderr = spec.stderr.clone();
    let from = std::fs::metadata(&stderr).map_or(0, |metadata| metadata.len());
    let mut child = match start(&spec) {
        Ok(child) => child,
        Err(error) => {
            let retry = matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock);
            return Ending { error: Some(format!("{} cannot be started: {error}", spec.program.display())), retry };
        }
    };
    let pid = child.id();
    // Held to the end: waiting for a child closes what it still has of its standard input.
    let _stdin = child.stdin.take();
    loop {
        tokio::select! {
            status = child.wait() => {
                // What the process has started and left behind ends with it.
                kill_group(pid);
                return ending(status, || tail(&stderr, from));
            }
            _ = &mut stop => {
                kill(&mut child, pid).await;
                return Ending { error: Some("it was ended".to_owned()), retry: false };
            }
            () = runtime.clock().sleep(MEMORY_CHECK) => {
                let used_bytes = pid.and_then(resident_bytes).unwrap_or(0);
                if used_bytes > spec.memory_bytes {
                    kill(&mut child, pid).await;
                    let error = format!(
                        "it used {} MiB of memory; {} MiB are allowed for one process of a job on this executor: use \
                         more and smaller partitions, or raise worker_memory_bytes",
                        used_bytes >> 20,
                        spec.memory_bytes >> 20
                    );
                    return Ending { error: Some(error), retry: false };
                }
            }
        }
    }
}

fn start(spec: &ProcessSpec) -> io::Result<Child> {
    let log = |path: &Path| std::fs::File::options().create(true).append(true).open(path);
    let (stdout, stderr) = (log(&spec.stdout)?, log(&spec.stderr)?);
    let mut command = Command::new(&spec.program);
    command.args(&spec.arguments).current_dir(&spec.directory).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.envs(spec.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    command.process_group(0).kill_on_drop(true).spawn()
}

async fn kill(child: &mut Child, pid: Option<u32>) {
    kill_group(pid);
    if let Err(error) = child.kill().await {
        tracing::error!(?pid, %error, "a process of a job could not be killed");
    }
}

fn kill_group(pid: Option<u32>) {
    let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    // Usually the group is gone with its only member: that is no error.
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
}

/// How much memory a process has in use; none if it is gone.
fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

fn ending(status: io::Result<ExitStatus>, tail: impl FnOnce() -> String) -> Ending {
    let status = match status {
        Ok(status) if status.success() => return Ending { error: None, retry: false },
        Ok(status) => status,
        Err(error) => return Ending { error: Some(format!("its end was not seen: {error}")), retry: true },
    };
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => format!("it ended with {status}"),
    };
    // Somebody else's doing; a program's own crash (SIGSEGV, SIGABRT) would come again.
    let retry = matches!(status.signal(), Some(9 | 15));
    Ending { error: Some(how + &tail()), retry }
}

/// The last lines of what a standard error got since `from`.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        let start = from.max(len.saturating_sub(TAIL_LEN_BYTES));
        let mut text = vec![0; usize::try_from(len.saturating_sub(start)).unwrap_or(0)];
        file.read_exact_at(&mut text, start)?;
        Ok(text)
    };
    let text = match read() {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => return format!("; its standard error cannot be read: {error}"),
    };
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        [] => String::new(),
        last => format!(": {}", last.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use situ_runtime::real::RealRuntime;

    fn spec(directory: &Path, script: &str) -> ProcessSpec {
        ProcessSpec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            variables: Vec::new(),
            directory: directory.to_owned(),
            stdout: directory.join("out"),
            stderr: directory.join("err"),
            memory_bytes: 64 << 20,
        }
    }

    async fn ending_of(script: &str) -> Ending {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        run(RealRuntime::new(None).unwrap(), spec(directory.path(), script), stop).await
    }

    #[tokio::test]
    async fn how_a_process_ended_is_told() {
        assert_eq!(ending_of("exit 0").await, Ending { error: None, retry: false });
        assert_eq!(
            ending_of("echo one >&2; echo two >&2; exit 3").await,
            Ending { error: Some("it ended with exit code 3: one; two".to_owned()), retry: false }
        );
        assert_eq!(
            ending_of("kill -9 $$").await,
            Ending { error: Some("it was ended by signal 9".to_owned()), retry: true }
        );
        let missing = ProcessSpec { program: "/nowhere".into(), ..spec(&std::env::temp_dir(), "") };
        let (_keep, stop) = oneshot::channel();
        let ending = run(RealRuntime::new(None).unwrap(), missing, stop).await;
        assert!(ending.error.unwrap().contains("/nowhere cannot be started"));
    }

    #[tokio::test]
    async fn standard_input_stays_open_until_the_process_ends() {
        let ending = ending_of("timeout 0.2 cat; test $? = 124").await;
        assert_eq!(ending.error, None);
    }

    #[tokio::test]
    async fn a_process_that_eats_its_memory_is_ended() {
        let ending = ending_of("x=0123456789abcdef; while :; do x=$x$x; done").await;
        assert!(ending.error.unwrap().contains("64 MiB are allowed"));
    }

    #[tokio::test]
    async fn a_process_and_its_children_are_ended_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let (stop, stopped) = oneshot::channel();
        let script = "sleep 1000 & echo $! > pid.new; mv pid.new pid; wait";
        let running = tokio::spawn(run(RealRuntime::new(None).unwrap(), spec(directory.path(), script), stopped));
        let pid = loop {
            if let Ok(text) = std::fs::read_to_string(&pid_file) {
                break text.trim().to_owned();
            }
            tokio::task::yield_now().await;
        };
        stop.send(()).unwrap();
        assert_eq!(running.await.unwrap().error.as_deref(), Some("it was ended"));
        // The kernel takes its time, and then init reaps the orphan whenever it likes: until then it is a zombie.
        loop {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z") || state.contains(") X") {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
