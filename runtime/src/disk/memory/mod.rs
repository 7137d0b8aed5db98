//! A disk in memory whose power can be cut.
//!
//! It keeps what is on the "platter" apart from what a running process sees. [`MemoryDisk::crash`] is a power cut: what
//! was synced stays, and a seed decides what becomes of the rest.
//!
//! - Bytes: each unsynced write of a file is kept, lost or torn (some of its 512-byte sectors are kept), whatever
//!   happened to the writes before it. A sector is never half written.
//! - Names: of the unsynced changes of a directory a prefix is kept, as with the journals of ext4, XFS and btrfs;
//!   directories are independent of one another. A rename happens as a whole or not at all.

mod content;
mod disk;
mod names;

pub use disk::{MemoryDisk, MemoryFile, MemoryLock};
