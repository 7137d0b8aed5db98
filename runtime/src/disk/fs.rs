//! The machine's file systems.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::pages::PAGE_LEN_BYTES;
use super::{DirectoryEntry, Disk, DiskError, DiskErrorKind, File, LOCK_NAME, OpenMode, Space};

/// The machine's file systems.
#[derive(Clone, Copy, Default, Debug)]
pub struct FsDisk;

impl Disk for FsDisk {
    type File = FsFile;
    type Lock = FsLock;

    fn open(&self, path: &Path, mode: OpenMode) -> Result<FsFile, DiskError> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::Write => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
            OpenMode::Truncate | OpenMode::Stream => options.read(true).write(true).create(true).truncate(true),
        };
        let file = options.open(path).map_err(failed(path, "open"))?;
        // Opening a directory for reading succeeds, reading it does not: say so here.
        if file.metadata().map_err(failed(path, "open"))?.is_dir() {
            return Err(DiskError::new(path, "open", DiskErrorKind::Other("it is a directory".to_owned())));
        }
        let direct = if mode == OpenMode::Stream { Direct::open(path) } else { None };
        Ok(FsFile { file, path: path.to_owned(), direct })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(failed(from, "rename"))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(failed(path, "remove"))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map_err(failed(path, "remove directory")),
        }
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if parent != Path::new(".") {
            self.create_directory(parent)?;
        }
        match fs::create_dir(path) {
            // Somebody else was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result.map_err(failed(path, "create directory"))?,
        }
        self.sync_directory(parent)
    }

    /// A name that is not UTF-8 comes with its odd bytes replaced: nothing of ours has such a name.
    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(path, "list"))? {
            let entry = entry.map_err(failed(path, "list"))?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It was removed since.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&entry.path(), "list")(error)),
            };
            let is_directory = metadata.is_dir();
            entries.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_directory,
                len_bytes: if is_directory { 0 } else { metadata.len() },
            });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        path.try_exists().map_err(failed(path, "look for"))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed(path, "sync directory"))
    }

    fn space(&self, path: &Path) -> Result<Space, DiskError> {
        let found = rustix::fs::statvfs(path).map_err(|error| failed(path, "measure")(error.into()))?;
        Ok(Space {
            capacity_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    fn lock(&self, directory: &Path) -> Result<FsLock, DiskError> {
        let path = directory.join(LOCK_NAME);
        let error = failed(&path, "lock");
        // It is never removed: two processes could then hold locks on two files of that name.
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(&error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DiskError::new(&path, "lock", DiskErrorKind::Locked)),
            Err(fs::TryLockError::Error(found)) => return Err(error(found)),
        }
        // Who holds it, for whoever looks.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(&error)?;
        Ok(FsLock { file })
    }
}

/// An open file.
#[derive(Debug)]
pub struct FsFile {
    file: fs::File,
    path: PathBuf,
    /// The way past the page cache, for a file that is streamed.
    direct: Option<Direct>,
}

/// Writes past the page cache (`O_DIRECT`, open(2)): whole pages, from memory that begins at a page.
#[derive(Debug)]
struct Direct(fs::File);

impl Direct {
    /// None where the file system does not offer it.
    fn open(path: &Path) -> Option<Self> {
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
        fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok().map(Self)
    }

    /// Writes the whole pages at the front of `bytes`; says how many bytes that is, none if `offset` is within a page or
    /// `bytes` do not begin at one.
    fn write_pages(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len() - bytes.len() % PAGE_LEN_BYTES;
        let begins_at_page = bytes.as_ptr().align_offset(PAGE_LEN_BYTES) == 0;
        if whole == 0 || !begins_at_page || !offset.is_multiple_of(PAGE_LEN_BYTES as u64) {
            return Ok(0);
        }
        match self.0.write_all_at(&bytes[..whole], offset) {
            // The file system offers it, but not for this.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(0),
            result => result.map(|()| whole),
        }
    }
}

impl File for FsFile {
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        let mut wanted = len_bytes;
        if wanted > READ_UNMEASURED_LEN_BYTES {
            // No room is made for what is not there.
            let there = self.len()?.saturating_sub(offset);
            wanted = wanted.min(usize::try_from(there).unwrap_or(usize::MAX));
        }
        let mut bytes = Vec::with_capacity(wanted);
        while bytes.len() < wanted {
            let position = offset + bytes.len() as u64;
            // Into the room itself: clearing it first would cost as much as the read from the page cache does.
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), position) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(&self.path, "read")(error.into())),
            }
        }
        // An allocator may have given more room than was asked for.
        bytes.truncate(wanted);
        Ok(Bytes::from(bytes))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let failed = failed(&self.path, "write");
        let done = match &self.direct {
            Some(direct) => direct.write_pages(offset, bytes).map_err(&failed)?,
            None => 0,
        };
        self.file.write_all_at(&bytes[done..], offset + done as u64).map_err(failed)
    }

    fn sync(&self) -> Result<(), DiskError> {
        // fdatasync includes a changed length; what it leaves out are times.
        self.file.sync_data().map_err(failed(&self.path, "sync"))
    }

    fn start_write_back(&self, offset: u64, len_bytes: u64) {
        if self.direct.is_some() {
            return;
        }
        // On Linux this advice begins to write the range's dirty pages and does not wait for them; pages that are being
        // written stay cached.
        let len = std::num::NonZeroU64::new(len_bytes);
        if let Err(error) = rustix::fs::fadvise(&self.file, offset, len, rustix::fs::Advice::DontNeed) {
            tracing::debug!(path = %self.path.display(), %error, "the file system takes no advice");
        }
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(failed(&self.path, "measure"))?.len())
    }

    fn set_len(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.file.set_len(len_bytes).map_err(failed(&self.path, "set the length of"))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Holds a directory; the operating system gives it free when this process ends, however that comes.
#[derive(Debug)]
pub struct FsLock {
    file: fs::File,
}

impl Drop for FsLock {
    fn drop(&mut self) {
        // Closing it is not enough while a process that is just being started has inherited it.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a lock cannot be given free before this process ends");
        }
    }
}

/// Makes a [`DiskError`] of what the operating system says.
fn failed(path: &Path, operation: &'static str) -> impl Fn(io::Error) -> DiskError {
    move |error| {
        let kind = match error.kind() {
            ErrorKind::NotFound => DiskErrorKind::NotFound,
            ErrorKind::AlreadyExists => DiskErrorKind::AlreadyExists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskErrorKind::Full,
            ErrorKind::PermissionDenied => DiskErrorKind::PermissionDenied,
            _ if Errno::from_io_error(&error).is_some_and(|errno| EXHAUSTED.contains(&errno)) => {
                DiskErrorKind::Exhausted(error.to_string())
            }
            _ => DiskErrorKind::Other(error.to_string()),
        };
        DiskError::new(path, operation, kind)
    }
}

/// What the operating system says when there is nothing more to be had, for this process or any.
const EXHAUSTED: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
/// Up to this length a read makes room without looking how long the file is.
const READ_UNMEASURED_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{PageBuffer, suite};

    #[test]
    fn keeps_the_promises_of_a_disk() {
        let directory = tempfile::tempdir().unwrap();
        suite::check(&FsDisk, directory.path());
    }

    #[test]
    fn a_lock_ends_with_its_value_though_a_new_process_has_inherited_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let lock = FsDisk.lock(directory.path()).unwrap();
        // As between fork and exec.
        let inherited = lock.file.try_clone().unwrap();
        assert_eq!(FsDisk.lock(directory.path()).unwrap_err().kind, DiskErrorKind::Locked);
        drop(lock);
        drop(FsDisk.lock(directory.path()).unwrap());
        drop(inherited);
    }

    #[test]
    fn a_streamed_file_holds_what_was_written_whatever_the_steps() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("streamed");
        let expected: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let file = FsDisk.open(&path, OpenMode::Stream).unwrap();
        let mut at = 0;
        let mut pages = PageBuffer::default();
        for step in [131_072, 65_536, 4096, 1, 4095, 70_000, 8192] {
            pages.clear();
            pages.extend_from_slice(&expected[at..at + step]);
            file.write_at(at as u64, &pages).unwrap();
            at += step;
        }
        // What does not begin at a page.
        file.write_at(at as u64, &expected[at..]).unwrap();
        file.sync().unwrap();
        assert!(fs::read(&path).unwrap() == expected);
        assert!(FsDisk.open(&path, OpenMode::Stream).unwrap().is_empty().unwrap(), "it is emptied");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = FsDisk.open(Path::new("/dev/full"), OpenMode::Write).unwrap().write_at(0, b"x").unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Full);
        assert_eq!(error.to_string(), "write /dev/full: the disk is full: free some space or name another directory");
    }

    #[test]
    fn what_says_nothing_about_the_disk_is_told_apart() {
        let kind = |errno: Errno| failed(Path::new("/f"), "open")(errno.into()).kind;
        for errno in EXHAUSTED {
            assert!(matches!(kind(errno), DiskErrorKind::Exhausted(_)), "{errno}");
        }
        assert!(matches!(kind(Errno::IO), DiskErrorKind::Other(_)));
    }

    #[test]
    fn a_lock_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let _lock = FsDisk.lock(directory.path()).unwrap();
        let holder = fs::read_to_string(directory.path().join(LOCK_NAME)).unwrap();
        assert_eq!(holder.trim(), std::process::id().to_string());
    }
}
