//! The shim: the process between an executor and one process of a job.
//!
//! An executor does not start a job's program by itself: it starts its own executable as a shim, which starts the program
//! and holds it. The shim ends when the program does, when the executor says so, and when the executor dies, however it
//! dies; and all that the program has started ends with it. As a *child subreaper* (prctl(2)) it is the parent of whatever
//! outlives its own parent below it, in however new a session: nothing gets away by detaching itself.
//!
//! ```text
//! executor ==socket as its standard input==> shim ==pipe that is only held open==> program --> whatever it starts
//!          <==== how it ended ==============  |   <============ pipes ===========     |
//!                                             |                                       \_ their memory is looked at
//!                                             \_ logs: what both pipes give, bounded
//! ```
//!
//! The program's output passes through the shim, so that there is one writer of each log and what is taken out of its
//! middle is counted exactly. A log that cannot be written is read on and told of: it must not stop the program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};
use situ_wire::codec;

use super::bounded_log::BoundedLog;
use super::descendants::{descendants, kill_descendants, resident_bytes};
use crate::program::environment::SHIM;

/// How often the program's memory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// At every so manieth look, the memory of all that it has started is looked at too: that means to read much of `/proc`.
const LOOK_AT_ALL: u32 = 40;
/// How long a killed process may take to be gone: one that waits for a broken disk takes for ever.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the ends of its logs may take once all are killed. Longer only for a pipe that somebody else holds open.
const LOG_LIMIT: Duration = Duration::from_secs(2);
/// How much of its output is read at a time.
const PIECE_LEN_BYTES: usize = 64 << 10;
/// How long to wait before what is still there is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// The exit code of a shim that nobody has told what to do.
const USAGE: u8 = 2;

/// What an executor tells its shim. Paths as the operating system has them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShimSpec {
    pub(super) program: OsString,
    pub(super) arguments: Vec<String>,
    pub(super) directory: OsString,
    pub(super) stdout: OsString,
    pub(super) stderr: OsString,
    pub(super) input_elsewhere: bool,
    pub(super) memory_bytes: u64,
    pub(super) log_len_bytes: u64,
}

/// What a shim says in the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ShimReport {
    /// How the program ended.
    pub(super) ending: ShimEnding,
    /// Why a log is not whole, if that is so.
    pub(super) log_error: Option<String>,
}

/// How a program ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum ShimEnding {
    /// It could not be started.
    NotStarted { error: String, retry: bool },
    /// It ended, with this wait status.
    Ended { status: i32 },
    /// It, or something that it started, used too much memory and was killed.
    TooMuchMemory { used_bytes: u64 },
    /// It was killed because the executor said so, or is gone.
    Killed,
}

/// Runs this process as a shim: what the executable that holds it calls.
#[must_use]
pub fn shim() -> ExitCode {
    let told = || -> io::Result<(UnixStream, ShimSpec)> {
        let mut control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let spec = read_frame(&mut control)?;
        Ok((control, codec::decode(&spec).map_err(io::Error::other)?))
    };
    let (mut control, spec) = match told() {
        Ok(told) => told,
        Err(error) => {
            return complain(&format!("a shim is started by an executor, which tells it what to run: {error}"));
        }
    };
    let report = match control.try_clone() {
        Ok(watched) => hold(watched, &spec).unwrap_or_else(not_started),
        Err(error) => not_started(error),
    };
    let told = codec::encode(&report).map_err(io::Error::other).and_then(|report| write_frame(&mut control, &report));
    match told {
        Ok(()) => ExitCode::SUCCESS,
        // The executor is gone, which is why.
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::print_stderr, reason = "nobody else would say why")]
fn complain(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(USAGE)
}

fn not_started(error: io::Error) -> ShimReport {
    let retry = matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock);
    ShimReport { ending: ShimEnding::NotStarted { error: error.to_string(), retry }, log_error: None }
}

/// Reads a message behind its length.
fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let mut bytes = Vec::new();
    let len = u64::from(u32::from_le_bytes(len));
    if from.take(len).read_to_end(&mut bytes)? as u64 == len {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn write_frame(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&frame(bytes)?)
}

/// A message behind its length.
pub(super) fn frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok([&len.to_le_bytes(), bytes].concat())
}

/// What a shim waits for.
enum Event {
    /// The executor has closed its end.
    Abandoned,
    /// The program has ended.
    Ended(i32),
    /// It has no children any more.
    Alone,
}

/// Starts the program and holds it to its end and that of all that it has started.
fn hold(control: UnixStream, spec: &ShimSpec) -> io::Result<ShimReport> {
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this))?;
    // Held to the end: when it closes, a program of ours notices that its shim is gone.
    let (held_open, _holder) = io::pipe()?;
    let (child, outputs) = start(spec, held_open)?;
    let logs = outputs.into_iter().map(keep).collect();
    let program = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let (sender, events) = mpsc::channel();
    let abandoned = sender.clone();
    std::thread::spawn(move || watch(control, &abandoned));
    std::thread::spawn(move || reap(program, &sender));
    let ending = watch_over(program, spec, &events);
    kill_all(this, &events);
    Ok(ShimReport { ending, log_error: await_logs(logs) })
}

/// What a program writes, and where it goes.
struct Output {
    pipe: io::PipeReader,
    log: BoundedLog,
    path: PathBuf,
}

/// Starts the program. Its standard output and standard error are one stream if they go to the same log; its standard
/// input is empty, and it finds the other end of what the shim holds open by [`SHIM`].
fn start(spec: &ShimSpec, held_open: io::PipeReader) -> io::Result<(std::process::Child, Vec<Output>)> {
    let open = |path: &OsString| {
        let (pipe, writer) = io::pipe()?;
        let log = BoundedLog::open(Path::new(path), spec.log_len_bytes)?;
        io::Result::Ok((writer, Output { pipe, log, path: path.into() }))
    };
    let (stdout, output) = open(&spec.stdout)?;
    let mut outputs = vec![output];
    let stderr = if spec.stderr == spec.stdout {
        stdout.try_clone()?
    } else {
        let (stderr, output) = open(&spec.stderr)?;
        outputs.push(output);
        stderr
    };
    let mut command = Command::new(PathBuf::from(&spec.program));
    command.args(&spec.arguments).current_dir(&spec.directory);
    // This process starts nothing else that would inherit it.
    rustix::io::fcntl_setfd(&held_open, FdFlags::empty())?;
    command.env(SHIM, format!("/proc/self/fd/{}", held_open.as_raw_fd()));
    // A group of its own: a program that signals its group means itself, not its shim. The command's ends of the pipes
    // are closed with it.
    let input = match spec.input_elsewhere {
        // No directory can be read as a file is.
        true => Stdio::from(File::open("/")?),
        false => Stdio::null(),
    };
    command.stdin(input).stdout(stdout).stderr(stderr).process_group(0);
    Ok((command.spawn()?, outputs))
}

/// Writes what the program does into its log until everybody has closed the other end of the pipe. What comes in the end
/// is how that went.
fn keep(mut output: Output) -> mpsc::Receiver<Result<(), String>> {
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let mut result = Ok(());
        let mut piece = vec![0; PIECE_LEN_BYTES];
        loop {
            let kept = match output.pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => output.log.append(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => {
                    result = Err(format!("what goes to {} cannot be read: {error}", output.path.display()));
                    break;
                }
            };
            // The first error is the one to tell; what comes later may be kept again.
            result = result.and(kept.map_err(|error| format!("{} cannot be written: {error}", output.path.display())));
        }
        // The shim may have stopped waiting.
        let _ = ended.send(result);
    });
    end
}

/// Waits until all logs are written to their ends; what went wrong with them.
fn await_logs(logs: Vec<mpsc::Receiver<Result<(), String>>>) -> Option<String> {
    let begun = Instant::now();
    let ends = logs.into_iter().map(|log| log.recv_timeout(LOG_LIMIT.saturating_sub(begun.elapsed())));
    let ends = ends.map(|end| end.unwrap_or_else(|_| Err("somebody else holds its output open".to_owned())));
    let errors: Vec<String> = ends.filter_map(Result::err).collect();
    if errors.is_empty() { None } else { Some(errors.join("; ")) }
}

/// Waits until the executor closes its end, by its will or by its death.
fn watch(mut control: UnixStream, events: &mpsc::Sender<Event>) {
    let mut byte = [0];
    // An executor says nothing more; an error means that it is gone.
    while matches!(control.read(&mut byte), Ok(1)) {}
    // The shim may be ending already.
    let _ = events.send(Event::Abandoned);
}

/// Waits for the ends of all children: the program, and what it has left behind.
fn reap(program: Pid, events: &mpsc::Sender<Event>) {
    loop {
        let event = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => Event::Ended(status.as_raw()),
            Ok(_) | Err(rustix::io::Errno::INTR) => continue,
            // There are none.
            Err(_) => Event::Alone,
        };
        let last = matches!(event, Event::Alone);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// Watches over the program until it must end or has.
fn watch_over(program: Pid, spec: &ShimSpec, events: &mpsc::Receiver<Event>) -> ShimEnding {
    for look in (1..=LOOK_AT_ALL).cycle() {
        match events.recv_timeout(LOOK) {
            Ok(Event::Ended(status)) => return ShimEnding::Ended { status },
            Ok(Event::Abandoned | Event::Alone) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let mut used = resident_bytes(program);
        if look == LOOK_AT_ALL {
            used = used.max(descendants(rustix::process::getpid()).into_iter().filter_map(resident_bytes).max());
        }
        if let Some(used_bytes) = used.filter(|used| *used > spec.memory_bytes) {
            return ShimEnding::TooMuchMemory { used_bytes };
        }
    }
    ShimEnding::Killed
}

/// Kills all that is below this process, again and again: what a dying process starts in its last moment too.
fn kill_all(this: Pid, events: &mpsc::Receiver<Event>) {
    let begun = Instant::now();
    while begun.elapsed() < KILL_LIMIT {
        kill_descendants(this);
        let event = events.recv_timeout(KILL_AGAIN);
        if matches!(event, Ok(Event::Alone) | Err(mpsc::RecvTimeoutError::Disconnected)) {
            return;
        }
    }
}
