//! Replicas on a volume.
//!
//! A volume is a directory of its own disk:
//!
//! ```text
//! VERSION                            whose volume it is (see VolumeVersion)
//! in_use.lock                        held by the running datanode
//! index/                             a store that says what `current` holds; rebuilt when it is not there
//! rbw/blk_7_1003.data                a replica being written; dropped at start
//! current/00/00/blk_7_1002.data      a final replica: its bytes
//! current/00/00/blk_7_1002.meta      ... and its tree (see ReplicaMeta)
//! corrupt/blk_5_1001.data, .meta     a replica whose bytes are wrong, kept aside and never served
//! ```
//!
//! # How a replica becomes final
//!
//! 1. `rbw/B.data` is synced. 2. `rbw/B.meta` is written and synced. 3. `B.data` moves to its directory in `current`.
//! 4. `B.meta` moves there. 5. That directory is synced. Only then it is acknowledged.
//!
//! A replica is final when both files stand in `current`. Whatever names a crash leaves there, their content was
//! synced before they could get there (1 and 2 come before 3 and 4), so that a pair is whole; and after 5 the pair is
//! there for sure. One file without the other is what a crash between 3 and 5 leaves, or one in the middle of a
//! deletion or a reopening, which take the meta file away first: it was not acknowledged, or not wanted any more, and
//! the scan at start removes it. What is in `rbw` at start was never acknowledged as final and goes too.
//!
//! At [`Durability::Visible`](situ_wire::messages::datanode::Durability) steps 1, 2 and 5 do not wait for the disk. After
//! a power cut such a replica may be short or damaged: the scan compares lengths, the reader and the scrubber the rest.

mod index;
mod meta;
mod names;
mod open;
mod scan;
mod verify;
mod version;
mod volume;
mod writer;

pub use meta::{MetaError, ReplicaMeta};
pub use open::{FailedVolume, OpenVolumes, format, open_volumes};
pub use scan::{Health, ScannedReplica};
pub use verify::{Verdict, Verifier};
pub use version::{VersionError, VolumeVersion};
pub use volume::{FinalReplica, ReadError, Volume};

use volume::Place;
pub use writer::{Prior, ReplicaWriter};

pub use index::{IndexedReplica, ReplicaIndex};

#[cfg(test)]
mod tests;
