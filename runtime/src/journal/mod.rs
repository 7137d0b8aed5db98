//! An append-only, hash-chained log on a disk.
//!
//! A [`Journal`] keeps records, numbered from 1 on without a gap, in a directory of segment files. Its calls block: whoever
//! owns one gives it a thread of its own. Many records go into one frame, and a frame is on the disk when
//! [`Journal::append`] returns; one sync carries them all.
//!
//! # What it promises
//!
//! - An acknowledged record is there after any crash, or an error says that it is not; records come back in their order.
//! - Of an append that was under way, all of its records are there or none.
//! - Damage is told apart from a crash. Frame k+1 is written only after the sync of frame k has returned. So what a crash
//!   leaves behind is at most one broken frame at the very end, with nothing after it: it is cut off, and [`Opened::cut`]
//!   says so. A broken frame with a later frame or segment behind it is [`JournalError::Damaged`], and nothing is changed.
//!   (A broken *last* frame cannot be told from a crash. Frames begin at sectors of their own, so that an append does not
//!   rewrite what is acknowledged.)
//! - After a failed write or sync nothing is known of what is on the disk, so the journal does nothing more. When it is
//!   opened again, its last frame is first written again: the system may hold it in memory and believe it to be on the
//!   disk.
//!
//! # Layout
//!
//! ```text
//! segment-<number of its first record, 20 digits>
//!
//! offset 0    segment header, one sector of 512 bytes
//!               0  magic "SITULOG1"
//!               8  version, u32 = 1
//!              12  zero, u32
//!              16  log id, 16 bytes
//!              32  number of the first record, u64
//!              40  number of the previous segment's first record, u64; 0 if there never was one
//!              48  chain hash before the first frame, 32 bytes
//!              80  zeros
//!             480  BLAKE3 of all before, 32 bytes
//! offset 512  frames, each from the next multiple of 512 on, zeros between them:
//!               0  magic "SFRM"
//!               4  length of the payload, u32
//!               8  number of its first record, u64
//!              16  how many records, u32
//!              20  zero, u32
//!              24  check of the header, 16 bytes: BLAKE3, keyed with the log id, of the above, the number of the
//!                  segment's first record and the frame's offset
//!              40  payload: each record as its length, u32, and its bytes
//!               +  chain hash, 32 bytes: BLAKE3 of the chain hash before, the header's first 24 bytes and the payload
//! then        zeros, written ahead: to overwrite costs half of what it costs to append
//! ```
//!
//! Numbers are little-endian.

mod error;
mod format;
mod log;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use format::{FRAME_LEN_BYTES, RECORD_LEN_BYTES, growth_len_bytes};
pub use log::{Journal, JournalOptions};
pub use recovery::{Opened, TornTail};
