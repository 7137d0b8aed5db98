//! The files and jobs that go on while processes are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use situ_wire::messages::scheduler::{JobState, Program};
use situ_wire::path::DfsPath;

use super::ledger::Ledger;
use crate::error::{CliError, CliResult};
use crate::fs::{PutOptions, put_reader};
use crate::quickstart::count::WordCount;
use crate::quickstart::text::TextMaker;
use crate::session::Session;

/// Small blocks, so that files have several.
const BLOCK_LEN_BYTES: u64 = 256 << 10;
/// How long the longest file is.
const FILE_LEN_BYTES: u64 = 1 << 20;
/// How long the jobs' input is.
const INPUT_LEN_BYTES: u64 = 2 << 20;
/// How many parts a job's result has.
const REDUCERS: u32 = 2;

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

/// Stores the jobs' input; gives the lines that a word count of it must give, sorted.
pub(super) async fn input(session: &Session, seed: u64) -> CliResult<Vec<Vec<u8>>> {
    let mut text = Vec::new();
    TextMaker::new(seed).write(INPUT_LEN_BYTES, &mut text, |_| ())?;
    let count = WordCount::of(&text[..], |_| ())?;
    let path = DfsPath::parse("/input").map_err(CliError::failed)?;
    let options = PutOptions { block_len_bytes: Some(BLOCK_LEN_BYTES), ..PutOptions::default() };
    put_reader(session, Box::new(std::io::Cursor::new(text)), "text", &path, &options, |_| ()).await?;
    Ok(count.lines())
}

/// Runs word counts until told to stop.
pub(super) async fn jobs(session: Arc<Session>, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) -> CliResult {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let output = format!("/counts/{number}");
        let arguments = vec!["/input".to_owned(), output.clone(), "--reducers".to_owned(), REDUCERS.to_string()];
        let program = Program::BuiltIn { name: "wordcount".to_owned() };
        let scheduler = session.client.scheduler();
        let job = match scheduler.submit(program, arguments).await {
            Ok(job) => job,
            Err(error) => {
                ledger.failed("submit", &error);
                continue;
            }
        };
        let mut revision = 0;
        let state = loop {
            match scheduler.changed_status(job, revision, std::time::Duration::from_secs(5)).await {
                Ok(status) if status.summary.state.is_final() => break Ok(status.summary.state),
                Ok(status) => revision = status.revision,
                Err(error) => break Err(error),
            }
        };
        match state {
            Ok(JobState::Succeeded) => {
                let pattern = format!("{output}/part-*");
                let mut bytes = Vec::new();
                match crate::fs::cat_paths(&session, std::slice::from_ref(&pattern), &mut bytes).await {
                    // The job is acknowledged: its result is looked at in the end in any case.
                    Err(error) => ledger.failed("read a result", &error),
                    Ok(()) if !ledger.is_right(&bytes) => {
                        return Err(CliError::failed(format!("{job} succeeded with a WRONG RESULT in {output}")));
                    }
                    Ok(()) => {}
                }
                ledger.entries().jobs.push((job, pattern));
            }
            Ok(state) => ledger.failed("job", &format!("{job} ended with {state:?}")),
            Err(error) => ledger.failed("job status", &error),
        }
    }
    Ok(())
}
