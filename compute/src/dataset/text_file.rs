//! Text files as datasets of lines.

use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::messages::scheduler::TaskFailure;
use situ_wire::path::DfsPath;

use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::input;
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::program::world::{Files, Input, InputBlock};
use crate::text::Text;

/// How much of a block is read at a time.
const READ_LEN_BYTES: usize = 1 << 20;
/// How much is read at a time behind the end of a block, to find the end of a line.
const TAIL_LEN_BYTES: usize = 16 << 10;

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
        Ok(self.add(name, Vec::new(), partitions, Some(Arc::new(preferred)), move |task, partition| {
            match &splits[partition as usize] {
                Some(split) => read_lines(task, split),
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

fn read_lines(task: &TaskContext, split: &Split) -> Records<Text> {
    match task.world().files().open(&split.path, split.start..split.end) {
        Ok(input) => {
            let reader = SplitReader { task: task.clone(), path: split.path.clone(), input };
            Records::new(Lines::new(reader, split.start, split.end))
        }
        Err(error) => abort_storage(&error),
    }
}

/// Where [`Lines`] reads from. Fails by ending the task.
trait ReadAt {
    /// Up to `len_bytes` bytes from `offset` on; none at the end of the file.
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes;

    /// Accepts that a line that starts at `start` is at least `len_bytes` long.
    fn check_line(&self, start: u64, len_bytes: usize);
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

    fn check_line(&self, start: u64, len_bytes: usize) {
        // What is read at once may be one line, however little memory there is.
        let limit_bytes = self.task.world().task_memory_bytes().max(READ_LEN_BYTES as u64);
        if len_bytes as u64 > limit_bytes {
            abort(TaskFailure::Program {
                message: format!(
                    "{}: the line that starts at byte {start} is over {limit_bytes} bytes, which is all the memory that a \
                     task may use for it; raise worker_memory_bytes of the executors, or break the line",
                    self.path
                ),
            });
        }
    }
}

/// The lines of a split.
struct Lines<R> {
    reader: R,
    /// Where the split ends.
    end: u64,
    /// Where the next bytes are read.
    offset: u64,
    /// Bytes of the split that have been read.
    chunk: Bytes,
    /// How many of them are done.
    at: usize,
    /// The beginning of a line that goes on in the next chunk.
    carried: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The line that the split begins in belongs to the one before.
    Skipping,
    /// Lines come.
    Within,
    /// The last line has come.
    Done,
}

impl<R: ReadAt> Lines<R> {
    fn new(reader: R, start: u64, end: u64) -> Self {
        let state = if start == 0 { State::Within } else { State::Skipping };
        Self { reader, end, offset: start, chunk: Bytes::new(), at: 0, carried: Vec::new(), state }
    }

    /// Reads the next chunk of the split; false at its end.
    fn fill(&mut self) -> bool {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        if left == 0 {
            return false;
        }
        self.chunk = self.reader.read_at(self.offset, left.min(READ_LEN_BYTES));
        self.at = 0;
        self.offset += self.chunk.len() as u64;
        !self.chunk.is_empty()
    }

    /// Gets to where lines come, past the line break that ends the line before the first; false if none come.
    fn begin(&mut self) -> bool {
        match self.state {
            State::Within => return true,
            State::Done => return false,
            State::Skipping => {}
        }
        while self.fill() {
            if let Some(position) = memchr(b'\n', &self.chunk) {
                self.at = position + 1;
                self.state = State::Within;
                return true;
            }
        }
        self.state = State::Done;
        false
    }

    /// The next line that ends in the chunk.
    #[inline]
    fn next_in_chunk(&mut self) -> Option<Text> {
        let start = self.at;
        let len = memchr(b'\n', &self.chunk[start..])?;
        self.at = start + len + 1;
        if self.carried.is_empty() {
            return Some(Text::slice_of(&self.chunk, start..start + len));
        }
        let rest = self.chunk.slice(start..start + len);
        self.carry(self.offset - (self.chunk.len() - start) as u64, &rest);
        Some(Text::from(std::mem::take(&mut self.carried)))
    }

    /// Adds bytes, which stand at `offset`, to the line that is carried on.
    #[inline(never)]
    fn carry(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset - self.carried.len() as u64;
        self.reader.check_line(start, self.carried.len() + bytes.len());
        self.carried.extend_from_slice(bytes);
    }

    /// Goes on to the next chunk, in which lines may end; none at the end of the split.
    fn advance(&mut self) -> bool {
        let rest = self.chunk.slice(self.at..);
        self.carry(self.offset - rest.len() as u64, &rest);
        self.at = self.chunk.len();
        self.fill()
    }

    /// The line that the split ends in, or that starts right behind it; it ends behind the split.
    fn tail(&mut self) -> Option<Text> {
        self.state = State::Done;
        loop {
            let chunk = self.reader.read_at(self.offset, TAIL_LEN_BYTES);
            if chunk.is_empty() && self.carried.is_empty() {
                return None;
            }
            let line_break = memchr(b'\n', &chunk);
            self.carry(self.offset, &chunk[..line_break.unwrap_or(chunk.len())]);
            self.offset += chunk.len() as u64;
            if line_break.is_some() || chunk.is_empty() {
                return Some(Text::from(std::mem::take(&mut self.carried)));
            }
        }
    }
}

impl<R: ReadAt> Iterator for Lines<R> {
    type Item = Text;

    fn next(&mut self) -> Option<Text> {
        if !self.begin() {
            return None;
        }
        loop {
            if let Some(line) = self.next_in_chunk() {
                return Some(line);
            }
            if !self.advance() {
                return self.tail();
            }
        }
    }

    fn fold<B, F: FnMut(B, Text) -> B>(mut self, init: B, mut f: F) -> B {
        let mut accumulator = init;
        if !self.begin() {
            return accumulator;
        }
        loop {
            while let Some(line) = self.next_in_chunk() {
                accumulator = f(accumulator, line);
            }
            if !self.advance() {
                break;
            }
        }
        match self.tail() {
            Some(line) => f(accumulator, line),
            None => accumulator,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads from memory, in chunks that are shorter than asked for.
    struct Memory<'a> {
        bytes: &'a Bytes,
        limit: usize,
    }

    impl ReadAt for Memory<'_> {
        fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes {
            let start = usize::try_from(offset).unwrap().min(self.bytes.len());
            self.bytes.slice(start..self.bytes.len().min(start + len_bytes.min(self.limit)))
        }

        fn check_line(&self, start: u64, len_bytes: usize) {
            let start = usize::try_from(start).unwrap();
            assert!(start == 0 || self.bytes[start - 1] == b'\n', "a line starts at {start}");
            assert!(!self.bytes[start..start + len_bytes].contains(&b'\n'), "it is {len_bytes} bytes long");
        }
    }

    fn lines_by_split(bytes: &Bytes, block: usize, limit: usize, push: bool) -> Vec<Text> {
        let mut lines = Vec::new();
        for start in (0..bytes.len()).step_by(block) {
            let end = (start + block).min(bytes.len());
            let split = Lines::new(Memory { bytes, limit }, start as u64, end as u64);
            if push {
                split.for_each(|line| lines.push(line));
            } else {
                let mut split = split;
                for line in split.by_ref() {
                    lines.push(line);
                }
                assert_eq!(split.next(), None, "the end stays the end");
            }
        }
        lines
    }

    fn expected(bytes: &[u8]) -> Vec<Text> {
        let mut lines: Vec<Text> = bytes.split(|byte| *byte == b'\n').map(Text::from).collect();
        // What follows the last line break is a line only if there is something.
        lines.pop_if(|last| last.is_empty());
        lines
    }

    proptest! {
        #[test]
        fn splits_hold_every_line_once(
            bytes in proptest::collection::vec(prop_oneof![2 => Just(b'\n'), 5 => Just(b'x'), 1 => any::<u8>()], 0..120),
            block in 1_usize..40,
            limit in 1_usize..20,
        ) {
            let expected = expected(&bytes);
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(&lines_by_split(&bytes, block, limit, false), &expected);
            prop_assert_eq!(&lines_by_split(&bytes, block, limit, true), &expected);
        }
    }

    #[test]
    fn every_block_length_cuts_a_text_into_the_same_lines() {
        let text = Bytes::from_static(b"one\n\ntwo three\nfour\r\n\xff\xfe\nthe last line is longer than a block");
        for block in 1..=text.len() + 1 {
            assert_eq!(lines_by_split(&text, block, 7, true), expected(&text), "blocks of {block} bytes");
        }
    }
}
