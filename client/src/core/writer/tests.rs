use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use situ_wire::block::{Block, BlockToken, CommittedBlock, DatanodeLocation, LocatedBlock, TokenMode};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, NodeName, RackName};
use situ_wire::messages::datanode::WriteStage;
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;
use situ_wire::tree::{Tree, TreeBuilder};

use super::*;
use crate::error::ClientError;

const NOW: TimeMs = TimeMs(1_000);

fn location(id: u128) -> DatanodeLocation {
    DatanodeLocation {
        id: DatanodeId(id),
        node: NodeName(format!("node-{id}")),
        rack: RackName("/rack".into()),
        address: SocketAddr::from(([127, 0, 0, 1], u16::try_from(id).unwrap())),
    }
}

fn located(id: u64, generation: u64, members: &[u128]) -> LocatedBlock {
    LocatedBlock {
        block: Block { id: BlockId(id), generation: GenerationStamp(generation) },
        offset: 0,
        len_bytes: 0,
        root: None,
        locations: members.iter().copied().map(location).collect(),
        token: BlockToken { mode: TokenMode::Write, client: ClientId(1), expires: TimeMs::NEVER, tag: [0; 32] },
    }
}

fn limits() -> WriteLimits {
    WriteLimits {
        block_len_bytes: 100,
        window_bytes: 250,
        open_timeout: Duration::from_secs(4),
        ack_timeout: Duration::from_secs(10),
        finish_timeout: Duration::from_secs(30),
    }
}

fn tree(parts: &[&[u8]]) -> Arc<Tree> {
    let mut builder = TreeBuilder::new();
    parts.iter().for_each(|part| builder.update(part));
    Arc::new(builder.finish())
}

fn effects(core: &mut FileWrite) -> Vec<Effect> {
    core.check();
    std::iter::from_fn(|| core.poll_effect()).collect()
}

fn pipeline(slot: Slot, attempt: u32) -> PipelineId {
    PipelineId { slot, attempt }
}

fn packet(offset: u64, byte: u8, len: usize) -> Packet {
    Packet { offset, bytes: Bytes::from(vec![byte; len]), crc32c: 7 }
}

fn written(byte: u8, len: usize) -> Event {
    Event::Written { bytes: Bytes::from(vec![byte; len]), crc32c: 7 }
}

/// A file with 60 bytes written in two packets, the pipeline 1-2-3 ready and the first packet acknowledged.
fn streaming() -> FileWrite {
    let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    core.handle(NOW, written(b'a', 40));
    core.handle(NOW, written(b'b', 20));
    core.handle(NOW, Event::Added { slot: 0, result: Ok(located(7, 1, &[1, 2, 3])) });
    core.handle(NOW, Event::Ready { pipeline: pipeline(0, 1) });
    core.handle(NOW, Event::Received { pipeline: pipeline(0, 1), len_bytes: 40 });
    effects(&mut core);
    core
}

#[test]
fn a_file_of_two_blocks_without_trouble() {
    let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    core.handle(NOW, written(b'a', 100));
    let bytes = packet(0, b'a', 100).bytes;
    assert_eq!(
        effects(&mut core),
        [
            Effect::Hash { slot: 0, bytes },
            Effect::EndHash { slot: 0 },
            Effect::AddBlock { slot: 0, committed: vec![], exclude: vec![] },
        ]
    );
    core.handle(NOW, Event::Added { slot: 0, result: Ok(located(7, 1, &[1, 2])) });
    let open = Effect::Open { pipeline: pipeline(0, 1), located: located(7, 1, &[1, 2]), stage: WriteStage::Create };
    assert_eq!(effects(&mut core), [open]);
    core.handle(NOW, Event::Ready { pipeline: pipeline(0, 1) });
    assert_eq!(effects(&mut core), [Effect::Send { pipeline: pipeline(0, 1), packet: packet(0, b'a', 100) }]);
    let first = tree(&[&[b'a'; 100]]);
    core.handle(NOW, Event::Tree { slot: 0, tree: Arc::clone(&first) });
    assert_eq!(effects(&mut core), [Effect::Finish { pipeline: pipeline(0, 1), tree: Arc::clone(&first) }]);

    // The second block begins while the first is not final.
    core.handle(NOW, written(b'b', 10));
    let asked = Effect::AddBlock { slot: 1, committed: vec![], exclude: vec![] };
    assert_eq!(effects(&mut core), [Effect::Hash { slot: 1, bytes: packet(0, b'b', 10).bytes }, asked]);
    core.handle(NOW, Event::Finished { pipeline: pipeline(0, 1), replicas: vec![DatanodeId(1), DatanodeId(2)] });
    core.handle(NOW, Event::Close);
    core.handle(NOW, Event::Added { slot: 1, result: Ok(located(8, 1, &[2, 1])) });
    core.handle(NOW, Event::Ready { pipeline: pipeline(1, 1) });
    let second = tree(&[&[b'b'; 10]]);
    core.handle(NOW, Event::Tree { slot: 1, tree: Arc::clone(&second) });
    effects(&mut core);
    core.handle(NOW, Event::Finished { pipeline: pipeline(1, 1), replicas: vec![DatanodeId(2), DatanodeId(1)] });
    let commit = |id, len_bytes, tree: &Tree, replicas: [u128; 2]| CommittedBlock {
        block: Block { id: BlockId(id), generation: GenerationStamp(1) },
        len_bytes,
        root: tree.root,
        replicas: replicas.map(DatanodeId).to_vec(),
    };
    let committed = vec![commit(7, 100, &first, [1, 2]), commit(8, 10, &second, [2, 1])];
    assert_eq!(effects(&mut core), [Effect::Complete { committed }]);
    core.handle(NOW, Event::Completed { result: Ok(()) });
    assert_eq!(effects(&mut core), [Effect::End { result: Ok(110) }]);
}

#[test]
fn an_empty_file_is_just_closed() {
    let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    core.handle(NOW, Event::Close);
    assert_eq!(effects(&mut core), [Effect::Complete { committed: vec![] }]);
}

#[test]
fn a_failed_member_is_left_out_and_what_is_not_acknowledged_is_sent_again() {
    let mut core = streaming();
    let broken =
        Event::Broken { pipeline: pipeline(0, 1), member: Some((DatanodeId(2), ErrorCode::Io)), reason: "disk".into() };
    core.handle(NOW, broken);
    let block = located(7, 1, &[]).block;
    let survivors = vec![DatanodeId(1), DatanodeId(3)];
    assert_eq!(
        effects(&mut core),
        [Effect::Drop { pipeline: pipeline(0, 1) }, Effect::RecoverPipeline { slot: 0, block, survivors }]
    );
    core.handle(NOW, Event::Recovered { slot: 0, result: Ok(located(7, 2, &[1, 3])) });
    let stage = WriteStage::Resume { len_bytes: 40 };
    assert_eq!(effects(&mut core), [Effect::Open { pipeline: pipeline(0, 2), located: located(7, 2, &[1, 3]), stage }]);
    // What the old pipeline still says does not count.
    core.handle(NOW, Event::Received { pipeline: pipeline(0, 1), len_bytes: 60 });
    core.handle(NOW, Event::Ready { pipeline: pipeline(0, 2) });
    assert_eq!(effects(&mut core), [Effect::Send { pipeline: pipeline(0, 2), packet: packet(40, b'b', 20) }]);
}

#[test]
fn a_block_that_is_all_sent_is_mended_and_finished_again() {
    let mut core = streaming();
    core.handle(NOW, Event::Close);
    let whole = tree(&[&[b'a'; 40], &[b'b'; 20]]);
    core.handle(NOW, Event::Tree { slot: 0, tree: Arc::clone(&whole) });
    core.handle(NOW, Event::Received { pipeline: pipeline(0, 1), len_bytes: 60 });
    effects(&mut core);
    // Nobody says who failed: it is the one that was talked to.
    core.handle(NOW, Event::Broken { pipeline: pipeline(0, 1), member: None, reason: "lost".into() });
    core.handle(NOW, Event::Recovered { slot: 0, result: Ok(located(7, 2, &[2, 3])) });
    effects(&mut core);
    core.handle(NOW, Event::Ready { pipeline: pipeline(0, 2) });
    assert_eq!(effects(&mut core), [Effect::Finish { pipeline: pipeline(0, 2), tree: whole }]);
}

#[test]
fn a_pipeline_that_does_not_open_is_replaced_without_those_who_failed() {
    let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    core.handle(NOW, written(b'a', 10));
    core.handle(NOW, Event::Added { slot: 0, result: Ok(located(7, 1, &[1, 2])) });
    effects(&mut core);
    let member = Some((DatanodeId(2), ErrorCode::DiskFull));
    core.handle(NOW, Event::Broken { pipeline: pipeline(0, 1), member, reason: "full".into() });
    let block = located(7, 1, &[]).block;
    assert_eq!(
        effects(&mut core),
        [Effect::Drop { pipeline: pipeline(0, 1) }, Effect::AbandonBlock { slot: 0, block }]
    );
    core.handle(NOW, Event::Abandoned { slot: 0, result: Ok(()) });
    let exclude = vec![DatanodeId(2)];
    assert_eq!(effects(&mut core), [Effect::AddBlock { slot: 0, committed: vec![], exclude }]);
    // Better one that has failed than none.
    let error = RemoteError::new(ErrorCode::NoDatanodes, "/f", "none left");
    let refused = ClientError::Refused { operation: "add a block to", error };
    core.handle(NOW, Event::Added { slot: 0, result: Err(refused.clone()) });
    assert_eq!(effects(&mut core), [Effect::AddBlock { slot: 0, committed: vec![], exclude: vec![] }]);
    core.handle(NOW, Event::Added { slot: 0, result: Err(refused.clone()) });
    assert_eq!(effects(&mut core), [Effect::End { result: Err(refused) }]);
}

#[test]
fn silence_breaks_a_pipeline_and_idleness_does_not() {
    let mut core = streaming();
    assert_eq!(core.poll_timeout(), Some(TimeMs(11_000)));
    let mut opening = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    opening.handle(NOW, written(b'a', 10));
    opening.handle(NOW, Event::Added { slot: 0, result: Ok(located(7, 1, &[1, 2, 3])) });
    assert_eq!(opening.poll_timeout(), Some(TimeMs(13_000)), "each member has its time to open");
    core.handle(TimeMs(5_000), Event::Received { pipeline: pipeline(0, 1), len_bytes: 60 });
    assert_eq!(core.poll_timeout(), None, "nothing is owed");
    core.handle(TimeMs(50_000), written(b'c', 5));
    assert_eq!(core.poll_timeout(), Some(TimeMs(60_000)));
    effects(&mut core);
    core.handle_timeout(TimeMs(60_000));
    let block = located(7, 1, &[]).block;
    let survivors = vec![DatanodeId(2), DatanodeId(3)];
    assert_eq!(
        effects(&mut core),
        [Effect::Drop { pipeline: pipeline(0, 1) }, Effect::RecoverPipeline { slot: 0, block, survivors }]
    );
}

#[test]
fn the_last_member_is_tried_again_and_then_the_file_fails_with_all_that_happened() {
    let mut core = streaming();
    let mut now = NOW;
    for (attempt, members) in [(1, vec![2, 3]), (2, vec![3])] {
        core.handle(now, Event::Broken { pipeline: pipeline(0, attempt), member: None, reason: "gone".into() });
        let located = located(7, u64::from(attempt) + 1, &members);
        core.handle(now, Event::Recovered { slot: 0, result: Ok(located) });
    }
    effects(&mut core);
    for attempt in 3..8 {
        core.handle(now, Event::Broken { pipeline: pipeline(0, attempt), member: None, reason: "gone".into() });
        assert_eq!(effects(&mut core), [Effect::Drop { pipeline: pipeline(0, attempt) }]);
        let due = core.poll_timeout().unwrap();
        assert!(due > now, "the last member gets a rest");
        now = due;
        core.handle_timeout(now);
        let generation = u64::from(attempt) + 1;
        core.handle(now, Event::Recovered { slot: 0, result: Ok(located(7, generation, &[3])) });
        assert_eq!(effects(&mut core).len(), 2);
    }
    core.handle(now, Event::Broken { pipeline: pipeline(0, 8), member: None, reason: "gone".into() });
    let ended = effects(&mut core);
    let [Effect::Drop { .. }, Effect::End { result: Err(ClientError::Write(error)) }] = &ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!(error.failures.len(), 8);
    assert!(error.to_string().contains("node-1 at 127.0.0.1:1: gone; node-2"), "{error}");
    assert!(!core.has_room());
}

#[test]
fn a_last_member_whose_disk_is_full_is_not_tried_again() {
    let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
    core.handle(NOW, written(b'a', 40));
    core.handle(NOW, Event::Added { slot: 0, result: Ok(located(7, 1, &[1])) });
    core.handle(NOW, Event::Ready { pipeline: pipeline(0, 1) });
    core.handle(NOW, Event::Received { pipeline: pipeline(0, 1), len_bytes: 40 });
    effects(&mut core);
    let member = Some((DatanodeId(1), ErrorCode::DiskFull));
    core.handle(NOW, Event::Broken { pipeline: pipeline(0, 1), member, reason: "the disk is full".into() });
    let ended = effects(&mut core);
    let [Effect::Drop { .. }, Effect::End { result: Err(ClientError::Write(error)) }] = &ended[..] else {
        panic!("{ended:?}");
    };
    assert!(error.to_string().contains("tried: node-1 at 127.0.0.1:1: the disk is full;"), "{error}");
}

#[test]
fn acknowledgements_that_cannot_be_are_a_failure() {
    let mut core = streaming();
    core.handle(NOW, Event::Received { pipeline: pipeline(0, 1), len_bytes: 61 });
    assert!(matches!(effects(&mut core)[..], [Effect::Drop { .. }, Effect::RecoverPipeline { .. }]));
    let mut core = streaming();
    core.handle(NOW, Event::Finished { pipeline: pipeline(0, 1), replicas: vec![DatanodeId(1)] });
    assert!(matches!(effects(&mut core)[..], [Effect::Drop { .. }, Effect::RecoverPipeline { .. }]));
}

/// A cluster that does what a core wants, breaking pipelines as told, and keeps what each replica holds.
#[derive(Default)]
struct Cluster {
    /// By block: its generation, and the bytes that its members hold.
    blocks: BTreeMap<u64, (u64, Vec<u8>)>,
    order: Vec<u64>,
    pipelines: BTreeMap<PipelineId, LocatedBlock>,
    hashers: BTreeMap<Slot, TreeBuilder>,
    /// What is on its way to the core.
    coming: Vec<Event>,
    completed: Option<Vec<CommittedBlock>>,
    committed: Vec<CommittedBlock>,
    ended: Option<Result<u64, ClientError>>,
}

impl Cluster {
    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::AddBlock { slot, committed, .. } => {
                self.committed.extend(committed);
                let id = self.blocks.len() as u64 + 1;
                self.blocks.insert(id, (1, Vec::new()));
                self.order.push(id);
                self.coming.push(Event::Added { slot, result: Ok(located(id, 1, &[1, 2, 3])) });
            }
            Effect::AbandonBlock { slot, block } => {
                assert_eq!(self.order.pop(), Some(block.id.0), "only the last block may be given back");
                self.coming.push(Event::Abandoned { slot, result: Ok(()) });
            }
            Effect::RecoverPipeline { slot, block, survivors } => {
                let generation = &mut self.blocks.get_mut(&block.id.0).unwrap().0;
                assert_eq!(*generation, block.generation.0, "the present life is mended");
                *generation += 1;
                let members: Vec<u128> = survivors.iter().map(|id| id.0).collect();
                self.coming.push(Event::Recovered { slot, result: Ok(located(block.id.0, *generation, &members)) });
            }
            Effect::Open { pipeline, located, stage } => {
                let (generation, bytes) = self.blocks.get_mut(&located.block.id.0).unwrap();
                assert_eq!(*generation, located.block.generation.0);
                match stage {
                    WriteStage::Create => assert!(bytes.is_empty()),
                    WriteStage::Resume { len_bytes } => bytes.truncate(usize::try_from(len_bytes).unwrap()),
                }
                self.pipelines.insert(pipeline, located);
                self.coming.push(Event::Ready { pipeline });
            }
            Effect::Send { pipeline, packet } => {
                let Some(located) = self.pipelines.get(&pipeline) else { return };
                let bytes = &mut self.blocks.get_mut(&located.block.id.0).unwrap().1;
                assert_eq!(bytes.len() as u64, packet.offset, "packets arrive in order");
                bytes.extend_from_slice(&packet.bytes);
                self.coming.push(Event::Received { pipeline, len_bytes: packet.end() });
            }
            Effect::Finish { pipeline, tree } => {
                let Some(located) = self.pipelines.get(&pipeline) else { return };
                let bytes = &self.blocks[&located.block.id.0].1;
                assert_eq!(tree.root.0, *blake3::hash(bytes).as_bytes(), "what is finished is what was sent");
                let replicas = located.locations.iter().map(|location| location.id).collect();
                self.coming.push(Event::Finished { pipeline, replicas });
            }
            Effect::Drop { pipeline } => drop(self.pipelines.remove(&pipeline)),
            Effect::Hash { slot, bytes } => self.hashers.entry(slot).or_default().update(&bytes),
            Effect::EndHash { slot } => {
                let tree = Arc::new(self.hashers.remove(&slot).unwrap().finish());
                self.coming.push(Event::Tree { slot, tree });
            }
            Effect::Complete { committed } => {
                self.committed.extend(committed);
                self.completed = Some(self.committed.clone());
                self.coming.push(Event::Completed { result: Ok(()) });
            }
            Effect::End { result } => self.ended = Some(result),
        }
    }

    /// Delivers one of the events that may come next: pipelines keep their order, all else may overtake.
    fn deliver(&mut self, choice: usize) -> Option<Event> {
        if self.coming.is_empty() {
            return None;
        }
        let of = |event: &Event| match event {
            Event::Ready { pipeline } | Event::Received { pipeline, .. } | Event::Finished { pipeline, .. } => {
                Some(*pipeline)
            }
            _ => None,
        };
        let chosen = choice % self.coming.len();
        let at = match of(&self.coming[chosen]) {
            Some(pipeline) => self.coming.iter().position(|event| of(event) == Some(pipeline)).unwrap(),
            None => chosen,
        };
        Some(self.coming.remove(at))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever breaks whenever, a file that is closed holds what was written, in order.
    #[test]
    fn a_closed_file_holds_what_was_written(
        pieces in prop::collection::vec(1_usize..=50, 0..14),
        choices in prop::collection::vec((0_u8..8, any::<usize>(), 0_u128..4), 0..80),
    ) {
        let mut core = FileWrite::new(DfsPath::root().join("f").unwrap(), limits());
        let mut cluster = Cluster::default();
        let mut expected = Vec::new();
        let mut pieces = pieces.into_iter();
        let mut now = NOW;
        let mut closed = false;
        let mut choices = choices.into_iter();
        for round in 0.. {
            prop_assert!(round < 10_000, "the writing makes progress");
            while let Some(effect) = core.poll_effect() {
                cluster.act(effect);
            }
            core.check();
            if cluster.ended.is_some() {
                break;
            }
            let (kind, choice, victim) = choices.next().unwrap_or((0, round, 0));
            match kind {
                1 => {
                    // A pipeline breaks: at a member that is named, or at one that is not.
                    if let Some(pipeline) = cluster.pipelines.keys().nth(choice % 3).copied() {
                        let code = if choice % 2 == 0 { ErrorCode::Unavailable } else { ErrorCode::Io };
                        let member = (victim > 0).then_some((DatanodeId(victim), code));
                        cluster.pipelines.remove(&pipeline);
                        core.handle(now, Event::Broken { pipeline, member, reason: "broken".into() });
                        continue;
                    }
                }
                2 => {
                    now = now + Duration::from_secs(40);
                    core.handle_timeout(now);
                    continue;
                }
                _ => {}
            }
            if core.has_room() && !closed && (choice % 2 == 0 || cluster.coming.is_empty()) {
                match pieces.next() {
                    Some(len) => {
                        let len = len.min(100 - expected.len() % 100);
                        let byte = u8::try_from(expected.len() % 251).unwrap();
                        expected.extend(vec![byte; len]);
                        core.handle(now, written(byte, len));
                    }
                    None => {
                        closed = true;
                        core.handle(now, Event::Close);
                    }
                }
            } else if let Some(event) = cluster.deliver(choice) {
                core.handle(now, event);
            } else if let Some(due) = core.poll_timeout() {
                now = now.max(due);
                core.handle_timeout(now);
            }
        }
        match cluster.ended.unwrap() {
            Ok(len_bytes) => {
                let committed = cluster.completed.unwrap();
                let ids: Vec<u64> = committed.iter().map(|commit| commit.block.id.0).collect();
                prop_assert_eq!(&ids, &cluster.order);
                let found: Vec<u8> = ids.iter().flat_map(|id| cluster.blocks[id].1.clone()).collect();
                prop_assert_eq!(len_bytes, expected.len() as u64);
                prop_assert_eq!(found, expected);
                for commit in committed {
                    prop_assert_eq!(commit.block.generation.0, cluster.blocks[&commit.block.id.0].0);
                }
            }
            Err(error) => prop_assert!(matches!(error, ClientError::Write(_)), "{}", error),
        }
    }
}
