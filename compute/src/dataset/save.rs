//! Writing datasets as files.

use std::panic::Location;
use std::sync::Arc;

use ordered_float::OrderedFloat;
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, Retry};
use situ_wire::ids::{ActionId, ClientId, JobId, OperationId, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::TaskFailure;
use situ_wire::path::DfsPath;

use super::graph::{ActionTask, Parent};
use super::{Context, Dataset};
use crate::core::is_job_directory;
use crate::program::error::{ProgramError, StorageError};
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::program::world::{Backend, Files};
use crate::text::Text;

/// How much is gathered before it is written.
const WRITE_LEN_BYTES: usize = 1 << 20;
/// Where attempts write, below the output directory.
const TEMPORARY: &str = "_temporary";
/// What says that the output is whole, and whose it is.
const SUCCESS: &str = "_SUCCESS";
/// How much of it is read: more than any job's id is long.
const SUCCESS_LEN_BYTES: usize = 64;

/// What can be a line of a text file.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a line of a text file",
    label = "does not say how it is written as a line",
    note = "lines are texts, numbers, and pairs and triples of these: make one of each record with `map`, as in `.map(|record| \
            format!(\"{{}} {{}}\", record.name, record.count))`, or implement `situ_compute::TextLine`"
)]
pub trait TextLine {
    /// Appends it to `line`, without a line break.
    fn append_to(&self, line: &mut Vec<u8>);
}

impl TextLine for Text {
    fn append_to(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self);
    }
}

impl TextLine for String {
    fn append_to(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.as_bytes());
    }
}

impl TextLine for &str {
    fn append_to(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.as_bytes());
    }
}

macro_rules! text_line_by_display {
    ($($type:ty),*) => {$(
        impl TextLine for $type {
            fn append_to(&self, line: &mut Vec<u8>) {
                use std::io::Write;
                write!(line, "{self}").expect("a vector takes everything");
            }
        }
    )*};
}

text_line_by_display!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char);

impl<F: TextLine> TextLine for OrderedFloat<F> {
    fn append_to(&self, line: &mut Vec<u8>) {
        self.0.append_to(line);
    }
}

/// With a tab between.
impl<A: TextLine, B: TextLine> TextLine for (A, B) {
    fn append_to(&self, line: &mut Vec<u8>) {
        self.0.append_to(line);
        line.push(b'\t');
        self.1.append_to(line);
    }
}

/// With tabs between.
impl<A: TextLine, B: TextLine, C: TextLine> TextLine for (A, B, C) {
    fn append_to(&self, line: &mut Vec<u8>) {
        self.0.append_to(line);
        line.push(b'\t');
        self.1.append_to(line);
        line.push(b'\t');
        self.2.append_to(line);
    }
}

impl<T: 'static> Dataset<T> {
    /// Writes each partition as a text file of the directory `path`, a record a line: `part-00000`, `part-00001` and so
    /// on, and `_SUCCESS`, whose one line is the id of the job (`job-12`). A tuple's parts stand with tabs between.
    ///
    /// Every attempt at a task writes aside, below `_temporary`; of each partition one attempt counts, and all files are
    /// published in one step, once. Before that step nothing is there, whatever fails. When the job fails or is killed,
    /// what was written aside is deleted, by the scheduler's order if its driver cannot; until then `_temporary` may be
    /// seen: a directory with nothing else in it does not count as existing.
    ///
    /// # Errors
    /// [`ProgramError::OutputExists`] when there is something at `path`, also when another job was first;
    /// [`ProgramError::Argument`] when that is `/`; or when the job fails.
    #[track_caller]
    pub fn save_as_text_file(&self, path: &str) -> Result<(), ProgramError>
    where
        T: TextLine,
    {
        let name = Context::name("save_as_text_file", Location::caller());
        let output = DfsPath::parse(path)?;
        if output.is_root() {
            let message = "the output must be a new directory, and / is there always".to_owned();
            return Err(ProgramError::Argument { operation: name, message });
        }
        let publication = match find_target(&self.context, &name, &output)? {
            Target::Free { publication } => publication,
            // As many actions as when it is written, so that what follows has the same numbers.
            Target::Published => return self.context.skip_action(&name),
            Target::Taken { by } => return Err(ProgramError::OutputExists { path: output.to_string(), job: by }),
        };
        let saved = self.write_and_publish(name, &output, publication);
        let backend = self.context.backend();
        let Some(files) = backend.driver_files() else { return saved.map(drop) };
        // Publishing has taken away what was written aside, unless a driver that was started anew after that has made the
        // directories again. What is there when an earlier driver has published belongs to others; and when it failed,
        // perhaps to a driver that has taken this one's place.
        let taken_away = match saved {
            Ok(true) => clean_up(files, &output, &backend.job_name()),
            Ok(false) => Ok(()),
            Err(_) => backend.take_away(&output),
        };
        if let Err(error) = taken_away {
            tracing::warn!(%output, error = error.message, "what was written aside stays for now");
        }
        saved.map(drop)
    }

    /// Lets tasks write aside, and publishes what those that count have written; whether it was this process that did.
    fn write_and_publish(&self, name: String, output: &DfsPath, publication: ActionId) -> Result<bool, ProgramError>
    where
        T: TextLine,
    {
        let backend = self.context.backend();
        let attempts = output.join(TEMPORARY)?.join(&backend.job_name())?.join(&self.id.to_string())?;
        let publishes = match backend.driver_files() {
            // First, so that whoever takes it away knows of it even when this process is killed in the next moment.
            Some(files) if !backend.publishing(publication, output)? => {
                // Here and not by the tasks: what comes late, when the output is published or given up, finds no place.
                files
                    .make_directory(&attempts)
                    .map_err(|error| ProgramError::Publish { path: output.to_string(), message: error.message })?;
                Some(files)
            }
            // A worker only follows; publishing is the driver's, and it may have done so in an earlier attempt.
            Some(_) | None => None,
        };
        let (compute, aside) = (Arc::clone(&self.compute), attempts.clone());
        let written = self.context.run_action(
            name.clone(),
            Parent::whole(&self.node),
            ActionTask {
                task: Arc::new(move |task, partition| {
                    let TaskAttemptId { partition: PartitionId(number), attempt, .. } = task.attempt();
                    let path = aside.join(&format!("{number}-{attempt}")).unwrap_or_else(|error| {
                        abort(TaskFailure::Storage { message: format!("the output's path: {error}"), transient: false })
                    });
                    write_lines(task, &path, compute(task, partition));
                    codec::encode(&path).expect("a path is short")
                }),
                checked: true,
                for_driver: true,
            },
        )?;
        let Some(files) = publishes else { return Ok(false) };
        let mut moves = Vec::with_capacity(written.parts.len() + 1);
        for (partition, from) in (0..).zip(&written.parts) {
            let from: DfsPath = codec::decode(from)
                .map_err(|error| ProgramError::Result { action: name.clone(), message: error.to_string() })?;
            moves.push((from, output.join(&part_name(partition))?));
        }
        // By its attempt at the driver: an earlier one may have left its own, or be writing it still.
        let success = attempts.join(&format!("success-{}", backend.attempt()))?;
        publish(files, &backend.job_name(), output, operation(backend, publication, output), (moves, success))?;
        backend.published(publication)?;
        Ok(true)
    }
}

/// What a save finds where it shall write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Target {
    /// Nothing: the publication is named by this action.
    Free { publication: ActionId },
    /// What this very save has published already: the scheduler was started anew before it knew.
    Published,
    /// Something else; of which job, if it says so.
    Taken { by: Option<JobId> },
}

/// Finds what there is at `output`. What the first attempt at the driver saw counts: a later one finds what the first has
/// published.
fn find_target(context: &Context, name: &str, output: &DfsPath) -> Result<Target, ProgramError> {
    let recorded = context.record(&format!("{name} (target)"), |action, files| {
        let publication = operation(context.backend(), action, output);
        let target = match exists(files, output) {
            Ok(false) => Ok(Target::Free { publication: action }),
            Ok(true) => is_published(files, output, publication).map(|published| match published {
                true => Target::Published,
                false => Target::Taken { by: publisher(files, output) },
            }),
            Err(error) => Err(error),
        };
        codec::encode(&target.map_err(|error| error.message)).expect("a short text can be encoded")
    })?;
    let recorded: Result<Target, String> = codec::decode(&recorded)
        .map_err(|error| ProgramError::Result { action: name.to_owned(), message: error.to_string() })?;
    recorded.map_err(|message| ProgramError::Publish { path: output.to_string(), message })
}

/// The operation that publishes at `output` what belongs to an action.
fn operation(backend: &dyn Backend, action: ActionId, output: &DfsPath) -> OperationId {
    let OperationId { client: ClientId(client), sequence } = backend.publication(action);
    let mut place = [0; 16];
    blake3::Hasher::new().update(output.as_str().as_bytes()).finalize_xof().fill(&mut place);
    OperationId { client: ClientId(client ^ u128::from_le_bytes(place)), sequence }
}

/// Whether that publication was carried out. No operation is carried out twice: it is asked for once more, as one that
/// makes no sense whatever there is, and if it was carried out the answer is that of the first time.
fn is_published(files: &dyn Files, output: &DfsPath, publication: OperationId) -> Result<bool, StorageError> {
    let removed = output.join(TEMPORARY)?;
    match files.publish(vec![(removed.clone(), removed.clone())], removed, publication) {
        Ok(()) => Ok(true),
        Err(error) if error.code.retry() == Retry::Never => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is something at `output` but what an unfinished job left.
fn exists(files: &dyn Files, output: &DfsPath) -> Result<bool, StorageError> {
    match files.stat(output)? {
        None => Ok(false),
        Some(entry) if entry.is_directory => {
            // An empty directory may be somebody's; one with only `_temporary` in it is not.
            let entries = files.list(output)?;
            Ok(entries.is_empty() || entries.iter().any(|entry| entry.path.name() != TEMPORARY))
        }
        Some(_) => Ok(true),
    }
}

/// The job that has published at `output`, if the file there says so that is made with it.
fn publisher(files: &dyn Files, output: &DfsPath) -> Option<JobId> {
    let mut input = files.open(&output.join(SUCCESS).ok()?, 0..SUCCESS_LEN_BYTES as u64).ok()?;
    let line = input.read_at(0, SUCCESS_LEN_BYTES).ok()?;
    let line = std::str::from_utf8(&line).ok()?.strip_suffix('\n')?;
    line.parse().ok().filter(|job: &JobId| job.to_string() == line)
}

fn part_name(partition: u32) -> String {
    format!("part-{partition:05}")
}

fn write_lines<T: TextLine>(task: &TaskContext, path: &DfsPath, records: impl Iterator<Item = T>) {
    let failed = |error: StorageError| -> ! { abort_storage(&taken_away(error, path)) };
    let mut output = task.world().files().create(path).unwrap_or_else(|error| failed(error));
    let mut lines = Vec::with_capacity(WRITE_LEN_BYTES + WRITE_LEN_BYTES / 8);
    let mut count = 0_u64;
    records.for_each(|record| {
        record.append_to(&mut lines);
        lines.push(b'\n');
        count += 1;
        if lines.len() >= WRITE_LEN_BYTES {
            task.go_on();
            let next = Vec::with_capacity(lines.capacity());
            let full = std::mem::replace(&mut lines, next);
            output.write(full.into()).unwrap_or_else(|error| failed(error));
        }
    });
    if !lines.is_empty() {
        output.write(lines.into()).unwrap_or_else(|error| failed(error));
    }
    output.close().unwrap_or_else(|error| failed(error));
    task.measure(|metrics| metrics.records += count);
}

/// What a save that has begun could not do with what it writes aside, at `aside` or below: if that is not there any more,
/// somebody has taken it away. Making the directory again would bring none of it back.
fn taken_away(error: StorageError, aside: &DfsPath) -> StorageError {
    if error.code != ErrorCode::NotFound {
        return error;
    }
    let message = format!(
        "{aside}: it is not there any more: the output directory was removed or moved away while the job ran; leave it \
         alone until the job has ended, and submit the job again"
    );
    StorageError { message, ..error }
}

/// Publishes the parts, and in the same step the file that names the job: it is written before, at `success`.
fn publish(
    files: &dyn Files,
    job: &str,
    output: &DfsPath,
    publication: OperationId,
    (mut moves, success): (Vec<(DfsPath, DfsPath)>, DfsPath),
) -> Result<(), ProgramError> {
    let named = write_line(files, &success, job);
    let aside = success.clone();
    moves.push((success, output.join(SUCCESS)?));
    let refused = match named {
        Err(error) if error.code.retry() != Retry::Never => error,
        // Where it found no place, an earlier driver may have published just now: asked for once more, that is done.
        _ => match files.publish(moves, output.join(TEMPORARY)?, publication) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
    };
    let refused = taken_away(refused, &aside);
    match publisher(files, output) {
        Some(other) if other.to_string() != job => {
            Err(ProgramError::OutputExists { path: output.to_string(), job: Some(other) })
        }
        _ => Err(ProgramError::Publish { path: output.to_string(), message: refused.message }),
    }
}

/// Writes a file of one line.
fn write_line(files: &dyn Files, path: &DfsPath, line: &str) -> Result<(), StorageError> {
    let mut output = files.create(path)?;
    output.write(format!("{line}\n").into())?;
    output.close()
}

/// Takes away what the attempts of a job have written below `output` and not published; all of it, when that is the job's
/// own directory.
///
/// # Errors
/// When that cannot be done now.
pub(crate) fn clean_up(files: &dyn Files, output: &DfsPath, job: &str) -> Result<(), StorageError> {
    if is_job_directory(output, job) {
        return take_away(files, output, true).map(drop);
    }
    let temporary = output.join(TEMPORARY)?;
    take_away(files, &temporary.join(job)?, true)?;
    // These only if nothing else is in them: another job may have begun to write to the same directory. And the output only
    // if it was for this: an empty one that somebody has made since is theirs.
    if take_away(files, &temporary, false)? {
        take_away(files, output, false)?;
    }
    Ok(())
}

/// Deletes what may be there; whether it was and is gone now. Without `recursive`, what holds something stays.
fn take_away(files: &dyn Files, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
    match files.delete(path, recursive) {
        // Somebody may have put a file where the directory was.
        Err(error) if matches!(error.code, ErrorCode::NotEmpty | ErrorCode::NotFound | ErrorCode::NotADirectory) => {
            Ok(false)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::dataset::Graph;
    use crate::program::world::{Entry, Input, InputBlock, InputStatistics, Output, Released, ScopePath};

    /// A driver whose actions are done already, and a namenode that notes what it is asked to change.
    #[derive(Default)]
    struct StartedAnew {
        /// Whether an earlier driver has told the scheduler that it has published.
        published: bool,
        /// Why nothing can be written aside any more.
        unwritable: Option<ErrorCode>,
        /// What another job has published as `_SUCCESS`: this one is refused.
        there: Option<&'static str>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    fn not_found() -> StorageError {
        StorageError { code: ErrorCode::NotFound, message: "it is not there".to_owned() }
    }

    /// What is written of a file, and where it is noted.
    struct Noted(String, Arc<Mutex<Vec<String>>>);

    impl Output for Noted {
        fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
            self.0 += std::str::from_utf8(&bytes).unwrap();
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<(), StorageError> {
            self.1.lock().unwrap().push(self.0);
            Ok(())
        }
    }

    struct Line(&'static str);

    impl Input for Line {
        fn read_at(&mut self, _: u64, _: usize) -> Result<Bytes, StorageError> {
            Ok(Bytes::from_static(self.0.as_bytes()))
        }

        fn statistics(&self) -> InputStatistics {
            InputStatistics::default()
        }
    }

    impl StartedAnew {
        fn note(&self, what: String) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl Backend for StartedAnew {
        fn run_action(&self, _: ActionId, _: &ScopePath, _: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
            let path = DfsPath::parse("/out/_temporary/job-1/dataset-0/0-0").unwrap();
            Ok(vec![codec::encode(&path).unwrap()])
        }

        fn wait_for_need(&self) -> Result<(), ProgramError> {
            unreachable!("no result is large")
        }

        fn record(
            &self,
            action: ActionId,
            _: &ScopePath,
            _: &mut dyn FnMut(&dyn Files) -> Bytes,
        ) -> Result<Bytes, ProgramError> {
            let recorded: Result<Target, String> = Ok(Target::Free { publication: action });
            Ok(codec::encode(&recorded).unwrap())
        }

        fn scope_outcome(&self, _: &ScopePath, _: &str) -> Result<Option<Bytes>, ProgramError> {
            unreachable!("it has no scopes")
        }

        fn end_scope(&self, _: &ScopePath, _: &str, _: Option<&str>, _: Bytes) -> Result<Bytes, ProgramError> {
            unreachable!("it has no scopes")
        }

        fn release(&self, _: Released) {}

        fn files(&self) -> &dyn Files {
            self
        }

        fn attempt(&self) -> u32 {
            1
        }

        fn driver_files(&self) -> Option<&dyn Files> {
            Some(self)
        }

        fn own_directory(&self) -> Result<DfsPath, ProgramError> {
            unreachable!("nothing is kept for the job")
        }

        fn publishing(&self, _: ActionId, _: &DfsPath) -> Result<bool, ProgramError> {
            Ok(self.published)
        }

        fn published(&self, action: ActionId) -> Result<(), ProgramError> {
            self.note(format!("published {action}"));
            Ok(())
        }

        fn take_away(&self, _: &DfsPath) -> Result<(), StorageError> {
            Ok(())
        }

        fn publication(&self, action: ActionId) -> OperationId {
            OperationId { client: ClientId(1), sequence: action.1.into() }
        }

        fn job_name(&self) -> String {
            "job-1".to_owned()
        }
    }

    impl Files for StartedAnew {
        fn stat(&self, _: &DfsPath) -> Result<Option<Entry>, StorageError> {
            Ok(None)
        }

        fn list(&self, _: &DfsPath) -> Result<Vec<Entry>, StorageError> {
            unreachable!("nothing is there")
        }

        fn blocks(&self, _: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
            unreachable!("nothing is read")
        }

        fn open(&self, path: &DfsPath, _: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
            assert_eq!(path.as_str(), "/out/_SUCCESS");
            self.there.map(|line| Box::new(Line(line)) as Box<dyn Input>).ok_or_else(not_found)
        }

        fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
            self.note(format!("make {path}"));
            Ok(())
        }

        fn make_own_directory(&self, _: &DfsPath) -> Result<(), StorageError> {
            unreachable!("nothing is kept for the job")
        }

        fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
            if let Some(code) = self.unwritable {
                return Err(StorageError { code, message: "it cannot be written".to_owned() });
            }
            Ok(Box::new(Noted(format!("write {path}: "), Arc::clone(&self.asked))))
        }

        fn publish(&self, moves: Vec<(DfsPath, DfsPath)>, _: DfsPath, _: OperationId) -> Result<(), StorageError> {
            if self.there.is_some() {
                return Err(StorageError { code: ErrorCode::AlreadyExists, message: "it is there".to_owned() });
            }
            let moves: Vec<String> = moves.iter().map(|(from, to)| format!("{} to {to}", from.name())).collect();
            self.note(format!("publish {}", moves.join(", ")));
            Ok(())
        }

        fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
            self.note(format!("delete {}{path}", if recursive { "all of " } else { "" }));
            Ok(true)
        }
    }

    fn save(backend: StartedAnew) -> (Result<(), ProgramError>, Vec<String>) {
        let asked = Arc::clone(&backend.asked);
        let context = Context::new(Arc::new(backend));
        let records: Dataset<String> =
            context.add("records".to_owned(), Vec::new(), 1, None, |_, _| unreachable!("no task runs"));
        let saved = records.save_as_text_file("/out");
        let asked = asked.lock().unwrap().clone();
        (saved, asked)
    }

    #[test]
    fn an_output_that_was_taken_away_is_told_as_that() {
        let aside = DfsPath::parse("/out/_temporary/job-1/dataset-0").unwrap();
        let said = |code| taken_away(StorageError { code, message: "make that first".to_owned() }, &aside).message;
        let gone = said(ErrorCode::NotFound);
        assert!(gone.contains("output directory was removed or moved away while the job ran"), "{gone}");
        assert!(gone.starts_with("/out/_temporary") && !gone.contains("make that first"), "{gone}");
        assert_eq!(said(ErrorCode::PermissionDenied), "make that first");
    }

    #[test]
    fn what_an_earlier_driver_has_published_is_left_alone_wherever_it_is_now() {
        assert_eq!(save(StartedAnew { published: true, ..StartedAnew::default() }), (Ok(()), Vec::new()));
        let (saved, all) = save(StartedAnew::default());
        saved.unwrap();
        let aside = all[0].strip_prefix("make ").unwrap();
        assert!(aside.starts_with("/out/_temporary/job-1/dataset-"), "{all:?}");
        let [named, publish, published, rest @ ..] = &all[1..] else { panic!("{all:?}") };
        assert_eq!(*named, format!("write {aside}/success-1: job-1\n"), "beside that of an earlier driver");
        assert_eq!(
            [publish, published],
            ["publish 0-0 to /out/part-00000, success-1 to /out/_SUCCESS", "published action-0"]
        );
        // Nothing of another job that writes to the same directory by now; and no empty directory stays.
        assert_eq!(rest, ["delete all of /out/_temporary/job-1", "delete /out/_temporary", "delete /out"]);
    }

    #[test]
    fn what_an_earlier_driver_publishes_at_this_very_moment_is_published() {
        let unwritable = |code| save(StartedAnew { unwritable: Some(code), ..StartedAnew::default() });
        let (saved, all) = unwritable(ErrorCode::NotFound);
        saved.unwrap();
        assert!(all.contains(&"published action-0".to_owned()) && !all.iter().any(|asked| asked.contains("write")));
        // While the file system is away nothing is asked of it.
        let (saved, all) = unwritable(ErrorCode::Unavailable);
        let message = "it cannot be written".to_owned();
        assert_eq!(saved, Err(ProgramError::Publish { path: "/out".to_owned(), message }));
        assert!(!all.iter().any(|asked| asked.contains("publish")), "{all:?}");
    }

    #[test]
    fn who_comes_second_is_told_who_was_first() {
        let second = |there, unwritable| save(StartedAnew { there: Some(there), unwritable, ..StartedAnew::default() });
        for unwritable in [None, Some(ErrorCode::NotFound)] {
            let (saved, all) = second("job-7\n", unwritable);
            let error = saved.unwrap_err();
            assert_eq!(error, ProgramError::OutputExists { path: "/out".to_owned(), job: Some(JobId(7)) });
            let told = "/out: the output directory exists already, as the output of job-7; delete it (`situ fs rm -r /out`) \
                        or name another";
            assert_eq!(error.to_string(), told);
            assert!(!all.contains(&"published action-0".to_owned()));
        }
        // It does not say, as of old, or it says nothing that is true.
        for unknown in ["", "job-1\n", "7\n", "job-7", "job-7\njob-8\n", "\u{7}"] {
            let expected = ProgramError::Publish { path: "/out".to_owned(), message: "it is there".to_owned() };
            assert_eq!(second(unknown, None).0, Err(expected), "{unknown:?}");
        }
    }
}
