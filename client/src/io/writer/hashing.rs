use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_wire::tree::{Tree, TreeBuilder};

use crate::core::writer::Slot;

/// Hashes blocks beside their sending: each block's bytes in order, all that wait at once.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    blocks: BTreeMap<Slot, BlockHashing>,
}

#[derive(Debug, Default)]
struct BlockHashing {
    /// At home while nothing is being hashed; none before the first bytes, too.
    builder: Option<Box<TreeBuilder>>,
    away: bool,
    waiting: VecDeque<Bytes>,
    ended: bool,
}

/// What a round of hashing leads to.
pub(super) enum Hashed {
    /// The builder has taken all it was given.
    UpTo(Slot, Box<TreeBuilder>),
    /// The block is hashed.
    Whole(Slot, Arc<Tree>),
}

impl Hashing {
    pub(super) fn add(&mut self, slot: Slot, bytes: Bytes) {
        self.blocks.entry(slot).or_default().waiting.push_back(bytes);
    }

    pub(super) fn end(&mut self, slot: Slot) {
        self.blocks.entry(slot).or_default().ended = true;
    }

    /// Takes a builder back.
    pub(super) fn put_back(&mut self, slot: Slot, builder: Box<TreeBuilder>) {
        let block = self.blocks.entry(slot).or_default();
        block.builder = Some(builder);
        block.away = false;
    }

    /// Forgets a block that is hashed.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.blocks.remove(&slot);
    }

    /// The next round for a block, if it has work and none is under way.
    pub(super) fn next_round<R: Runtime>(
        &mut self,
        runtime: &R,
        slot: Slot,
    ) -> Option<impl Future<Output = Hashed> + Send + use<R>> {
        let block = self.blocks.get_mut(&slot)?;
        if block.away || (block.waiting.is_empty() && !block.ended) {
            return None;
        }
        block.away = true;
        let mut builder = block.builder.take().unwrap_or_default();
        let waiting = std::mem::take(&mut block.waiting);
        let ended = block.ended;
        let runtime = runtime.clone();
        Some(async move {
            runtime
                .blocking(move || {
                    for bytes in waiting {
                        builder.update(&bytes);
                    }
                    if ended { Hashed::Whole(slot, Arc::new(builder.finish())) } else { Hashed::UpTo(slot, builder) }
                })
                .await
        })
    }
}
