//! Text files as datasets of lines and of words.

use std::io::{self, BufRead, Read};
use std::panic::Location;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::messages::scheduler::{TaskFailure, TaskLocation};
use situ_wire::path::DfsPath;

use super::compression::{Codec, codec_of, disguised};
use super::pieces::{LineBreak, Pieces, READ_LEN_BYTES, ReadAt, Separator, WhiteSpace};
use super::places::Places;
use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::input;
use crate::program::reading::{self, Reading};
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::program::world::{Files, Input, InputBlock};
use crate::text::Text;

/// How text files are read.
///
/// ```no_run
/// # fn program(context: &situ_compute::Context) -> situ_compute::ProgramResult {
/// use situ_compute::TextOptions;
/// let lines = context.text_file_with("/logs", TextOptions::default().recursive(true))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TextOptions {
    recursive: bool,
    plain: bool,
}

impl TextOptions {
    /// Whether the files of directories within the input directory are read too, at any depth. Otherwise such a directory
    /// is an error; what starts with `.` or `_` is passed over either way.
    #[must_use]
    pub fn recursive(self, recursive: bool) -> Self {
        Self { recursive, ..self }
    }

    /// Whether files are read as they are, whatever their names end in: nothing is decoded, and nothing refused. For text
    /// whose name only looks like that of something compressed, as `coords.z`.
    #[must_use]
    pub fn plain(self, plain: bool) -> Self {
        Self { plain, ..self }
    }

    /// What decodes the file at `path`, if anything.
    fn codec_of(self, path: &DfsPath) -> Result<Option<Codec>, String> {
        if self.plain { Ok(None) } else { codec_of(path) }
    }
}

/// What a listing recorded of the input: its files, and their blocks.
#[derive(Serialize, Deserialize)]
struct Listing {
    files: Vec<(DfsPath, Vec<InputBlock>)>,
}

/// One partition: a range of a file, or all of a compressed one.
#[derive(Clone, Debug)]
struct Split {
    path: DfsPath,
    start: u64,
    end: u64,
    codec: Option<Codec>,
    /// It is text whatever it looks like.
    plain: bool,
}

impl Context {
    /// The lines of a text file, of all files of a directory but those whose names start with `.` or `_`, or of all files
    /// that match a pattern with `*`, `?`, `[..]` and `{..}`, as Hadoop's. A name that starts with `.` or `_` matches only a
    /// part of the pattern that starts so itself. A directory within the directory is an error: see
    /// [`Context::text_file_with`].
    ///
    /// A partition is one block. A line belongs to the partition that holds the line break before it, the first line of a
    /// file to the first; so each line is in exactly one partition. One that is longer than a task's share of the worker's
    /// memory (and than 1 MiB) ends the job. Lines come without their line break (`\n`; a `\r` before it is part of the
    /// line) and in no encoding in particular. What follows the last line break is a line only if there is something.
    ///
    /// A file whose name ends in `.gz`, `.zst`, `.bz2` or `.lz4` is decoded as it is read, and is one partition as a whole:
    /// many of the length of a block are read by many tasks, one large one by one. What is compressed otherwise, or damaged,
    /// or not what its ending says, is an error, unless [`TextOptions::plain`] has it read as it is.
    ///
    /// # Errors
    /// When there is no such file, one is still being written or compressed in another way, or the listing cannot be had.
    #[track_caller]
    pub fn text_file(&self, path: &str) -> Result<Dataset<Text>, ProgramError> {
        self.lines(Self::name("text_file", Location::caller()), path, TextOptions::default())
    }

    /// As [`Context::text_file`], with options.
    ///
    /// # Errors
    /// As for [`Context::text_file`].
    #[track_caller]
    pub fn text_file_with(&self, path: &str, options: TextOptions) -> Result<Dataset<Text>, ProgramError> {
        self.lines(Self::name("text_file_with", Location::caller()), path, options)
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
        self.words_in(Self::name("words", Location::caller()), path, TextOptions::default())
    }

    /// As [`Context::words`], with options.
    ///
    /// # Errors
    /// As for [`Context::text_file`].
    #[track_caller]
    pub fn words_with(&self, path: &str, options: TextOptions) -> Result<Dataset<Text>, ProgramError> {
        self.words_in(Self::name("words_with", Location::caller()), path, options)
    }

    fn lines(&self, name: String, path: &str, options: TextOptions) -> Result<Dataset<Text>, ProgramError> {
        self.text_input(name, path, options, |task, split| match split.codec {
            None => Records::new(pieces::<LineBreak>(task, split)),
            Some(codec) => Records::new(decoded::<LineBreak>(task, split, codec)),
        })
    }

    fn words_in(&self, name: String, path: &str, options: TextOptions) -> Result<Dataset<Text>, ProgramError> {
        self.text_input(name, path, options, |task, split| match split.codec {
            None => Records::new(pieces::<WhiteSpace>(task, split).flat_map(Text::into_words)),
            Some(codec) => Records::new(decoded::<WhiteSpace>(task, split, codec).flat_map(Text::into_words)),
        })
    }

    /// A dataset of what `read` makes of each split of the files that `path` names.
    fn text_input(
        &self,
        name: String,
        path: &str,
        options: TextOptions,
        read: impl Fn(&TaskContext, &Split) -> Records<Text> + Send + Sync + 'static,
    ) -> Result<Dataset<Text>, ProgramError> {
        let recorded = self.record(&name, |_, files| {
            let listing = list(files, path, options);
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
            let wrong = |message| ProgramError::Input { path: path.to_string(), message };
            if let Some(codec) = options.codec_of(&path).map_err(wrong)? {
                let end = blocks.last().map_or(0, |block| block.offset + block.len_bytes);
                preferred.push(nearest(&blocks));
                splits.push(Some(Split { path, start: 0, end, codec: Some(codec), plain: false }));
                continue;
            }
            for block in blocks {
                let (start, end) = (block.offset, block.offset + block.len_bytes);
                splits.push(Some(Split { path: path.clone(), start, end, codec: None, plain: options.plain }));
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
fn list(files: &dyn Files, path: &str, options: TextOptions) -> Result<Listing, String> {
    let mut listing = Listing { files: Vec::new() };
    for file in input::resolve(files, path, options.recursive)? {
        options.codec_of(&file)?;
        let blocks = files.blocks(&file).map_err(|error| error.message)?;
        listing.files.push((file, blocks));
    }
    Ok(listing)
}

/// Where most of a file lies, best first: as many places as its first block has.
fn nearest(blocks: &[InputBlock]) -> Vec<TaskLocation> {
    let mut places: Vec<(u64, &TaskLocation)> = Vec::new();
    for block in blocks {
        for location in &block.locations {
            match places.iter_mut().find(|(_, place)| *place == location) {
                Some((len_bytes, _)) => *len_bytes += block.len_bytes,
                None => places.push((block.len_bytes, location)),
            }
        }
    }
    places.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(other.1)));
    places.truncate(blocks.first().map_or(0, |block| block.locations.len()));
    places.into_iter().map(|(_, place)| place.clone()).collect()
}

fn pieces<S: Separator>(task: &TaskContext, split: &Split) -> Pieces<SplitReader, S> {
    Pieces::new(SplitReader::open(task, split, ""), split.start, split.end)
}

fn decoded<S: Separator>(task: &TaskContext, split: &Split, codec: Codec) -> Pieces<DecodedReader, S> {
    let reader = SplitReader::open(task, split, ", decoded,");
    let (task, path) = (task.clone(), split.path.clone());
    let source = Encoded { reader, offset: 0, chunk: Bytes::new() };
    let memory_bytes = task.world().task_memory_bytes();
    let decoder = codec.decode(source, memory_bytes).unwrap_or_else(|error| undecodable(&path, codec, 0, &error));
    let reader = DecodedReader { task, path, codec, decoder, offset: 0, is_done: false };
    // How much comes out is not known before.
    Pieces::new(reader, 0, u64::MAX)
}

/// Ends the task because a file is not what its ending says. To read it again would not help.
fn undecodable(path: &DfsPath, codec: Codec, offset: u64, error: &io::Error) -> ! {
    reading::forget();
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        _ => error.to_string(),
    };
    abort(TaskFailure::Program {
        message: format!(
            "{path}: it cannot be decoded as {}, as its name asks for, behind {offset} bytes of its content: {what}; store \
             it again whole, or under a name that says what it is",
            codec.name()
        ),
    })
}

/// Ends the task if a piece of a file takes more memory than it may.
fn check_len(task: &TaskContext, path: &DfsPath, what: &str, start: u64, len_bytes: usize) {
    // What is read at once may be one piece, however little memory there is.
    let limit_bytes = task.world().task_memory_bytes().max(READ_LEN_BYTES as u64);
    if len_bytes as u64 > limit_bytes {
        reading::forget();
        abort(TaskFailure::Program {
            message: format!(
                "{path}: the {what} that starts at byte {start} is over {limit_bytes} bytes, which is all the memory that a \
                 task may use for it; raise worker_memory_bytes of the executors, or break the {what} up"
            ),
        });
    }
}

/// Reads for a task and counts for it.
struct SplitReader {
    task: TaskContext,
    path: DfsPath,
    input: Box<dyn Input>,
    plain: bool,
    /// Says so while it lives.
    _reading: Reading,
}

impl SplitReader {
    fn open(task: &TaskContext, split: &Split, offsets: &str) -> Self {
        match task.world().files().open(&split.path, split.start..split.end) {
            Ok(input) => {
                let _reading = Reading::begin(&split.path, offsets);
                Self { task: task.clone(), path: split.path.clone(), input, plain: split.plain, _reading }
            }
            Err(error) => abort_storage(&error),
        }
    }

    fn read(&mut self, offset: u64, len_bytes: usize) -> Bytes {
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
}

impl ReadAt for SplitReader {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes {
        let bytes = self.read(offset, len_bytes);
        if offset == 0
            && !self.plain
            && let Some(what) = disguised(&bytes)
        {
            reading::forget();
            let message = format!(
                "{}: it is read as text, as its name says, but its content is {what}; TextOptions::plain reads it all the same",
                self.path
            );
            abort(TaskFailure::Program { message });
        }
        bytes
    }

    #[inline]
    fn note(&self, offset: u64) {
        reading::at(offset);
    }

    fn check_len(&self, what: &str, start: u64, len_bytes: usize) {
        check_len(&self.task, &self.path, what, start, len_bytes);
    }
}

/// A compressed file as it is stored, from its beginning to its end.
struct Encoded {
    reader: SplitReader,
    /// Where the next chunk is read.
    offset: u64,
    chunk: Bytes,
}

impl BufRead for Encoded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            self.chunk = self.reader.read(self.offset, READ_LEN_BYTES);
            self.offset += self.chunk.len() as u64;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, len: usize) {
        self.chunk.advance(len);
    }
}

impl Read for Encoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(buffer)?;
        self.consume(len);
        Ok(len)
    }
}

/// The content of a compressed file, in order.
struct DecodedReader {
    task: TaskContext,
    path: DfsPath,
    codec: Codec,
    decoder: Box<dyn Read>,
    /// How much has come out.
    offset: u64,
    is_done: bool,
}

impl ReadAt for DecodedReader {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes {
        assert_eq!(offset, self.offset, "a compressed file is read in order");
        self.task.go_on();
        let mut content = vec![0; if self.is_done { 0 } else { len_bytes }];
        let mut len = 0;
        while len < content.len() && !self.is_done {
            match self.decoder.read(&mut content[len..]) {
                Ok(more) => (len, self.is_done) = (len + more, more == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => undecodable(&self.path, self.codec, self.offset + len as u64, &error),
            }
        }
        content.truncate(len);
        self.offset += len as u64;
        content.into()
    }

    #[inline]
    fn note(&self, offset: u64) {
        reading::at(offset);
    }

    fn check_len(&self, what: &str, start: u64, len_bytes: usize) {
        check_len(&self.task, &self.path, what, start, len_bytes);
    }
}
