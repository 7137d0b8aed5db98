//! Files.
//!
//! The calls block: a server makes them from [`Runtime::blocking`](crate::Runtime::blocking) or from a thread of its
//! own. What the traits promise is little more than what POSIX promises: bytes are on the disk only after
//! [`File::sync`], and a name is there (or gone) for sure only after [`Disk::sync_directory`] of its directory. One
//! suite checks these promises against every implementation.
//!
//! | module | what it holds |
//! |---|---|
//! | [`fs`] | [`FsDisk`](fs::FsDisk): the machine's file systems |
//! | [`memory`] | [`MemoryDisk`](memory::MemoryDisk): in memory; its power can be cut |
//! | [`faulty`] | [`FaultyDisk`](faulty::FaultyDisk): any of them, with faults |

pub mod faulty;
pub mod fs;
pub mod memory;
mod pages;
#[cfg(test)]
mod suite;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
pub use pages::PageBuffer;

/// Where files are.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: File;
    /// Holds a directory against other processes until it is dropped.
    type Lock: Send + Sync + 'static;

    /// Opens a file.
    ///
    /// # Errors
    /// When it is not there and `mode` does not make it, when it is there and `mode` wants it new, or when the disk fails.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Self::File, DiskError>;

    /// Moves a file or directory; a file at the target is replaced, in one step.
    ///
    /// # Errors
    /// When the source or the target's directory is not there, or the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Deletes a file.
    ///
    /// # Errors
    /// When it is not there, or the disk fails.
    fn remove_file(&self, path: &Path) -> Result<(), DiskError>;

    /// Deletes a directory and all that it holds; it is fine if it is not there.
    ///
    /// # Errors
    /// When the disk fails.
    fn remove_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// Makes a directory and its missing parents, and waits until their names are on the disk; it is fine if it is
    /// there.
    ///
    /// # Errors
    /// When a file is in the way, or the disk fails.
    fn create_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// The entries of a directory, ascending by name.
    ///
    /// # Errors
    /// When it is not there, or the disk fails.
    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError>;

    /// Whether a file or directory is there.
    ///
    /// # Errors
    /// When the disk fails.
    fn exists(&self, path: &Path) -> Result<bool, DiskError>;

    /// Waits until the names that the directory holds are on the disk.
    ///
    /// # Errors
    /// When the disk fails: what was done in the directory may be lost.
    fn sync_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// How much room the disk of that directory has.
    ///
    /// # Errors
    /// When the disk fails.
    fn space(&self, path: &Path) -> Result<Space, DiskError>;

    /// Takes a directory for this process alone, by a lock on the file `in_use.lock` in it; the operating system drops
    /// it when the process ends, however it ends.
    ///
    /// # Errors
    /// [`DiskErrorKind::Locked`] when another holder has it; or when the disk fails.
    fn lock(&self, directory: &Path) -> Result<Self::Lock, DiskError>;

    /// The whole of a small file.
    ///
    /// # Errors
    /// When it is not there, is longer than `limit_bytes`, or the disk fails.
    fn read(&self, path: &Path, limit_bytes: u64) -> Result<Bytes, DiskError> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        if len > limit_bytes {
            return Err(DiskError::new(path, "read", DiskErrorKind::TooLong { found_bytes: len, limit_bytes }));
        }
        file.read_at(0, usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Puts a small file in place, whole and on the disk, or not at all: written aside, synced, renamed, its directory
    /// synced.
    ///
    /// # Errors
    /// When the disk fails.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let aside = path.with_file_name(name);
        let file = self.open(&aside, OpenMode::Truncate)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        self.rename(&aside, path)?;
        self.sync_directory(path.parent().unwrap_or(Path::new("/")))
    }
}

/// An open file. Calls may come from several threads at once.
pub trait File: Send + Sync + 'static {
    /// Up to `len_bytes` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// When the disk fails.
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError>;

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// When the disk is full or fails; some of the bytes may then be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Waits until all that was written is on the disk, the file's length included. After an error nothing is known of
    /// what is there: it must not be tried again and taken for good (Rebello et al., "Can Applications Recover from
    /// fsync Failures?", USENIX ATC 2020).
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&self) -> Result<(), DiskError>;

    /// Lets the disk begin to write what was written in that range, without waiting. A hint: it promises nothing.
    fn start_write_back(&self, offset: u64, len_bytes: u64);

    /// Its length in bytes.
    ///
    /// # Errors
    /// When the disk fails.
    fn len(&self) -> Result<u64, DiskError>;

    /// Whether it holds nothing.
    ///
    /// # Errors
    /// When the disk fails.
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Cuts it or lengthens it with zeros.
    ///
    /// # Errors
    /// When the disk is full or fails.
    fn set_len(&self, len_bytes: u64) -> Result<(), DiskError>;

    /// The operating system's handle of it, where there is one: to hand it to another process on this machine.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must be there.
    Read,
    /// For reading and writing; it must be there.
    Write,
    /// For reading and writing; it must not be there.
    CreateNew,
    /// For reading and writing; emptied if it is there.
    Truncate,
    /// As [`OpenMode::Truncate`], for a file that is written once, from its start, in long steps, and synced: a disk may
    /// keep what is written out of the page cache, which costs less processor time and leaves less for the sync. It can
    /// where the bytes come from a [`PageBuffer`].
    Stream,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes; 0 for a directory.
    pub len_bytes: u64,
}

/// How much room a disk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// In all.
    pub capacity_bytes: u64,
    /// Still free for this process.
    pub free_bytes: u64,
}

/// What a disk could not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {}: {kind}", path.display())]
pub struct DiskError {
    /// With which file or directory.
    pub path: PathBuf,
    /// What was tried.
    pub operation: &'static str,
    /// Why it failed.
    pub kind: DiskErrorKind,
}

impl DiskError {
    /// `operation` on `path` failed for the reason `kind`.
    #[must_use]
    pub fn new(path: &Path, operation: &'static str, kind: DiskErrorKind) -> Self {
        Self { path: path.to_owned(), operation, kind }
    }
}

/// Why a disk could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskErrorKind {
    /// It is not there.
    #[error("there is no such file or directory")]
    NotFound,
    /// It is there already.
    #[error("it exists already")]
    AlreadyExists,
    /// There is no room.
    #[error("the disk is full: free some space or name another directory")]
    Full,
    /// The process, or the machine, has no more open files or memory to give. That says nothing about the disk, and may
    /// pass.
    #[error("{0}: raise the limit of open files, or give the machine more memory")]
    Exhausted(String),
    /// Another process holds the directory.
    #[error("another process uses this directory: stop it or name another directory")]
    Locked,
    /// The process may not.
    #[error("permission denied")]
    PermissionDenied,
    /// The file is longer than is allowed.
    #[error("it has {found_bytes} bytes; at most {limit_bytes} were expected")]
    TooLong {
        /// Its length.
        found_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// Something else, as the operating system says it.
    #[error("{0}")]
    Other(String),
}

/// The file that [`Disk::lock`] locks.
pub const LOCK_NAME: &str = "in_use.lock";
