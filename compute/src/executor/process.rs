//! Starting and ending the processes of jobs, each by its [shim](super::shim).

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::codec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::descendants::kill_marked;
use super::shim::{ShimEnding, ShimReport, ShimSpec, frame};
use crate::program::environment::{CUT_OFF, PROCESS};

/// How long a shim may take to end once it was told to: longer than it gives what it kills.
const SHIM_LIMIT: Duration = Duration::from_secs(15);
/// How much of the end of a standard error is looked at for the reason of a failure.
const TAIL_LEN_BYTES: u64 = 4 << 10;
/// How many lines of it are told.
const TAIL_LINES: usize = 6;
/// What is passed on of the executor's own environment: what programs need to find their way, and no secrets.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE", "SITU_LOG", "SITU_TRANSPORT"];

/// How a shim is started.
#[derive(Clone, Debug)]
pub(super) struct ShimCommand {
    /// An executable that becomes one.
    pub(super) program: PathBuf,
    /// With these arguments.
    pub(super) arguments: Vec<String>,
}

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
    /// Where its standard error goes; it may be the same.
    pub(super) stderr: PathBuf,
    /// Whether what it would read is another process's standard input: then reading its own fails. It would else be empty.
    pub(super) input_elsewhere: bool,
    /// How much memory it may use, and each process that it starts.
    pub(super) memory_bytes: u64,
    /// How long each of its logs may become.
    pub(super) log_len_bytes: u64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// Nothing if it ended with 0; else what is known.
    pub(super) error: Option<String>,
    /// Whether another attempt may end otherwise.
    pub(super) retry: bool,
}

fn not_started(program: &Path, error: &dyn std::fmt::Display, retry: bool) -> Ending {
    let error = format!("{} cannot be started: {error}", program.display());
    tracing::warn!(error, "a process of a job cannot be started");
    Ending { error: Some(error), retry }
}

/// Runs a process to its end, or until `stop` is sent or dropped; then it and all that it started are killed. They are
/// killed too when this future is dropped.
pub(super) async fn run<R: Runtime>(
    runtime: R,
    shim: &ShimCommand,
    spec: ProcessSpec,
    mut stop: oneshot::Receiver<()>,
) -> Ending {
    let from = std::fs::metadata(&spec.stderr).map_or(0, |metadata| metadata.len());
    let marker = format!("{:032x}", runtime.random_u128());
    let (child, mut hearing, mut telling) = match start(shim, &spec, &marker) {
        Ok((child, control)) => {
            let (hearing, telling) = control.into_split();
            (child, hearing, telling)
        }
        Err(error) => return not_started(&shim.program, &error, true),
    };
    let mut heard = Vec::new();
    let conversation = async {
        telling.write_all(&told(&spec)?).await?;
        hearing.read_to_end(&mut heard).await
    };
    let report = tokio::select! {
        result = conversation => result.and_then(|_| report_in(&heard)),
        _ = &mut stop => Ok(ShimReport { ending: ShimEnding::Killed, log_error: None }),
    };
    // Closed in both directions: what is left to do the shim does now.
    drop((hearing, telling));
    let status = wait(&runtime, child).await;
    if let Ok(ShimReport { log_error: Some(error), .. }) = &report {
        tracing::warn!(program = %spec.program.display(), "a log of a job is not whole: {error}");
    }
    match report.map(|report| report.ending) {
        Ok(ShimEnding::NotStarted { error, retry }) => not_started(&spec.program, &error, retry),
        Ok(ShimEnding::Ended { status }) => ending(ExitStatus::from_raw(status), || tail(&spec.stderr, from)),
        Ok(ShimEnding::TooMuchMemory { used_bytes }) => {
            let error = format!(
                "it used {} MiB of memory; {} MiB are allowed for one process of a job on this executor: use more and \
                 smaller partitions, or raise worker_memory_bytes",
                used_bytes >> 20,
                spec.memory_bytes >> 20
            );
            Ending { error: Some(error), retry: false }
        }
        Ok(ShimEnding::Killed) => {
            if !matches!(&status, Ok(status) if status.signal().is_none()) {
                kill_marked(PROCESS, &marker);
            }
            Ending { error: Some("it was ended".to_owned()), retry: false }
        }
        Err(error) => {
            // Somebody has killed the shim: what it held is killed here.
            kill_marked(PROCESS, &marker);
            let status = status.map_or_else(|error| error, |status| status.to_string());
            Ending {
                error: Some(format!("the shim that held it did not say how it ended ({error}): {status}")),
                retry: true,
            }
        }
    }
}

/// Starts the shim of a process, and the socket to talk with it.
fn start(shim: &ShimCommand, spec: &ProcessSpec, marker: &str) -> io::Result<(Child, UnixStream)> {
    let log = |path: &Path| std::fs::File::options().create(true).append(true).open(path);
    let (_, stderr) = (log(&spec.stdout)?, log(&spec.stderr)?);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&shim.program);
    command.args(&shim.arguments).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.envs(spec.variables.iter().map(|(name, value)| (name, value))).env(PROCESS, marker);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(stderr);
    // It is not killed with its handle: it ends when the socket is closed, and everything below it first.
    Ok((command.process_group(0).spawn()?, UnixStream::from_std(ours)?))
}

/// What a shim is told.
fn told(spec: &ProcessSpec) -> io::Result<Vec<u8>> {
    let path = |path: &Path| path.as_os_str().to_owned();
    let spec = ShimSpec {
        program: path(&spec.program),
        arguments: spec.arguments.clone(),
        directory: path(&spec.directory),
        stdout: path(&spec.stdout),
        stderr: path(&spec.stderr),
        input_elsewhere: spec.input_elsewhere,
        memory_bytes: spec.memory_bytes,
        log_len_bytes: spec.log_len_bytes,
    };
    frame(&codec::encode(&spec).map_err(io::Error::other)?)
}

/// What a shim has said.
fn report_in(heard: &[u8]) -> io::Result<ShimReport> {
    let (_, report) = heard.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
    codec::decode(report).map_err(io::Error::other)
}

/// Waits until a shim is gone.
async fn wait<R: Runtime>(runtime: &R, mut shim: Child) -> Result<ExitStatus, String> {
    if let Some(pid) = shim.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        // If it was stopped it goes on, or it would not hear that it shall end. It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
    match runtime.clock().timeout(SHIM_LIMIT, shim.wait()).await {
        Some(Ok(status)) => Ok(status),
        Some(Err(error)) => Err(error.to_string()),
        None => {
            let killed = shim.start_kill();
            tracing::error!(pid = shim.id(), ?killed, "a process of a job does not end within {SHIM_LIMIT:?}");
            Err(format!("it did not end within {SHIM_LIMIT:?}"))
        }
    }
}

fn ending(status: ExitStatus, tail: impl FnOnce() -> String) -> Ending {
    if status.success() {
        return Ending { error: None, retry: false };
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => format!("it ended with {status}"),
    };
    // Somebody else's doing, or the network's; a program's own crash (SIGSEGV, SIGABRT) would come again.
    let retry = matches!(status.signal(), Some(9 | 15)) || status.code() == Some(i32::from(CUT_OFF));
    Ending { error: Some(how + &tail()), retry }
}

/// The last lines of what a standard error got since `from`.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        // A log that was cut may be shorter now than it was at first.
        let start = from.min(len).max(len.saturating_sub(TAIL_LEN_BYTES));
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
            input_elsewhere: false,
            memory_bytes: 64 << 20,
            log_len_bytes: 100_000,
        }
    }

    /// A shim that is this very test's executable.
    fn shim() -> ShimCommand {
        let body = "executor::process::tests::a_shim";
        ShimCommand {
            program: std::env::current_exe().unwrap(),
            arguments: ["--exact", body, "--ignored", "--nocapture"].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    #[ignore = "run as a process of its own by the next tests"]
    fn a_shim() {
        let code = super::super::shim::shim();
        // Else the executable would go on as one that runs tests.
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }

    fn runtime() -> RealRuntime {
        RealRuntime::new(None).unwrap()
    }

    async fn ending_of(script: &str) -> Ending {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        run(runtime(), &shim(), spec(directory.path(), script), stop).await
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
        assert_eq!(
            ending_of("echo error: the scheduler is away >&2; exit 75").await,
            Ending { error: Some("it ended with exit code 75: error: the scheduler is away".to_owned()), retry: true }
        );
        // What is read elsewhere is not empty here.
        let script = "cat; echo $? >&2; exit 3";
        for (input_elsewhere, says) in [(false, "3: 0"), (true, "Is a directory")] {
            let directory = tempfile::tempdir().unwrap();
            let reads = ProcessSpec { input_elsewhere, ..spec(directory.path(), script) };
            let (_keep, stop) = oneshot::channel();
            let error = run(runtime(), &shim(), reads, stop).await.error.unwrap();
            assert!(error.contains(says), "{error}");
        }
        let missing = ProcessSpec { program: "/nowhere".into(), ..spec(&std::env::temp_dir(), "") };
        let (_keep, stop) = oneshot::channel();
        let ending = run(runtime(), &shim(), missing, stop).await;
        assert!(ending.error.unwrap().contains("/nowhere cannot be started"));
    }

    #[tokio::test]
    async fn standard_input_is_empty_and_the_shim_holds_a_pipe_open_until_the_process_ends() {
        let ending = ending_of("cat && timeout 0.2 cat $SITU_SHIM; test $? = 124").await;
        assert_eq!(ending.error, None);
    }

    #[tokio::test]
    async fn a_process_that_is_stopped_ends_with_its_shim_which_is_stopped_too() {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let script = "echo $$ > pid.new; mv pid.new pid; kill -STOP $PPID; kill -STOP $$; sleep 1000";
        let spec = spec(directory.path(), script);
        let running = tokio::spawn(async move { run(runtime(), &shim(), spec, stopped).await });
        let read = || std::fs::read_to_string(directory.path().join("pid")).ok();
        let pid = until(read).await.trim().to_owned();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        until(|| state().contains(") T").then_some(())).await;
        stop.send(()).unwrap();
        let ended = tokio::time::timeout(SHIM_LIMIT / 2, running).await.expect("the shim is not waited for in vain");
        assert_eq!(ended.unwrap().error.as_deref(), Some("it was ended"));
        assert!(is_gone(&pid));
    }

    #[tokio::test]
    async fn a_process_that_eats_its_memory_is_ended() {
        let eat = "x=0123456789abcdef; i=0; while [ $i -lt 23 ]; do x=$x$x; i=$((i+1)); done; sleep 1000";
        for script in [eat.to_owned(), format!("setsid sh -c '{eat}' & wait")] {
            let ending = ending_of(&script).await;
            assert!(ending.error.as_ref().unwrap().contains("64 MiB are allowed"), "{ending:?}");
        }
    }

    #[tokio::test]
    async fn a_process_that_writes_for_ever_does_not_fill_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        let script = "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo the end; echo oh no >&2; exit 7";
        let ending = run(runtime(), &shim(), spec(directory.path(), script), stop).await;
        assert_eq!(ending.error.as_deref(), Some("it ended with exit code 7: oh no"));
        let log = std::fs::read_to_string(directory.path().join("out")).unwrap();
        assert!(log.len() <= 100_000 && log.starts_with("xxx") && log.ends_with("x\nthe end\n"), "{}", log.len());
        assert!(log.contains("bytes are missing here"), "{}", log.len());
    }

    #[tokio::test]
    async fn output_and_errors_share_a_log_in_the_order_in_which_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = "for n in 1 2 3; do echo out $n; echo error $n >&2; done";
        for round in 1..=2 {
            let (_keep, stop) = oneshot::channel();
            let spec = ProcessSpec { stdout: log.clone(), stderr: log.clone(), ..spec(directory.path(), script) };
            assert_eq!(run(runtime(), &shim(), spec, stop).await.error, None);
            let expected = "out 1\nerror 1\nout 2\nerror 2\nout 3\nerror 3\n".repeat(round);
            assert_eq!(std::fs::read_to_string(&log).unwrap(), expected, "a later process goes on with it");
        }
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_does_not_stop_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        let script = "head -c 1000000 /dev/zero && echo all of it is out >&2; exit 6";
        let spec = ProcessSpec { stdout: "/dev/full".into(), ..spec(directory.path(), script) };
        let ending = run(runtime(), &shim(), spec, stop).await;
        assert_eq!(ending.error.as_deref(), Some("it ended with exit code 6: all of it is out"));
    }

    /// A script that leaves a process behind in a session of its own, whose parent ends at once; both say who they are.
    const DETACHING: &str = "sh -c 'setsid sleep 1000 & echo $! > inner.new; mv inner.new inner'; \
                             echo $$ > outer.new; mv outer.new outer; while :; do sleep 1000; done";

    /// Asks again and again for what nobody tells of, and gives up only when it is certain not to come.
    async fn until<T>(mut asked: impl FnMut() -> Option<T>) -> T {
        let answer = async {
            loop {
                if let Some(answer) = asked() {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), answer).await.expect("it comes to pass")
    }

    /// Waits until the script has said who its processes are.
    async fn pids(directory: &Path) -> [String; 2] {
        let read = |name| std::fs::read_to_string(directory.join(name)).ok().map(|text| text.trim().to_owned());
        [until(|| read("inner")).await, until(|| read("outer")).await]
    }

    /// Waits until none of these processes is there.
    async fn gone(pids: &[String]) {
        until(|| pids.iter().all(|pid| is_gone(pid)).then_some(())).await;
    }

    fn is_gone(pid: &str) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Whoever must reap it does so when it likes: until then it is a zombie.
        state.is_empty() || state.contains(") Z") || state.contains(") X")
    }

    #[tokio::test]
    async fn a_process_and_all_that_it_started_is_gone_when_its_end_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let spec = spec(directory.path(), DETACHING);
        let running = tokio::spawn(async move { run(runtime(), &shim(), spec, stopped).await });
        let pids = pids(directory.path()).await;
        assert!(pids.iter().all(|pid| !is_gone(pid)));
        stop.send(()).unwrap();
        assert_eq!(running.await.unwrap().error.as_deref(), Some("it was ended"));
        assert!(pids.iter().all(|pid| is_gone(pid)));
    }

    #[tokio::test]
    async fn what_a_process_left_behind_is_gone_when_its_end_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        let script = "sh -c 'setsid sleep 1000 & echo $! > inner'; exit 4";
        let ending = run(runtime(), &shim(), spec(directory.path(), script), stop).await;
        assert_eq!(ending.error.as_deref(), Some("it ended with exit code 4"));
        let pid = std::fs::read_to_string(directory.path().join("inner")).unwrap();
        assert!(is_gone(pid.trim()));
    }

    #[tokio::test]
    async fn all_of_it_ends_with_whoever_runs_it_and_when_the_shim_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, stop) = oneshot::channel();
        let spec_of = |name: &str| {
            let directory = directory.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            (spec(&directory, DETACHING), directory)
        };
        let (spec, at) = spec_of("dropped");
        let running = tokio::spawn(async move { run(runtime(), &shim(), spec, stop).await });
        let left = pids(&at).await;
        running.abort();
        gone(&left).await;

        let (_keep, stop) = oneshot::channel();
        let (spec, at) = spec_of("killed");
        let running = tokio::spawn(async move { run(runtime(), &shim(), spec, stop).await });
        let left = pids(&at).await;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", left[1])).unwrap();
        let shim = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        let ending = running.await.unwrap();
        assert!(ending.retry && ending.error.as_ref().unwrap().contains("signal: 9"), "{ending:?}");
        gone(&left).await;
    }
}
