//! Text files as datasets of lines and of words.

use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::messages::scheduler::TaskFailure;
use situ_wire::path::DfsPath;

use super::pieces::{LineBreak, Pieces, READ_LEN_BYTES, ReadAt, Separator, WhiteSpace};
use super::places::Places;
use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::input;
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::program::world::{Files, Input, InputBlock};
use crate::text::Text;

/// What a listing recorded of the input: its files, and their blocks.
#[derive(Serialize, Deserialize)]
struct Listing {
    files: Vec<(DfsPath, Vec<InputBlock>)>,
}

/// One partition: a range of a file; none where there is nothing at all.
#[derive(Clone, Debug)]
struct Split {
    path: DfsPath,
    start: u64,
    end: u64,
}

impl Context {
    /// The lines of a text file, of all files of a directory but those whose names start with `.` or `_`, or of all files
    /// that match a pattern with `*`, `?`, `[..]` and `{..}`. A name that starts with `.` or `_` matches only a part of the
    /// pattern that starts so itself.
    ///
    /// A partition is one block. A line belongs to the partition that holds the line break before it, the first line of a
    /// file to the first; so each line is in exactly one partition. One that is longer than a task's share of the worker's
    /// memory (and than 1 MiB) ends the job. Lines come without their line break (`\n`; a `\r` before it is part of the
    /// line) and in no encoding in particular. What follows the last line break is a line only if there is something.
    ///
    /// # Errors
    /// When there is no such file, one is still being written, or the listing cannot be had.
    #[track_caller]
    pub fn text_file(&self, path: &str) -> Result<Dataset<Text>, ProgramError> {
        let name = Self::name("text_file", Location::caller());
        self.text_input(name, path, |task, split| Records::new(pieces::<LineBreak>(task, split)))
    }

    /// The words of text files, which are named as for [`Context::text_file`]: what ASCII white space separates, as bytes;
    /// never empty.
    ///
    /// The same as the words of the lines, and faster to come by; and no line is too long. A word belongs to the partition
    /// that holds the white space before it. One that is longer than a task's share of the worker's memory (and than 1 MiB)
    /// ends the job.
    ///
    /// # Errors
    /// As for [`Context::text_file`].
    #[track_caller]
    pub fn words(&self, path: &str) -> Result<Dataset<Text>, ProgramError> {
        let name = Self::name("words", Location::caller());
        self.text_input(name, path, |task, split| {
            Records::new(pieces::<WhiteSpace>(task, split).flat_map(Text::into_words))
        })
    }

    /// A dataset of what `read` makes of each block of the files that `path` names.
    fn text_input(
        &self,
        name: String,
        path: &str,
        read: impl Fn(&TaskContext, &Split) -> Records<Text> + Send + Sync + 'static,
    ) -> Result<Dataset<Text>, ProgramError> {
        let recorded = self.record(&name, |_, files| {
            let listing = list(files, path);
            codec::encode(&listing).unwrap_or_else(|error| {
                let message: Result<Listing, String> = Err(format!("too many input files for one job: {error}"));
                codec::encode(&message).expect("a short text can be encoded")
            })
        })?;
        let listing: Result<Listing, String> = codec::decode(&recorded)
            .map_err(|error| ProgramError::Result { action: name.clone(), message: error.to_string() })?;
        let listing = listing.map_err(|message| ProgramError::Input { path: path.to_owned(), message })?;
        let mut splits = Vec::new();
        let mut preferred = Vec::new();
        for (path, blocks) in listing.files {
            for block in blocks {
                let (start, end) = (block.offset, block.offset + block.len_bytes);
                splits.push(Some(Split { path: path.clone(), start, end }));
                preferred.push(block.locations);
            }
        }
        if splits.is_empty() {
            splits.push(None);
            preferred.push(Vec::new());
        }
        let partitions = u32::try_from(splits.len()).map_err(|_| ProgramError::Input {
            path: path.to_owned(),
            message: format!("{} blocks are too many for one dataset", splits.len()),
        })?;
        Ok(self.add(name, Vec::new(), partitions, Some(Arc::new(Places::Each(preferred))), move |task, partition| {
            match &splits[partition as usize] {
                Some(split) => read(task, split),
                None => Records::new(std::iter::empty()),
            }
        }))
    }
}

/// What `path` names, or what is wrong with it.
fn list(files: &dyn Files, path: &str) -> Result<Listing, String> {
    let mut listing = Listing { files: Vec::new() };
    for file in input::resolve(files, path)? {
        let blocks = files.blocks(&file).map_err(|error| error.message)?;
        listing.files.push((file, blocks));
    }
    Ok(listing)
}

fn pieces<S: Separator>(task: &TaskContext, split: &Split) -> Pieces<SplitReader, S> {
    match task.world().files().open(&split.path, split.start..split.end) {
        Ok(input) => {
            let reader = SplitReader { task: task.clone(), path: split.path.clone(), input };
            Pieces::new(reader, split.start, split.end)
        }
        Err(error) => abort_storage(&error),
    }
}

/// Reads for a task and counts for it.
struct SplitReader {
    task: TaskContext,
    path: DfsPath,
    input: Box<dyn Input>,
}

impl ReadAt for SplitReader {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes {
        self.task.go_on();
        let before = self.input.statistics();
        match self.input.read_at(offset, len_bytes) {
            Ok(bytes) => {
                let after = self.input.statistics();
                self.task.measure(|metrics| {
                    metrics.input_bytes += bytes.len() as u64;
                    metrics.remote_bytes += after.remote_bytes - before.remote_bytes;
                    metrics.failovers += after.failovers - before.failovers;
                });
                bytes
            }
            Err(error) => abort_storage(&error),
        }
    }

    fn check_len(&self, what: &str, start: u64, len_bytes: usize) {
        // What is read at once may be one piece, however little memory there is.
        let limit_bytes = self.task.world().task_memory_bytes().max(READ_LEN_BYTES as u64);
        if len_bytes as u64 > limit_bytes {
            abort(TaskFailure::Program {
                message: format!(
                    "{}: the {what} that starts at byte {start} is over {limit_bytes} bytes, which is all the memory that a \
                     task may use for it; raise worker_memory_bytes of the executors, or break the {what} up",
                    self.path
                ),
            });
        }
    }
}
