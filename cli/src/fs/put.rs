//! `put`: local files to the cluster.
//!
//! A file is written aside and renamed when it is whole and durable, so that its name never shows a part of it, and what
//! stood there before stays until then. What is written aside goes when the put fails; when this process is killed, the
//! namenode deletes it once the lease is over. Its name is one of its own, so that nobody who puts the same file again
//! has to wait for that.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use situ_client::{CreateOptions, FileWriter};
use situ_runtime::real::RealRuntime;
use situ_wire::error::ErrorCode;
use situ_wire::messages::datanode::Durability;
use situ_wire::path::DfsPath;
use tokio::sync::mpsc;

use super::Copied;
use super::paths::Target;
use crate::args::{DurabilityArg, PutArgs};
use crate::error::{CliError, CliResult, Failures, LocalContext};
use crate::session::{DIRECTORY_MODE, Session};
use crate::show::{self, Progress};

/// How much is read at once.
const PIECE_LEN_BYTES: usize = 1 << 20;
/// How many pieces are read ahead.
const PIECES_AHEAD: usize = 4;
/// How long a put that has failed waits until what it had written is deleted. When the namenode is away that long, it
/// deletes it by itself later.
const CLEAN_LIMIT: Duration = Duration::from_secs(5);

/// How a file is stored.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Whether a file that is there is replaced.
    pub force: bool,
    /// How many replicas.
    pub replication: Option<u16>,
    /// How long blocks are.
    pub block_len_bytes: Option<u64>,
    /// When it counts as stored.
    pub durability: Durability,
}

/// `situ fs put`.
pub(super) async fn put(session: &Session, args: &PutArgs, json: bool) -> CliResult {
    let target = Target::parse(&args.target)?;
    let options = PutOptions {
        force: args.force,
        replication: args.replication,
        block_len_bytes: args.block_size,
        durability: match args.durability {
            DurabilityArg::Durable => Durability::Durable,
            DurabilityArg::Visible => Durability::Visible,
        },
    };
    let several = args.sources.len() > 1;
    if several && args.sources.iter().any(|source| source == "-") {
        return Err(CliError::usage(
            "-: standard input has no name in a directory; put it alone, to the path of a file",
        ));
    }
    let started = std::time::Instant::now();
    let mut put = Put { session, options, json, stored: Copied::default(), failures: Failures::new(json) };
    for source in args.sources.iter().map(Path::new) {
        let done = put.source(source, &target, args.recursive, several).await;
        put.failures.note(done)?;
    }
    if put.stored.files > 0 || !put.failures.any() {
        put.stored.summary("stored", started.elapsed(), json)?;
    }
    put.failures.end()
}

/// The name that a local file has in its directory.
fn local_name(path: &Path) -> CliResult<String> {
    let absolute = std::path::absolute(path).local("cannot find", path)?;
    let name = absolute.file_name().ok_or_else(|| CliError::usage(format!("{}: has no name", path.display())))?;
    name.to_str()
        .map(str::to_owned)
        .ok_or_else(|| CliError::failed(format!("{}: its name is not valid UTF-8", path.display())))
}

/// A put under way.
struct Put<'a> {
    session: &'a Session,
    options: PutOptions,
    json: bool,
    stored: Copied,
    failures: Failures,
}

impl Put<'_> {
    /// Stores what one source names.
    async fn source(&mut self, source: &Path, target: &Target, recursive: bool, several: bool) -> CliResult {
        if source.as_os_str() == "-" {
            return self.file(None, target.of_input(self.session).await?).await;
        }
        let metadata = std::fs::metadata(source).local("cannot read", source)?;
        if metadata.is_dir() && !recursive {
            return Err(CliError::failed(format!("{}: is a directory; store it with -r", source.display())));
        }
        let name = local_name(source)?;
        let destination = target.destination(self.session, &name, metadata.is_dir(), several).await?;
        match metadata.is_dir() {
            true => self.tree(source, destination).await,
            false => self.file(Some(source), &destination).await,
        }
    }

    /// Stores a directory with all that it holds. What cannot be stored of it is said.
    async fn tree(&mut self, source: &Path, target: DfsPath) -> CliResult {
        let mut open = vec![Directory { path: source.to_owned(), into: target, way: Vec::new() }];
        while let Some(directory) = open.pop() {
            let entries = self.enter(&directory).await;
            let Some((way, entries)) = self.failures.note(entries)? else { continue };
            for path in entries {
                let entry = std::fs::metadata(&path).local("cannot read", &path).and_then(|metadata| {
                    if !metadata.is_dir() && !metadata.is_file() {
                        let what = "is neither a file nor a directory (a FIFO, a socket or a device); it is left out";
                        return Err(CliError::failed(format!("{}: {what}", show::escaped(&path.to_string_lossy()))));
                    }
                    Ok((metadata.is_dir(), directory.into.join(&local_name(&path)?).map_err(CliError::failed)?))
                });
                let Some((is_directory, into)) = self.failures.note(entry)? else { continue };
                if is_directory {
                    open.push(Directory { path, into, way: way.clone() });
                } else {
                    let done = self.file(Some(&path), &into).await;
                    self.failures.note(done)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a directory in the cluster; gives the way to what it holds, and that.
    async fn enter(&self, directory: &Directory) -> CliResult<(Vec<PathBuf>, Vec<PathBuf>)> {
        let Directory { path, into, .. } = directory;
        let way = directory.way()?;
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(path).local("cannot list", path)? {
            entries.push(entry.local("cannot list", path)?.path());
        }
        entries.sort();
        match self.session.client.stat(into).await? {
            Some(status) if status.is_directory() => {}
            Some(_) => return Err(CliError::failed(format!("{into}: expected a directory; found a file"))),
            None => self.session.client.mkdir(into, false, DIRECTORY_MODE).await?,
        }
        Ok((way, entries))
    }

    /// Stores one local file, or standard input.
    async fn file(&mut self, source: Option<&Path>, target: &DfsPath) -> CliResult {
        let (reader, total): (Box<dyn std::io::Read + Send>, Option<u64>) = match source {
            Some(path) => {
                let opened = path.to_owned();
                let file = tokio::select! {
                    biased;
                    () = self.session.interrupt.wait() => {
                        return Err(CliError::failed(format!("interrupted; {target} is as it was")).ending());
                    }
                    // A FIFO opens when somebody writes to it, and who waits for that must not be held.
                    file = tokio::task::spawn_blocking(move || std::fs::File::open(opened)) => file?,
                };
                let file = file.local("cannot read", path)?;
                let metadata = file.metadata().local("cannot read", path)?;
                (Box::new(file), metadata.is_file().then_some(metadata.len()))
            }
            None => (Box::new(std::io::stdin()), None),
        };
        let label = source.map_or(std::borrow::Cow::Borrowed("-"), |path| path.to_string_lossy());
        // What is typed shows how far it is by itself.
        let typed = source.is_none() && std::io::stdin().is_terminal();
        let progress = Progress::bytes(target.name(), total, !self.json && !typed);
        let add = |more| progress.add(more);
        self.stored.add(put_reader(self.session, reader, &label, target, &self.options, add).await?);
        Ok(())
    }
}

/// A local directory that is to be stored.
struct Directory {
    path: PathBuf,
    into: DfsPath,
    /// The directories that hold it, each by its one true name.
    way: Vec<PathBuf>,
}

impl Directory {
    /// The way to what it holds.
    ///
    /// # Errors
    /// When it is one of those that hold it: by a link, its tree has no end.
    fn way(&self) -> CliResult<Vec<PathBuf>> {
        let path = self.path.canonicalize().local("cannot find", &self.path)?;
        if self.way.contains(&path) {
            let (link, path) = (self.path.to_string_lossy(), path.to_string_lossy());
            return Err(CliError::failed(format!(
                "{}: leads back to {}, which holds it; it is left out",
                show::escaped(&link),
                show::escaped(&path)
            )));
        }
        Ok(self.way.iter().cloned().chain([path]).collect())
    }
}

/// Stores all that `reader` gives as the file `target`; gives its length.
///
/// # Errors
/// When the reader or the cluster fails, or the target is there and may not be replaced; nothing is left behind.
pub async fn put_reader(
    session: &Session,
    reader: Box<dyn std::io::Read + Send>,
    label: &str,
    target: &DfsPath,
    options: &PutOptions,
    progress: impl Fn(u64),
) -> CliResult<u64> {
    match session.client.stat(target).await? {
        Some(status) if status.is_directory() => {
            return Err(CliError::failed(format!("{target}: expected a file's path; found a directory")));
        }
        Some(_) if !options.force => {
            return Err(CliError::failed(format!(
                "{target}: exists already; replace it with -f or name another target"
            )));
        }
        _ => {}
    }
    let aside = target.copying(fastrand::u64(..)).map_err(CliError::usage)?;
    let interrupted = || CliError::failed(format!("interrupted; {target} is as it was")).ending();
    // The name aside is no business of the user's, the target is.
    let about_target =
        |error: CliError| CliError { message: error.message.replace(aside.as_str(), target.as_str()), ..error };
    let writer = tokio::select! {
        biased;
        () = session.interrupt.wait() => Err(interrupted()),
        writer = create(session, &aside, options) => writer.map_err(about_target),
    }?;
    let copied = tokio::select! {
        biased;
        () = session.interrupt.wait() => Err(interrupted()),
        copied = copy_to(writer, reader, label, progress) => copied,
    };
    let published = match copied {
        Ok(len) => match session.client.rename(&aside, target, options.force).await {
            Ok(()) => return Ok(len),
            Err(error) => CliError::from(error),
        },
        Err(error) => error,
    };
    match tokio::time::timeout(CLEAN_LIMIT, session.client.delete(&aside, false)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => show::note(format!("{aside}: could not be cleaned away: {error}")),
        Err(_) => show::note(format!("{aside}: could not be cleaned away within {CLEAN_LIMIT:?}")),
    }
    Err(about_target(published))
}

async fn create(session: &Session, aside: &DfsPath, options: &PutOptions) -> CliResult<FileWriter<RealRuntime>> {
    let mut create = CreateOptions { durability: Some(options.durability), parents: false, ..CreateOptions::default() };
    create.replication = options.replication.or(create.replication);
    create.block_len_bytes = options.block_len_bytes.or(create.block_len_bytes);
    session.client.create(aside, create).await.map_err(|error| match (error.code(), aside.parent()) {
        (Some(ErrorCode::NotFound), Some(directory)) => CliError::failed(format!(
            "{directory}: there is no such directory; make it with `situ fs mkdir -p {}`",
            directory.for_shell()
        )),
        _ => CliError::from(error),
    })
}

async fn copy_to(
    mut writer: FileWriter<RealRuntime>,
    reader: Box<dyn std::io::Read + Send>,
    label: &str,
    progress: impl Fn(u64),
) -> CliResult<u64> {
    let (pieces, mut queue) = mpsc::channel(PIECES_AHEAD);
    // A thread of its own: a read of standard input cannot be given up, and the process must not wait for it to end.
    std::thread::spawn(move || read_pieces(reader, &pieces));
    let mut len = 0;
    while let Some(piece) = queue.recv().await {
        let piece: Bytes = piece.map_err(|error| CliError::failed(format!("cannot read {label}: {error}")))?;
        len += piece.len() as u64;
        let piece_len = piece.len() as u64;
        writer.write(piece).await?;
        progress(piece_len);
    }
    writer.close().await?;
    Ok(len)
}

/// Sends all that `reader` gives, in pieces, until its end or nobody listens.
fn read_pieces(mut reader: Box<dyn std::io::Read + Send>, pieces: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut ended = false;
    // An end is an end: a terminal would go on after it.
    while !ended {
        let mut piece = BytesMut::zeroed(PIECE_LEN_BYTES);
        let mut filled = 0;
        while filled < piece.len() && !ended {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => ended = true,
                Ok(len) => filled += len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Nobody listens: the copy has failed already.
                    let _ = pieces.blocking_send(Err(error));
                    return;
                }
            }
        }
        piece.truncate(filled);
        if filled == 0 || pieces.blocking_send(Ok(piece.freeze())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives these, an empty one for an end, and fails a test that reads on.
    struct Terminal(std::vec::IntoIter<&'static str>);

    impl std::io::Read for Terminal {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let line = self.0.next().expect("nobody reads on after the end");
            into[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }

    #[test]
    fn the_first_end_of_input_ends_it() {
        let (pieces, mut queue) = mpsc::channel(PIECES_AHEAD);
        read_pieces(Box::new(Terminal(vec!["one\n", "two\n", ""].into_iter())), &pieces);
        assert_eq!(queue.blocking_recv().unwrap().unwrap(), "one\ntwo\n");
        drop(pieces);
        assert!(queue.blocking_recv().is_none());
    }
}
