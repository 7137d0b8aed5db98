//! The namenode's state machine: what the namespace holds, where its blocks are, and what is to be done about it.
//!
//! Pure: no async, no clock, no files, no sockets. Events go in through [`Namesystem::handle`] and
//! [`Namesystem::handle_timeout`], effects come out of [`Namesystem::poll_effect`] and [`Namesystem::poll_timeout`].
//! Every change of the namespace is an [`Edit`] that carries all that was decided, so that replaying the journal through
//! [`Namesystem::apply`] gives the same namespace: the same [`NamespaceDigest`].

mod apply;
mod authorize;
mod blocks;
mod calls;
mod changes;
mod checkpoint;
mod config;
mod copies;
mod datanodes;
mod digest;
mod edit;
mod epochs;
mod errors;
mod event;
mod image;
mod inode;
mod leases;
mod ledger;
mod names;
mod namespace;
mod namesystem;
mod operations;
mod random;
mod restore;
mod room;
mod safe_mode;
mod snapshot;
mod sparse;
#[cfg(test)]
mod tests;

pub use checkpoint::{ImageChanges, ImageDigest};
pub use config::CoreConfig;
pub use digest::NamespaceDigest;
pub use edit::{Change, Edge, Edit, EditV1, Move, NewDirectory, NewFile};
pub use epochs::Epoch;
pub use event::{CallId, Caller, Effect, Event};
pub use image::{
    BlockRecord, EdgeRecord, EpochRecord, INodeKind, INodeRecord, ImageKey, ImageRecord, ImageSlot, MetaRecord,
    OperationRecord, Outcome, WriterRecord,
};
pub use namesystem::{ApplyError, Namesystem, RestoreError};
pub use room::Room;
