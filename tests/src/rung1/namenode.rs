//! The namenode's process around its core: the journal, the answers that wait for it, restarts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use situ_namenode::core::{
    CallId, CoreConfig, Edit, Effect, Event, ImageKey, ImageRecord, ImageSlot, NamespaceDigest, Namesystem,
};
use situ_wire::block::BlockTokenKey;
use situ_wire::error::RemoteError;
use situ_wire::ids::{ClusterId, DatanodeId, TxId};
use situ_wire::messages::namenode::{DatanodeCommand, ReportedReplica, Request, Response};
use situ_wire::time::TimeMs;

use super::journal::Journal;
use super::mutants::Mutant;
use super::network::{Envelope, Party, Reply};
use super::world::{Happening, USER, World};
use crate::promises::metadata::{Answer, Disagreement};

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);

/// One of the two images.
#[derive(Default)]
struct Image {
    tx: TxId,
    digest: NamespaceDigest,
    records: BTreeMap<ImageKey, ImageRecord>,
    /// Whether it can be restored from: not while it is being brought forward, and not before it ever was.
    is_whole: bool,
    /// Whether it must be emptied before it is brought forward.
    is_detached: bool,
}

/// An image that is being brought forward.
struct Checkpoint {
    slot: usize,
    tx: TxId,
    digest: NamespaceDigest,
    /// Whether the core has given out all of it; then it waits until that transaction is on disk.
    is_complete: bool,
}

/// The namenode's process.
pub(super) struct NamenodeHost {
    pub(super) core: Option<Namesystem>,
    pub(super) run: u64,
    pub(super) journal: Journal,
    is_syncing: bool,
    /// Whether it crashes before its next sync is done.
    pub(super) is_doomed: bool,
    held: Vec<Reply>,
    timer_at: TimeMs,
    next_call: u64,
    /// Until when it stands still.
    pub(super) stalled_until: TimeMs,
    /// What has arrived while it stands still.
    inbox: VecDeque<Envelope>,
    images: [Image; 2],
    checkpoint: Option<Checkpoint>,
    next_slot: usize,
    /// Commands to copy and to delete since the last time that somebody asked.
    pub(super) commands: u64,
    pub(super) last_command: String,
    /// What each storage reported the time before, for a mutant.
    old_reports: BTreeMap<situ_wire::ids::StorageId, Vec<ReportedReplica>>,
    /// The last commands to each datanode, for a mutant.
    old_commands: BTreeMap<DatanodeId, Vec<DatanodeCommand>>,
    pub(super) warnings: u64,
}

/// The times are short, so that a run has many of each.
fn config(seed: u64) -> CoreConfig {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    CoreConfig {
        lease_soft_ms: 15_000,
        lease_hard_ms: 40_000,
        pending_timeout_ms: 15_000,
        safe_mode_extension_ms: 1_000,
        client_expiry_ms: 120_000,
        reserve_bytes: 1 << 20,
        invalidate_batch: 10,
        ..CoreConfig::new(CLUSTER, USER, BlockTokenKey(key), seed)
    }
}

const SLOTS: [ImageSlot; 2] = [ImageSlot::A, ImageSlot::B];

impl NamenodeHost {
    pub(super) fn new() -> Self {
        Self {
            core: None,
            run: 0,
            journal: Journal::default(),
            is_syncing: false,
            is_doomed: false,
            held: Vec::new(),
            timer_at: TimeMs::NEVER,
            next_call: 0,
            stalled_until: TimeMs(0),
            inbox: VecDeque::new(),
            images: [Image { is_detached: true, ..Image::default() }, Image { is_detached: true, ..Image::default() }],
            checkpoint: None,
            next_slot: 0,
            commands: 0,
            last_command: String::new(),
            old_reports: BTreeMap::new(),
            old_commands: BTreeMap::new(),
            warnings: 0,
        }
    }
}

impl World {
    /// A namenode starts: from an image or from nothing, then by the journal.
    pub(super) fn namenode_up(&mut self) {
        if self.namenode.core.is_some() {
            return;
        }
        let seed = self.chance.seed();
        let mut core = Namesystem::new(config(seed));
        let journal = &self.namenode.journal;
        let usable: Vec<usize> = (0..2).filter(|slot| self.namenode.images[*slot].is_whole).collect();
        let chosen = if self.chance.permille(300) { None } else { self.chance.pick(&usable).copied() };
        let mut wrong = None;
        if let Some(slot) = chosen {
            let image = &self.namenode.images[slot];
            let mut records: Vec<&ImageRecord> = image.records.values().collect();
            self.chance.shuffle(&mut records);
            for record in records {
                wrong = wrong.or(core.restore(record).err().map(|error| error.to_string()));
            }
            wrong = wrong.or(core.finish_restore(image.tx).err().map(|error| error.to_string()));
            if core.digest() != image.digest {
                wrong = wrong.or(Some(format!("the image at {} has another digest", image.tx)));
            }
        }
        let skipped = (self.mutant == Some(Mutant::SkipEdit) && journal.last() > core.last_tx())
            .then(|| self.chance.between(core.last_tx().0 + 1, journal.last().0));
        for (tx, edit) in journal.after(core.last_tx()) {
            if skipped == Some(tx.0) {
                continue;
            }
            let mut edit = edit.clone();
            if self.mutant == Some(Mutant::ForgetOperations) {
                let Edit::V1(edit) = &mut edit;
                edit.operation = None;
            }
            if let Err(error) = core.apply(tx, &edit) {
                wrong = wrong.or(Some(error.to_string()));
                break;
            }
            let digest = journal.digest(tx);
            if self.mutant.is_none() && digest.is_some_and(|digest| digest != core.digest()) {
                wrong = wrong.or(Some(format!("the digest at {tx} is not what it was")));
            }
        }
        if core.last_tx() != journal.last() {
            wrong = wrong.or(Some(format!("it ends at {}, its journal at {}", core.last_tx(), journal.last())));
        }
        if let Some(reason) = wrong {
            self.violated(Disagreement::Restart { reason });
            return;
        }
        for (slot, image) in SLOTS.into_iter().enumerate() {
            if Some(slot) != chosen {
                core.reset_image(image);
                self.namenode.images[slot] = Image { is_detached: true, ..Image::default() };
            }
        }
        core.start(self.schedule.now());
        core.check();
        self.trace.note_bytes(&core.digest().0);
        self.namenode.run += 1;
        self.namenode.timer_at = TimeMs::NEVER;
        self.namenode.core = Some(core);
        self.namenode_drain(None);
    }

    /// The power of the namenode goes.
    pub(super) fn namenode_crash(&mut self) {
        let unsynced = self.namenode.journal.last().0 - self.namenode.journal.synced().0;
        let kept = self.chance.between(0, unsynced);
        let namenode = &mut self.namenode;
        namenode.core = None;
        namenode.run += 1;
        namenode.is_syncing = false;
        namenode.is_doomed = false;
        namenode.held.clear();
        namenode.checkpoint = None;
        namenode.stalled_until = TimeMs(0);
        namenode.inbox.clear();
        let durable = namenode.journal.crash(usize::try_from(kept).unwrap_or(0));
        if self.mutant == Some(Mutant::SyncLies) {
            namenode.journal.lose(3);
        }
        self.became_durable(&durable);
        if let Err(disagreement) = self.oracle.crashed() {
            self.violated(disagreement);
        }
    }

    /// A request arrives.
    pub(super) fn namenode_request(&mut self, envelope: Envelope) {
        if self.namenode.core.is_none() {
            return;
        }
        if self.schedule.now() < self.namenode.stalled_until {
            return self.namenode.inbox.push_back(envelope);
        }
        self.namenode_take(envelope);
    }

    /// The namenode stands still for a while, unless it does already.
    pub(super) fn namenode_stall(&mut self, for_ms: u64) {
        let now = self.schedule.now();
        if self.namenode.core.is_some() && self.namenode.stalled_until <= now {
            self.namenode.stalled_until = now + Duration::from_millis(for_ms);
            let run = self.namenode.run;
            self.schedule.at(self.namenode.stalled_until, Happening::NamenodeWakes { run });
        }
    }

    /// It goes on, with all that has arrived meanwhile, in order.
    pub(super) fn namenode_wakes(&mut self, run: u64) {
        if run != self.namenode.run {
            return;
        }
        self.namenode.stalled_until = TimeMs(0);
        while let Some(envelope) = self.namenode.inbox.pop_front() {
            self.namenode_take(envelope);
        }
    }

    fn namenode_take(&mut self, mut envelope: Envelope) {
        self.mutate_request(&mut envelope.request);
        let caller = self.caller_of(envelope.party);
        let call = CallId(self.namenode.next_call);
        self.namenode.next_call += 1;
        let event = Event::Call { call, caller, request: envelope.request.clone() };
        let now = self.schedule.now();
        if let Some(core) = &mut self.namenode.core {
            core.handle(now, event);
        }
        self.namenode_drain(Some((call, envelope)));
    }

    /// Asks the namenode beside the network; the answer does not wait for anything.
    pub(super) fn ask(&mut self, request: Request) -> Result<Response, RemoteError> {
        let caller = self.caller_of(Party::Client { at: 0, run: 0 });
        let call = CallId(u64::MAX);
        let now = self.schedule.now();
        let core = self.namenode.core.as_mut().expect("faults are over");
        core.handle(now, Event::Call { call, caller, request });
        let mut answer = None;
        while let Some(effect) = core.poll_effect() {
            match effect {
                Effect::Reply { result, .. } => answer = Some(result),
                Effect::Append { .. } => panic!("a read changes nothing"),
                Effect::Warn { .. } => {}
            }
        }
        answer.expect("every call is answered")
    }

    /// Does what the core wants done.
    fn namenode_drain(&mut self, asked: Option<(CallId, Envelope)>) {
        while let Some(effect) = self.namenode.core.as_mut().and_then(Namesystem::poll_effect) {
            match effect {
                Effect::Append { tx, edit } => {
                    if self.trace.is_shown {
                        println!("{:?} {tx}: {edit:?}", self.schedule.now());
                    }
                    self.namenode.journal.append(tx, edit);
                }
                Effect::Reply { call, when, result } => {
                    let (expected, envelope) = asked.as_ref().expect("only a call is answered");
                    assert_eq!(call, *expected, "the call is answered, once");
                    let reply = Reply {
                        number: envelope.number,
                        party: envelope.party,
                        call,
                        when: when.unwrap_or(TxId(0)),
                        result,
                    };
                    self.namenode_reply(envelope, reply);
                }
                Effect::Warn { message } => {
                    self.namenode.warnings += 1;
                    if self.trace.is_shown {
                        println!("{:?} WARN {message}", self.schedule.now());
                    }
                }
            }
        }
        if let Some(core) = &self.namenode.core
            && self.namenode.journal.lacks_digest()
        {
            let digest = core.digest();
            self.namenode.journal.note_digest(digest);
            self.trace.note_bytes(&digest.0[..8]);
        }
        self.namenode_sync();
        self.namenode_timer();
    }

    fn namenode_reply(&mut self, envelope: &Envelope, mut reply: Reply) {
        if let Party::Client { .. } = envelope.party {
            let answer = Answer {
                request: envelope.request.clone(),
                when: reply.when,
                result: reply.result.clone(),
                floor: envelope.floor,
                received: false,
            };
            if let Err(disagreement) = self.oracle.answered(reply.call, answer) {
                self.violated(disagreement);
            }
        }
        if let (Party::Datanode { at, .. }, Ok(Response::Commands { commands, .. })) = (reply.party, &mut reply.result)
        {
            self.mutate_commands(at, commands);
            self.note_commands(at, commands);
        }
        if reply.when <= self.namenode.journal.synced() || self.mutant == Some(Mutant::ReplyBeforeSync) {
            self.reply(reply);
        } else {
            self.namenode.held.push(reply);
        }
    }

    fn note_commands(&mut self, at: usize, commands: &[DatanodeCommand]) {
        let now = self.schedule.now();
        for command in commands {
            match command {
                DatanodeCommand::Replicate { .. } => self.namenode.commands += 1,
                DatanodeCommand::Invalidate { blocks } => {
                    self.namenode.commands += 1;
                    for block in blocks {
                        self.oracle.ordered(now, self.datanodes[at].me.id, *block);
                    }
                }
                DatanodeCommand::Register | DatanodeCommand::Report | DatanodeCommand::Verify { .. } => continue,
            }
            self.namenode.last_command = format!("{command:?} to {}", self.datanodes[at].me.id);
            if self.trace.is_shown {
                println!("{now:?} command to {at}: {command:?}");
            }
        }
    }

    /// Begins to sync what was appended, if no sync is under way: what comes meanwhile goes with the next.
    fn namenode_sync(&mut self) {
        let namenode = &mut self.namenode;
        if namenode.is_syncing || namenode.journal.synced() == namenode.journal.last() {
            return;
        }
        namenode.is_syncing = true;
        let what = Happening::NamenodeSynced { run: namenode.run, tx: namenode.journal.last() };
        let delay_ms = self.chance.between(0, self.settings.sync_ms);
        if std::mem::replace(&mut self.namenode.is_doomed, false) && !self.is_healed {
            let run = self.namenode.run;
            let crash_ms = self.chance.between(0, delay_ms);
            self.schedule.after(crash_ms, Happening::NamenodeDies { run });
        }
        self.schedule.after(delay_ms, what);
    }

    /// A sync is done.
    pub(super) fn namenode_synced(&mut self, run: u64, tx: TxId) {
        if run != self.namenode.run {
            return;
        }
        self.namenode.is_syncing = false;
        let durable = self.namenode.journal.sync(tx);
        self.became_durable(&durable);
        let held = std::mem::take(&mut self.namenode.held);
        let (ready, held) = held.into_iter().partition(|reply| reply.when <= tx);
        self.namenode.held = held;
        let ready: Vec<Reply> = ready;
        for reply in ready {
            self.reply(reply);
        }
        self.finish_image();
        self.namenode_sync();
    }

    fn became_durable(&mut self, edits: &[(TxId, Edit)]) {
        for (tx, edit) in edits {
            if self.violation.is_some() {
                return;
            }
            match self.oracle.durable(*tx, edit) {
                Ok(()) => self.check_committed(edit),
                Err(disagreement) => self.violated(disagreement),
            }
        }
    }

    /// Begins to bring an image forward.
    pub(super) fn namenode_checkpoint(&mut self) {
        let Some(core) = &mut self.namenode.core else { return };
        if self.namenode.checkpoint.is_some() {
            return;
        }
        let slot = self.namenode.next_slot;
        self.namenode.next_slot = 1 - slot;
        let (tx, digest) = core.begin_changes(SLOTS[slot]);
        self.namenode.checkpoint = Some(Checkpoint { slot, tx, digest, is_complete: false });
        let image = &mut self.namenode.images[slot];
        image.is_whole = false;
        if std::mem::replace(&mut image.is_detached, false) {
            image.records.clear();
        }
        self.schedule.after(0, Happening::ImageSlice { run: self.namenode.run });
    }

    /// Brings the image forward by a few records; what happens meanwhile is not in it.
    pub(super) fn namenode_image_slice(&mut self, run: u64) {
        if run != self.namenode.run {
            return;
        }
        let Some(Checkpoint { slot, .. }) = self.namenode.checkpoint else { return };
        let limit = usize::try_from(self.chance.between(1, 40)).unwrap_or(1);
        let Some(core) = &mut self.namenode.core else { return };
        let (changes, more) = core.next_changes(limit);
        if self.chance.permille(self.settings.image_failure_permille) {
            // It cannot be written: it will be made anew.
            core.reset_image(SLOTS[slot]);
            self.namenode.images[slot] = Image { is_detached: true, ..Image::default() };
            self.namenode.checkpoint = None;
            return;
        }
        let image = &mut self.namenode.images[slot];
        for (key, record) in changes {
            match record {
                Some(record) => {
                    assert_eq!(record.key(), key, "a record knows its key");
                    image.records.insert(key, record);
                }
                None => _ = image.records.remove(&key),
            }
        }
        if more {
            let delay_ms = self.chance.between(0, 300);
            return self.schedule.after(delay_ms, Happening::ImageSlice { run });
        }
        if let Some(checkpoint) = &mut self.namenode.checkpoint {
            checkpoint.is_complete = true;
        }
        self.finish_image();
    }

    /// The image is whole when all that it holds is on disk in the journal as well.
    fn finish_image(&mut self) {
        let synced = self.namenode.journal.synced();
        let Some(checkpoint) = self.namenode.checkpoint.take_if(|it| it.is_complete && it.tx <= synced) else { return };
        let image = &mut self.namenode.images[checkpoint.slot];
        (image.tx, image.digest, image.is_whole) = (checkpoint.tx, checkpoint.digest, true);
    }

    fn namenode_timer(&mut self) {
        let Some(due) = self.namenode.core.as_ref().and_then(Namesystem::poll_timeout) else { return };
        // A clock moves on between two looks at it.
        let due = due.max(self.schedule.now() + Duration::from_millis(1));
        if due < self.namenode.timer_at {
            self.namenode.timer_at = due;
            self.schedule.at(due, Happening::NamenodeTimer { run: self.namenode.run });
        }
    }

    pub(super) fn namenode_due(&mut self, run: u64) {
        let now = self.schedule.now();
        if run != self.namenode.run || now < self.namenode.timer_at {
            return;
        }
        if now < self.namenode.stalled_until {
            self.namenode.timer_at = self.namenode.stalled_until;
            return self.schedule.at(self.namenode.stalled_until, Happening::NamenodeTimer { run });
        }
        self.namenode.timer_at = TimeMs::NEVER;
        if let Some(core) = &mut self.namenode.core {
            core.handle_timeout(now);
        }
        self.namenode_drain(None);
    }

    fn mutate_request(&mut self, request: &mut Request) {
        match (self.mutant, request) {
            (Some(Mutant::ReuseOperation), Request::Create { operation, .. } | Request::Delete { operation, .. }) => {
                operation.sequence /= 2;
            }
            (Some(Mutant::StaleReports), Request::DatanodeBlockReport { storage, replicas, .. }) => {
                let reported = std::mem::take(replicas);
                *replicas = self.namenode.old_reports.insert(*storage, reported.clone()).unwrap_or(reported);
            }
            (Some(Mutant::ReportAnyLife), Request::DatanodeBlockReport { replicas, .. }) => {
                for replica in replicas {
                    if let Some((_, _, block)) = self.oracle.model().block(replica.block.id) {
                        replica.block = block.block();
                        replica.len_bytes = block.committed.map_or(replica.len_bytes, |(len_bytes, _)| len_bytes);
                    }
                }
            }
            _ => {}
        }
    }

    fn mutate_commands(&mut self, at: usize, commands: &mut Vec<DatanodeCommand>) {
        match self.mutant {
            Some(Mutant::DropCopies) => {
                commands.retain(|command| !matches!(command, DatanodeCommand::Replicate { .. }));
            }
            Some(Mutant::DropDeletions) => {
                commands.retain(|command| !matches!(command, DatanodeCommand::Invalidate { .. }));
            }
            Some(Mutant::DropVerifications) => {
                commands.retain(|command| !matches!(command, DatanodeCommand::Verify { .. }));
            }
            Some(Mutant::RepeatCommands) => {
                let id = self.datanodes[at].me.id;
                let before = self.namenode.old_commands.remove(&id).unwrap_or_default();
                commands.extend(before);
                commands.truncate(2);
                self.namenode.old_commands.insert(id, commands.clone());
            }
            Some(Mutant::DeleteUnasked) if self.chance.permille(100) => {
                let blocks = self.datanodes[at].volumes.values().flat_map(|volume| volume.files.keys());
                let blocks: Vec<_> = blocks.copied().take(1).collect();
                commands.push(DatanodeCommand::Invalidate { blocks });
            }
            _ => {}
        }
    }
}
