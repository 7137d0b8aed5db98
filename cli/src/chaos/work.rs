//! The files and jobs that go on while processes are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobState, Program};
use situ_wire::path::DfsPath;

use super::ledger::{Expected, JobOutput, Ledger, SUCCESS};
use super::programs;
use crate::error::{CliError, CliResult};
use crate::fs::{PutOptions, put_reader};
use crate::quickstart::count::WordCount;
use crate::quickstart::text::TextMaker;
use crate::session::Session;

/// Small blocks, so that files have several.
const BLOCK_LEN_BYTES: u64 = 256 << 10;
/// How long the longest file is.
const FILE_LEN_BYTES: u64 = 1 << 20;
/// How long the files of the jobs' input are: of many blocks, of one, and next to nothing.
const INPUT_LENS_BYTES: [u64; 7] = [900 << 10, 0, 300 << 10, 10, 5_000, 40 << 10, 260 << 10];
/// Where it lies, where jobs save, and where some of it is moved.
pub(super) const INPUT: &str = "/input";
pub(super) const OUTPUT: &str = "/outputs";
pub(super) const MOVED: &str = "/moved";
/// How long one look at a job waits for news.
const LOOK: Duration = Duration::from_secs(1);
/// How long a job may take to its end when nothing befalls anybody any more.
const PEACE_LIMIT: Duration = Duration::from_secs(180);

/// Stores, replaces and deletes files until told to stop.
pub(super) async fn files(session: Arc<Session>, ledger: Arc<Ledger>, stop: Arc<AtomicBool>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(path) = DfsPath::parse(&format!("/files/{seed:x}-{number}")) else { return };
        let len = rng.u64(0..=FILE_LEN_BYTES);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(usize::try_from(len).unwrap_or(0)).collect();
        let hash = blake3::hash(&bytes);
        let options = PutOptions { block_len_bytes: Some(BLOCK_LEN_BYTES), ..PutOptions::default() };
        let reader = Box::new(std::io::Cursor::new(bytes));
        match put_reader(&session, reader, "bytes", &path, &options, |_| ()).await {
            Err(error) => ledger.failed("put", &error),
            // One in eight is deleted again: what is deleted must not come back.
            Ok(_) if rng.u8(0..8) == 0 => match session.client.delete(&path, false).await {
                Ok(_) => ledger.entries().deleted.push(path),
                Err(error) => ledger.failed("delete", &error),
            },
            Ok(_) => ledger.entries().files.push((path, hash)),
        }
    }
}

/// What the jobs read, and what they must give.
#[derive(Debug)]
pub(super) struct Input {
    counted: Arc<Expected>,
    joined: Arc<Expected>,
}

/// Stores the jobs' input: files of very different lengths. Counts its words in one thread.
pub(super) async fn input(session: &Session, seed: u64) -> CliResult<Input> {
    let mut maker = TextMaker::new(seed);
    let mut all = Vec::new();
    for (number, len_bytes) in INPUT_LENS_BYTES.into_iter().enumerate() {
        let mut text = Vec::new();
        maker.write(len_bytes, &mut text, |_| ())?;
        all.extend_from_slice(&text);
        let path = DfsPath::parse(&format!("{INPUT}/{number}")).map_err(CliError::failed)?;
        let options = PutOptions { block_len_bytes: Some(BLOCK_LEN_BYTES), ..PutOptions::default() };
        put_reader(session, Box::new(std::io::Cursor::new(text)), "text", &path, &options, |_| ()).await?;
    }
    let mut lines = WordCount::of(&all[..], |_| ())?.lines();
    lines.iter_mut().for_each(|line| line.push(b'\n'));
    let parts = programs::PARTITIONS as usize;
    let counted = Expected { parts, lines: lines.clone(), in_order: false };
    Ok(Input { counted: Arc::new(counted), joined: Arc::new(Expected { parts, lines, in_order: true }) })
}

/// Runs jobs until told to stop: word counts, and programs of several stages with persisted data and two outputs. The last
/// one must come to its end.
pub(super) async fn jobs(session: Arc<Session>, ledger: Arc<Ledger>, input: Input, stop: Arc<AtomicBool>) -> CliResult {
    let round = Round { session: &session, ledger: &ledger, stop: &stop };
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let output = DfsPath::parse(&format!("{OUTPUT}/{number}")).map_err(CliError::failed)?;
        match number % 3 {
            0 => round.word_count(&input, output).await,
            moves => round.detours(&input, &output, (moves == 1, number % 2 == 1)).await?,
        }
    }
    Ok(())
}

/// An output that is moved away as soon as it is published.
struct Moving {
    from: DfsPath,
    to: DfsPath,
    success: DfsPath,
    done: bool,
}

/// What all jobs share.
struct Round<'a> {
    session: &'a Session,
    ledger: &'a Ledger,
    stop: &'a AtomicBool,
}

impl Round<'_> {
    async fn word_count(&self, input: &Input, output: DfsPath) {
        let reducers = programs::PARTITIONS.to_string();
        let arguments = [INPUT, output.as_str(), "--reducers", &reducers];
        let Some(job) = self.submit("wordcount", &arguments).await else { return };
        if self.finish(job, None).await {
            self.published(job, output, &input.counted).await;
        }
    }

    /// A job with two outputs; with `moves`, the first one is moved away as soon as it is published. Perhaps it saves both at
    /// once.
    async fn detours(&self, input: &Input, output: &DfsPath, (moves, at_once): (bool, bool)) -> CliResult {
        let mut arguments = vec![INPUT, output.as_str()];
        arguments.extend(at_once.then_some(programs::AT_ONCE));
        let Some(job) = self.submit(programs::DETOURS, &arguments).await else { return Ok(()) };
        let (counted, joined) = (join(output, "counted")?, join(output, "joined")?);
        let to = DfsPath::parse(&format!("{MOVED}/{job}")).map_err(CliError::failed)?;
        let success = join(&counted, SUCCESS)?;
        let mut moving = Moving { from: counted.clone(), to: to.clone(), success, done: !moves };
        let succeeded = self.finish(job, Some(&mut moving)).await;
        // A move that was not acknowledged may have been made.
        let moved = moves
            && self.session.client.exists(&to).await.unwrap_or_else(|error| {
                self.ledger.failed("look for an output that was moved", &error);
                moving.done
            });
        if moved {
            self.ledger.entries().moved.push((job, counted.clone()));
            self.published(job, to, &input.joined).await;
        }
        if succeeded {
            if !moved {
                self.published(job, counted, &input.joined).await;
            }
            self.published(job, joined, &input.joined).await;
        }
        Ok(())
    }

    async fn submit(&self, program: &str, arguments: &[&str]) -> Option<JobId> {
        let program = Program::BuiltIn { name: program.to_owned() };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        match self.session.client.scheduler().submit(program, arguments).await {
            Ok(job) => Some(job),
            Err(error) => {
                self.ledger.failed("submit", &error);
                None
            }
        }
    }

    /// Waits for a job's end. Says whether it succeeded.
    async fn finish(&self, job: JobId, mut moving: Option<&mut Moving>) -> bool {
        let (mut revision, mut peace) = (0, None);
        loop {
            let status = match self.session.client.scheduler().changed_status(job, revision, LOOK).await {
                Ok(status) => status,
                Err(error) => {
                    self.ledger.failed("job status", &error);
                    return false;
                }
            };
            revision = status.revision;
            if let Some(moving) = &mut moving {
                // What cannot be done now is done when the job has moved on.
                if let Err(error) = moving.go_on(self.session).await {
                    self.ledger.failed("move an output", &error);
                }
            }
            match status.summary.state {
                JobState::Succeeded => {
                    self.ledger.entries().jobs.push(job);
                    return true;
                }
                JobState::Failed { reason } | JobState::Killed { reason } => {
                    // Every job has a directory of its own: what is there is of itself.
                    if reason.contains("exists already") {
                        self.ledger.broken(format!("{job}: failed FALSELY: {reason}"));
                    }
                    self.ledger.failed("job", &format!("{job}: {reason}"));
                    return false;
                }
                JobState::Waiting | JobState::Running => {}
            }
            if self.stop.load(Ordering::Relaxed) && peace.get_or_insert_with(Instant::now).elapsed() > PEACE_LIMIT {
                let stages = status.stages;
                self.ledger.broken(format!("{job}: HANGS {PEACE_LIMIT:?} after the last fault: {stages:?}"));
                return false;
            }
        }
    }

    /// Enters what a job has published, and says at once what is wrong with it.
    async fn published(&self, job: JobId, path: DfsPath, expected: &Arc<Expected>) {
        // It is looked at again in the end: what cannot be read now may be read then, but wrong lines stay wrong.
        if let Some(how) = expected.differs(self.session, job, &path).await {
            self.ledger.failed("read a result", &format!("{job}, {path}: {how}"));
        }
        self.ledger.entries().outputs.push(JobOutput { job, path, expected: Arc::clone(expected) });
    }
}

impl Moving {
    /// Moves it if it is there and has not been moved.
    async fn go_on(&mut self, session: &Session) -> CliResult {
        if !self.done && session.client.exists(&self.success).await? {
            session.client.rename(&self.from, &self.to, false).await?;
            self.done = true;
        }
        Ok(())
    }
}

fn join(path: &DfsPath, name: &str) -> CliResult<DfsPath> {
    path.join(name).map_err(CliError::failed)
}
