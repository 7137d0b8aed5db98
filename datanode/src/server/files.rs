//! Work on volumes that has an order, and notes in their indexes.

use std::sync::Arc;

use situ_runtime::Runtime;
use situ_runtime::disk::Disk;
use situ_wire::block::Block;
use situ_wire::ids::BlockId;
use tokio::sync::mpsc;

use super::node::Message;
use crate::core::Event;
use crate::storage::{IndexedReplica, ReplicaIndex, Volume};

/// One piece of work on a volume.
pub(super) struct Chore<D: Disk> {
    pub(super) volume: Arc<Volume<D>>,
    pub(super) block: Block,
    pub(super) kind: ChoreKind,
}

/// What is to be done with a replica's files.
#[derive(Clone, Copy)]
pub(super) enum ChoreKind {
    Delete,
    MoveAside,
}

/// Does chores one after the other, in their order, until nobody can send any more.
pub(super) async fn do_chores<R: Runtime>(
    runtime: R,
    mut chores: mpsc::UnboundedReceiver<Chore<R::Disk>>,
    mailbox: mpsc::UnboundedSender<Message<R::Disk>>,
) {
    while let Some(Chore { volume, block, kind }) = chores.recv().await {
        let storage = volume.storage();
        let work = move || match kind {
            ChoreKind::Delete => volume.delete(block),
            ChoreKind::MoveAside => volume.move_aside(block),
        };
        let result = runtime.blocking(work).await;
        match (&result, kind) {
            (Ok(()), ChoreKind::Delete) => tracing::info!(%block, %storage, "deleted a replica's files"),
            (Ok(()), ChoreKind::MoveAside) => tracing::info!(%block, %storage, "moved a replica's files aside"),
            (Err(error), _) => {
                tracing::warn!(%block, %storage, %error, "cannot move or delete a replica's files");
                let _ = mailbox.send(Message::Event(Event::DiskTrouble { storage }));
            }
        }
        // Files that cannot be deleted stand there until the next start; the replica is not served any more.
        if let ChoreKind::Delete = kind {
            let _ = mailbox.send(Message::Event(Event::Deleted { storage, block }));
        }
    }
}

/// One note for an index.
pub(super) struct Note {
    pub(super) index: Arc<ReplicaIndex>,
    pub(super) what: NoteKind,
}

/// What is noted.
pub(super) enum NoteKind {
    Replica(BlockId, Option<IndexedReplica>),
    Scrubbed(BlockId),
}

/// Writes notes, many at once, until nobody can send any more. An index that fails is behind from then on, which the
/// next start mends.
pub(super) async fn take_notes<R: Runtime>(runtime: R, mut notes: mpsc::UnboundedReceiver<Note>) {
    let mut batch = Vec::new();
    while notes.recv_many(&mut batch, BATCH_NOTES).await > 0 {
        let batch = std::mem::take(&mut batch);
        runtime.blocking(move || write_notes(batch)).await;
    }
}

fn write_notes(batch: Vec<Note>) {
    let mut changes = Vec::new();
    let mut notes = batch.into_iter().peekable();
    while let Some(Note { index, what }) = notes.next() {
        let written = match what {
            NoteKind::Scrubbed(id) => index.set_scrubbed(id),
            NoteKind::Replica(id, replica) => {
                changes.push((id, replica));
                let goes_on = notes
                    .peek()
                    .is_some_and(|next| matches!(next.what, NoteKind::Replica(..)) && Arc::ptr_eq(&next.index, &index));
                if goes_on {
                    continue;
                }
                index.write(&std::mem::take(&mut changes))
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the index of a volume takes no notes; it is rebuilt at the next start");
        }
    }
}

/// The most notes that are written at once.
const BATCH_NOTES: usize = 1024;
