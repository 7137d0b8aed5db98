use std::time::Duration;

use situ_runtime::disk::Space;
use situ_wire::block::TokenMode;
use situ_wire::block::{Block, BlockToken, BlockTokenKey, DatanodeLocation};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{BlockId, ClientId, ClusterId, DatanodeId, GenerationStamp, NodeName, RackName, StorageId};
use situ_wire::messages::datanode::WriteStage;
use situ_wire::messages::namenode::{DatanodeCommand, ReplicaChange, ReportedReplica, Request, Response};
use situ_wire::time::TimeMs;

use super::replicas::ReplicaState;
use super::tokens::TokenJudge;
use super::{
    CallError, CallId, CallKind, Core, CoreConfig, Effect, Event, Me, RequestId, StopReason, VolumeAtStart, WriteGrant,
    WriterEnd, WriterId,
};
use crate::storage::{Health, IndexedReplica, Prior, ScannedReplica, Verdict};

const ONE: StorageId = StorageId(1);
const TWO: StorageId = StorageId(2);
const KEY: BlockTokenKey = BlockTokenKey([3; 32]);
const T0: TimeMs = TimeMs(1_000_000);
/// The namenode's time, which is another.
const THEIRS: TimeMs = TimeMs(7_000_000);

fn block(id: u64, generation: u64) -> Block {
    Block { id: BlockId(id), generation: GenerationStamp(generation) }
}

fn me() -> Me {
    Me {
        id: DatanodeId(7),
        cluster: ClusterId(8),
        node: NodeName("n".to_owned()),
        rack: RackName("/r".to_owned()),
        address: ([127, 0, 0, 1], 9).into(),
    }
}

fn config() -> CoreConfig {
    CoreConfig {
        capacity_limit_bytes: None,
        reserved_bytes: 100,
        keep_abandoned: Duration::from_secs(60),
        scrub_period: Duration::from_secs(1000),
        scrub_rate_bytes: 0,
        replications: 1,
        report_slice_blocks: 1000,
    }
}

fn volume(storage: StorageId, replicas: &[(Block, u64)]) -> VolumeAtStart {
    let replica = |(block, len_bytes): &(Block, u64)| ScannedReplica {
        block: *block,
        len_bytes: *len_bytes,
        health: Health::Final,
    };
    let space = Space { capacity_bytes: 10_000, free_bytes: 5_000 };
    VolumeAtStart { storage, space, replicas: replicas.iter().map(replica).collect(), scrubbed: None }
}

fn drain(core: &mut Core) -> Vec<Effect> {
    core.check();
    std::iter::from_fn(|| core.poll_effect()).collect()
}

fn step(core: &mut Core, now: TimeMs, event: Event) -> Vec<Effect> {
    core.handle(now, event);
    drain(core)
}

fn tick(core: &mut Core) -> (TimeMs, Vec<Effect>) {
    let now = core.poll_timeout();
    assert_ne!(now, TimeMs::NEVER);
    core.handle_timeout(now);
    (now, drain(core))
}

fn answer(session: u64, kind: CallKind, result: Result<Response, CallError>) -> Event {
    Event::Answered { call: CallId { session, kind }, result }
}

fn registered() -> Response {
    Response::Registered { cluster: ClusterId(8), key: KEY, heartbeat_ms: 1000, now: THEIRS }
}

fn commands(commands: Vec<DatanodeCommand>) -> Response {
    Response::Commands { commands, key: KEY, now: THEIRS }
}

/// What has tokens judged after an answer at `now`.
fn judge(now: TimeMs) -> Effect {
    Effect::Judge(TokenJudge::new(KEY, THEIRS, now))
}

fn lost() -> CallError {
    CallError { code: None, message: "no answer".to_owned() }
}

/// A datanode that is registered and has reported these replicas of volume one; heartbeats come far later.
fn quiet(replicas: &[(Block, u64)]) -> Core {
    let mut core = Core::new(me(), config(), vec![volume(ONE, replicas)], T0);
    core.handle_timeout(T0);
    core.handle(T0, answer(1, CallKind::Register, Ok(registered_rarely())));
    core.handle(T0, answer(1, CallKind::Report, Ok(Response::Done)));
    drain(&mut core);
    core
}

fn registered_rarely() -> Response {
    Response::Registered { cluster: ClusterId(8), key: KEY, heartbeat_ms: u32::MAX, now: THEIRS }
}

fn open(request: u64, block: Block, stage: WriteStage) -> Event {
    Event::OpenWrite { request: RequestId(request), block, stage, limit_bytes: 1000 }
}

fn granted(request: u64, writer: u64, prior: Prior, len_bytes: u64) -> Effect {
    let grant = WriteGrant { writer: WriterId(writer), storage: ONE, prior, len_bytes };
    Effect::GrantWrite { request: RequestId(request), grant }
}

fn ended(writer: u64, end: WriterEnd) -> Event {
    Event::WriterEnded { writer: WriterId(writer), end }
}

fn refusal(effects: &[Effect]) -> Option<ErrorCode> {
    match effects {
        [Effect::RefuseWrite { error, .. }] => Some(error.code),
        _ => None,
    }
}

#[test]
fn a_replica_is_written_confirmed_indexed_and_told() {
    let mut core = quiet(&[]);
    let created = step(&mut core, T0, open(1, block(5, 2), WriteStage::Create));
    assert_eq!(created, [granted(1, 0, Prior::Nothing, 0)]);
    assert_eq!(core.replicas().final_replica(block(5, 2)).unwrap_err().code, ErrorCode::Unavailable);
    let known = IndexedReplica { generation: GenerationStamp(2), len_bytes: 900 };
    assert_eq!(
        step(&mut core, T0, ended(0, WriterEnd::Final { len_bytes: 900 })),
        [
            Effect::ConfirmFinal { writer: WriterId(0), counts: true },
            Effect::Index { storage: ONE, id: BlockId(5), replica: Some(known) },
        ]
    );
    assert_eq!(core.replicas().final_replica(block(5, 2)), Ok((ONE, 900)));
    // It is told soon, with what else happens within that time.
    let (now, effects) = tick(&mut core);
    assert_eq!(now, T0 + Duration::from_millis(5));
    let replica = ReportedReplica { block: block(5, 2), len_bytes: 900 };
    let changes = vec![ReplicaChange::Received { storage: ONE, replica }];
    let call = CallId { session: 1, kind: CallKind::Changes };
    let told = Effect::Call { call, request: Request::DatanodeBlockChanges { id: DatanodeId(7), changes } };
    assert_eq!(effects, std::slice::from_ref(&told));
    // Not answered: it is told again.
    assert_eq!(step(&mut core, now, answer(1, CallKind::Changes, Err(lost()))), []);
    let (again, effects) = tick(&mut core);
    assert_eq!((again, effects), (now + Duration::from_millis(500), vec![told]));
    assert_eq!(step(&mut core, again, answer(1, CallKind::Changes, Ok(Response::Done))), []);
}

#[test]
fn only_a_newer_life_is_written_and_only_an_older_one_resumed() {
    let resume = |len_bytes| WriteStage::Resume { len_bytes };
    for (generation, stage, expected) in [
        (4, WriteStage::Create, ErrorCode::StaleGeneration),
        (5, WriteStage::Create, ErrorCode::StaleGeneration),
        (4, resume(0), ErrorCode::StaleGeneration),
        (5, resume(300), ErrorCode::StaleGeneration),
        (6, resume(301), ErrorCode::InvalidArgument),
    ] {
        let mut core = quiet(&[(block(1, 5), 300)]);
        let effects = step(&mut core, T0, open(1, block(1, generation), stage));
        assert_eq!(refusal(&effects), Some(expected), "{generation} {stage:?}");
        assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((ONE, 300)), "it is as it was");
    }
    let mut core = quiet(&[]);
    assert_eq!(refusal(&step(&mut core, T0, open(1, block(1, 6), resume(0)))), Some(ErrorCode::NotFound));
    // A final replica is opened again, shorter.
    let mut core = quiet(&[(block(1, 5), 300)]);
    let reopened = [
        granted(1, 0, Prior::Final(GenerationStamp(5)), 200),
        Effect::Index { storage: ONE, id: BlockId(1), replica: None },
    ];
    assert_eq!(step(&mut core, T0, open(1, block(1, 6), resume(200))), reopened);
    // A fresh one in a newer life waits until the older one is gone.
    let mut core = quiet(&[(block(1, 5), 300)]);
    assert_eq!(
        step(&mut core, T0, open(1, block(1, 6), WriteStage::Create)),
        [
            Effect::Index { storage: ONE, id: BlockId(1), replica: None },
            Effect::Delete { storage: ONE, block: block(1, 5) }
        ]
    );
    let gone = Event::Deleted { storage: ONE, block: block(1, 5) };
    assert_eq!(step(&mut core, T0, gone), [granted(1, 0, Prior::Nothing, 0)]);
}

#[test]
fn a_writer_of_an_older_life_stops_before_a_newer_one_begins() {
    let mut core = quiet(&[]);
    step(&mut core, T0, open(1, block(1, 1), WriteStage::Create));
    let resume = WriteStage::Resume { len_bytes: 50 };
    let stop = [Effect::StopWriter { writer: WriterId(0) }];
    assert_eq!(step(&mut core, T0, open(2, block(1, 2), resume)), stop);
    // A still newer life comes before the writer has stopped: the one in between is refused.
    assert_eq!(refusal(&step(&mut core, T0, open(3, block(1, 3), resume))), Some(ErrorCode::StaleGeneration));
    assert_eq!(refusal(&step(&mut core, T0, open(4, block(1, 2), resume))), Some(ErrorCode::StaleGeneration));
    let next = [granted(3, 1, Prior::BeingWritten(GenerationStamp(1)), 50)];
    assert_eq!(step(&mut core, T0, ended(0, WriterEnd::Abandoned { len_bytes: 60 })), next);
    // One that became final at the last moment does not count: the newer life goes on with it.
    assert_eq!(step(&mut core, T0, open(5, block(1, 4), resume)), [Effect::StopWriter { writer: WriterId(1) }]);
    assert_eq!(
        step(&mut core, T0, ended(1, WriterEnd::Final { len_bytes: 70 })),
        [
            Effect::ConfirmFinal { writer: WriterId(1), counts: false },
            granted(5, 2, Prior::Final(GenerationStamp(3)), 50),
            Effect::Index { storage: ONE, id: BlockId(1), replica: None },
        ]
    );
}

#[test]
fn an_abandoned_replica_waits_for_a_while_and_a_useless_one_goes_at_once() {
    let mut core = quiet(&[]);
    step(&mut core, T0, open(1, block(1, 1), WriteStage::Create));
    step(&mut core, T0, open(2, block(2, 1), WriteStage::Create));
    assert_eq!(step(&mut core, T0, ended(0, WriterEnd::Abandoned { len_bytes: 10 })), []);
    let delete = |id| Effect::Delete { storage: ONE, block: block(id, 1) };
    assert_eq!(step(&mut core, T0, ended(1, WriterEnd::Failed)), [delete(2)]);
    // A copy that comes again, in the same life, begins anew.
    assert_eq!(step(&mut core, T0, open(3, block(1, 1), WriteStage::Create)), [delete(1)]);
    let gone = Event::Deleted { storage: ONE, block: block(1, 1) };
    assert_eq!(step(&mut core, T0, gone), [granted(3, 2, Prior::Nothing, 0)]);
    assert_eq!(step(&mut core, T0, ended(2, WriterEnd::Abandoned { len_bytes: 10 })), []);
    // The deletion is told, then time passes.
    let (now, effects) = tick(&mut core);
    assert_eq!((now, effects.len()), (T0 + Duration::from_millis(5), 1));
    assert_eq!(tick(&mut core), (T0 + Duration::from_secs(60), vec![delete(1)]));
}

#[test]
fn what_a_failed_copy_left_makes_place_for_the_next_copy() {
    let mut core = quiet(&[]);
    step(&mut core, T0, open(1, block(1, 1), WriteStage::Create));
    step(&mut core, T0, ended(0, WriterEnd::Abandoned { len_bytes: 10 }));
    let delete = Effect::Delete { storage: ONE, block: block(1, 1) };
    assert_eq!(step(&mut core, T0, open(2, block(1, 1), WriteStage::Create)), [delete]);
    let gone = Event::Deleted { storage: ONE, block: block(1, 1) };
    assert_eq!(step(&mut core, T0, gone), [granted(2, 1, Prior::Nothing, 0)]);
}

#[test]
fn invalidating_takes_that_life_and_an_older_one() {
    let mut core = quiet(&[(block(1, 5), 300), (block(2, 5), 300), (block(4, 5), 300)]);
    step(&mut core, T0, open(1, block(3, 1), WriteStage::Create));
    let (now, effects) = tick(&mut core);
    assert_eq!(now, T0 + Duration::from_millis(u64::from(u32::MAX)));
    assert_eq!(effects.len(), 2, "a measurement and a heartbeat");
    let blocks = vec![block(1, 4), block(2, 5), block(3, 1), block(4, 7), block(9, 9)];
    let answered = answer(1, CallKind::Heartbeat, Ok(commands(vec![DatanodeCommand::Invalidate { blocks }])));
    assert_eq!(
        step(&mut core, now, answered),
        [
            judge(now),
            Effect::Index { storage: ONE, id: BlockId(2), replica: None },
            Effect::Delete { storage: ONE, block: block(2, 5) },
            Effect::StopWriter { writer: WriterId(0) },
            Effect::Index { storage: ONE, id: BlockId(4), replica: None },
            Effect::Delete { storage: ONE, block: block(4, 5) },
        ]
    );
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((ONE, 300)));
    assert_eq!(
        step(&mut core, now, ended(0, WriterEnd::Final { len_bytes: 4 })),
        [
            Effect::ConfirmFinal { writer: WriterId(0), counts: false },
            Effect::Index { storage: ONE, id: BlockId(3), replica: None },
            Effect::Delete { storage: ONE, block: block(3, 1) },
        ]
    );
    assert_eq!(step(&mut core, now, Event::Deleted { storage: ONE, block: block(2, 5) }), []);
    let (_, effects) = tick(&mut core);
    let changes =
        [block(1, 4), block(4, 7), block(9, 9), block(2, 5)].map(|block| ReplicaChange::Deleted { block }).to_vec();
    let call = CallId { session: 1, kind: CallKind::Changes };
    assert_eq!(effects, [Effect::Call { call, request: Request::DatanodeBlockChanges { id: DatanodeId(7), changes } }]);
}

#[test]
fn it_registers_until_it_is_known_then_reports_then_lives() {
    let mut core = Core::new(me(), config(), vec![volume(ONE, &[(block(1, 5), 300)]), volume(TWO, &[])], T0);
    let kinds = |effects: &[Effect]| -> Vec<(u64, CallKind)> {
        let kind = |effect: &Effect| match effect {
            Effect::Call { call, .. } => Some((call.session, call.kind)),
            _ => None,
        };
        effects.iter().filter_map(kind).collect()
    };
    let (now, effects) = tick(&mut core);
    assert_eq!((now, kinds(&effects)), (T0, vec![(1, CallKind::Register)]));
    assert_eq!(core.poll_timeout(), TimeMs::NEVER);
    step(&mut core, T0, answer(1, CallKind::Register, Err(lost())));
    let (now, effects) = tick(&mut core);
    assert_eq!((now, kinds(&effects)), (T0 + Duration::from_millis(50), vec![(2, CallKind::Register)]));
    let report = |storage, replicas: &[ReportedReplica]| Effect::Call {
        call: CallId { session: 2, kind: CallKind::Report },
        request: Request::DatanodeBlockReport {
            id: DatanodeId(7),
            storage,
            slice: 0,
            last: true,
            replicas: replicas.to_vec(),
        },
    };
    let replica = ReportedReplica { block: block(1, 5), len_bytes: 300 };
    let effects = step(&mut core, now, answer(2, CallKind::Register, Ok(registered())));
    assert_eq!(effects, [judge(now), report(ONE, &[replica])]);
    // A late answer of another session does not count.
    assert_eq!(step(&mut core, now, answer(1, CallKind::Register, Ok(registered()))), []);
    // What happens while it reports is told afterwards.
    step(
        &mut core,
        now,
        Event::Verified { storage: ONE, block: block(1, 5), verdict: Verdict::Corrupt(String::new()) },
    );
    assert_eq!(core.poll_timeout(), now + Duration::from_secs(1));
    let effects = step(&mut core, now, answer(2, CallKind::Report, Ok(Response::Done)));
    assert_eq!(effects, [report(TWO, &[])]);
    // A lost slice is told again, though not at once.
    assert_eq!(step(&mut core, now, answer(2, CallKind::Report, Err(lost()))), []);
    let (later, effects) = tick(&mut core);
    assert_eq!((later, effects), (now + Duration::from_millis(500), vec![report(TWO, &[])]));
    let effects = step(&mut core, later, answer(2, CallKind::Report, Ok(Response::Done)));
    assert_eq!(kinds(&effects), [(2, CallKind::Changes)]);
    assert_eq!(step(&mut core, later, answer(2, CallKind::Changes, Ok(Response::Done))), []);
    let (beat, effects) = tick(&mut core);
    assert_eq!((beat, kinds(&effects)), (now + Duration::from_secs(1), vec![(2, CallKind::Heartbeat)]));
    // The namenode has forgotten it: it registers and tells all of it again, what is damaged included.
    let unknown = CallError { code: Some(ErrorCode::NotRegistered), message: String::new() };
    let effects = step(&mut core, beat, answer(2, CallKind::Heartbeat, Err(unknown)));
    assert_eq!(kinds(&effects), [(3, CallKind::Register)]);
    step(&mut core, beat, answer(3, CallKind::Register, Ok(registered())));
    step(&mut core, beat, answer(3, CallKind::Report, Ok(Response::Done)));
    step(&mut core, beat, answer(3, CallKind::Report, Ok(Response::Done)));
    let (_, effects) = tick(&mut core);
    let changes = vec![ReplicaChange::Corrupt { block: block(1, 5) }];
    let call = CallId { session: 3, kind: CallKind::Changes };
    assert_eq!(effects, [Effect::Call { call, request: Request::DatanodeBlockChanges { id: DatanodeId(7), changes } }]);
}

#[test]
fn a_namenode_of_another_cluster_ends_it() {
    let mut core = Core::new(me(), config(), vec![volume(ONE, &[])], T0);
    tick(&mut core);
    let other = Response::Registered { cluster: ClusterId(9), key: KEY, heartbeat_ms: 1000, now: THEIRS };
    let effects = step(&mut core, T0, answer(1, CallKind::Register, Ok(other)));
    assert!(matches!(&effects[..], [Effect::Stop(StopReason::Refused(_))]), "{effects:?}");
}

#[test]
fn a_volume_that_fails_takes_its_replicas_and_writers_with_it_and_the_last_one_the_datanode() {
    let volumes = vec![volume(ONE, &[(block(1, 5), 300)]), volume(TWO, &[(block(2, 5), 300)])];
    let mut core = Core::new(me(), config(), volumes, T0);
    drain(&mut core);
    step(&mut core, T0, open(1, block(3, 1), WriteStage::Create));
    let probe = [Effect::Probe { storage: ONE }];
    assert_eq!(step(&mut core, T0, Event::DiskTrouble { storage: ONE }), probe);
    assert_eq!(step(&mut core, T0, Event::DiskTrouble { storage: ONE }), [], "one probe at a time");
    assert_eq!(step(&mut core, T0, Event::Probed { storage: ONE, failed: None }), [], "it works after all");
    step(&mut core, T0, Event::DiskTrouble { storage: ONE });
    assert_eq!(
        step(&mut core, T0, Event::Probed { storage: ONE, failed: Some("it is on fire".to_owned()) }),
        [Effect::StopWriter { writer: WriterId(0) }, Effect::Eject { storage: ONE }]
    );
    assert_eq!(core.replicas().final_replica(block(1, 5)).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(core.replicas().final_replica(block(2, 5)), Ok((TWO, 300)));
    assert_eq!(core.replicas().volumes.status()[0].failed.as_deref(), Some("it is on fire"));
    // The block may come back, to the other volume, before the old writer has noticed.
    let effects = step(&mut core, T0, open(2, block(3, 1), WriteStage::Create));
    let grant = WriteGrant { writer: WriterId(1), storage: TWO, prior: Prior::Nothing, len_bytes: 0 };
    assert_eq!(effects, [Effect::GrantWrite { request: RequestId(2), grant }]);
    assert_eq!(step(&mut core, T0, ended(0, WriterEnd::Failed)), []);
    step(&mut core, T0, Event::DiskTrouble { storage: TWO });
    let effects = step(&mut core, T0, Event::Probed { storage: TWO, failed: Some("so is this".to_owned()) });
    assert_eq!(effects.last(), Some(&Effect::Stop(StopReason::NoVolumes("so is this".to_owned()))));
}

#[test]
fn what_is_promised_to_writers_is_not_promised_again() {
    let mut core = quiet(&[]);
    // 5000 free less 100 reserved: four writers of 1000 fit.
    for request in 0..4 {
        let effects = step(&mut core, T0, open(request, block(request, 1), WriteStage::Create));
        assert_eq!(effects, [granted(request, request, Prior::Nothing, 0)]);
    }
    assert_eq!(refusal(&step(&mut core, T0, open(9, block(9, 1), WriteStage::Create))), Some(ErrorCode::DiskFull));
    // What one has written is gone from the disk, also before that is measured again.
    step(&mut core, T0, ended(0, WriterEnd::Final { len_bytes: 1000 }));
    assert_eq!(refusal(&step(&mut core, T0, open(9, block(9, 1), WriteStage::Create))), Some(ErrorCode::DiskFull));
    step(&mut core, T0, ended(1, WriterEnd::Final { len_bytes: 10 }));
    let effects = step(&mut core, T0, open(9, block(9, 1), WriteStage::Create));
    assert_eq!(effects, [granted(9, 4, Prior::Nothing, 0)]);
}

#[test]
fn copies_are_bounded_and_what_cannot_be_copied_is_said() {
    let mut core = quiet(&[(block(1, 5), 300), (block(2, 5), 10)]);
    let target = |id| DatanodeLocation {
        id: DatanodeId(id),
        node: NodeName(String::new()),
        rack: RackName(String::new()),
        address: me().address,
    };
    let token: BlockToken = KEY.issue(block(1, 5), TokenMode::Write, ClientId(0), T0);
    let replicate = |block, id| DatanodeCommand::Replicate { block, targets: vec![target(id)], token: token.clone() };
    let all = commands(vec![replicate(block(1, 5), 1), replicate(block(2, 5), 2), replicate(block(3, 5), 3)]);
    let (now, _) = tick(&mut core);
    let copy = |block, len_bytes, id| Effect::Replicate {
        storage: ONE,
        block,
        len_bytes,
        targets: vec![target(id)],
        token: token.clone(),
    };
    let effects = step(&mut core, now, answer(1, CallKind::Heartbeat, Ok(all)));
    assert_eq!(effects, [judge(now), copy(block(1, 5), 300, 1)]);
    let failed = vec![(DatanodeId(1), "unreachable".to_owned())];
    let verdict = Verdict::Corrupt("bits".to_owned());
    let done = Event::Replicated { storage: ONE, block: block(1, 5), failed, verdict };
    assert_eq!(
        step(&mut core, now, done),
        [
            copy(block(2, 5), 10, 2),
            Effect::Index { storage: ONE, id: BlockId(1), replica: None },
            Effect::MoveAside { storage: ONE, block: block(1, 5) },
        ]
    );
    let done = Event::Replicated { storage: ONE, block: block(2, 5), failed: Vec::new(), verdict: Verdict::Good };
    assert_eq!(step(&mut core, now, done), []);
    let (_, effects) = tick(&mut core);
    let Some(Effect::Call { request: Request::DatanodeBlockChanges { changes, .. }, .. }) = effects.first() else {
        panic!("{effects:?}");
    };
    let reason = "this datanode has no replica of it; ask the namenode again".to_owned();
    assert_eq!(
        *changes,
        [
            ReplicaChange::ReplicationFailed {
                block: block(1, 5),
                target: DatanodeId(1),
                reason: "unreachable".to_owned()
            },
            ReplicaChange::Corrupt { block: block(1, 5) },
            ReplicaChange::ReplicationFailed { block: block(3, 5), target: DatanodeId(3), reason },
        ]
    );
}

#[test]
fn the_scrubber_goes_round_and_a_suspect_comes_first() {
    let config = CoreConfig { scrub_rate_bytes: 1 << 30, ..config() };
    let mut core = Core::new(me(), config, vec![volume(ONE, &[(block(1, 5), 300), (block(2, 5), 10)])], T0);
    core.handle_timeout(T0);
    drain(&mut core);
    let verify = |id, rate_bytes| Effect::Verify { storage: ONE, block: block(id, 5), rate_bytes };
    let good = |id| Event::Verified { storage: ONE, block: block(id, 5), verdict: Verdict::Good };
    let reached = |id| Effect::IndexScrubbed { storage: ONE, id: BlockId(id) };
    let rate = Some(1 << 20);
    assert_eq!(tick(&mut core), (T0 + Duration::from_secs(60), vec![verify(1, rate)]));
    let now = T0 + Duration::from_secs(60);
    assert_eq!(step(&mut core, now, Event::Suspect { block: block(2, 5) }), []);
    assert_eq!(step(&mut core, now, good(1)), [reached(1), verify(2, None)]);
    assert_eq!(step(&mut core, now, good(2)), [verify(2, rate)]);
    assert_eq!(step(&mut core, now, good(2)), [reached(2)]);
    // The next pass begins when the period is over.
    assert_eq!(tick(&mut core), (T0 + Duration::from_secs(1000), vec![verify(1, rate)]));
    let bad = Event::Verified { storage: ONE, block: block(1, 5), verdict: Verdict::Corrupt("bits".to_owned()) };
    assert_eq!(
        step(&mut core, T0 + Duration::from_secs(1000), bad),
        [
            reached(1),
            Effect::Index { storage: ONE, id: BlockId(1), replica: None },
            Effect::MoveAside { storage: ONE, block: block(1, 5) },
            verify(2, rate),
        ]
    );
    assert_eq!(core.replicas().final_replica(block(1, 5)).unwrap_err().code, ErrorCode::Corrupt);
}

#[test]
fn a_verification_that_came_to_nothing_is_tried_again_after_a_rest() {
    let config = CoreConfig { scrub_rate_bytes: 1 << 30, ..config() };
    let mut core = Core::new(me(), config, vec![volume(ONE, &[(block(1, 5), 300), (block(2, 5), 10)])], T0);
    core.handle_timeout(T0);
    core.handle(T0, answer(1, CallKind::Register, Ok(registered_rarely())));
    core.handle(T0, answer(1, CallKind::Report, Ok(Response::Done)));
    drain(&mut core);
    let verify = |id, rate_bytes| vec![Effect::Verify { storage: ONE, block: block(id, 5), rate_bytes }];
    let verified = |id, verdict| Event::Verified { storage: ONE, block: block(id, 5), verdict };
    let exhausted = || Verdict::Undecided("too many open files".to_owned());
    let rest = Duration::from_secs(10);
    // In a pass, which does not go on.
    let (now, effects) = tick(&mut core);
    assert_eq!(effects, verify(1, Some(1 << 20)));
    assert_eq!(step(&mut core, now, verified(1, exhausted())), []);
    // One that the namenode doubts comes first, though not before either, and is told of when it is known to be good.
    let asked = DatanodeCommand::Verify { blocks: vec![block(2, 5)] };
    let asked = answer(1, CallKind::Heartbeat, Ok(commands(vec![asked])));
    assert_eq!(step(&mut core, now, asked), [judge(now)]);
    assert_eq!(tick(&mut core), (now + rest, verify(2, None)));
    let now = now + rest;
    assert_eq!(step(&mut core, now, verified(2, exhausted())), []);
    assert_eq!(tick(&mut core), (now + rest, verify(2, None)));
    let now = now + rest;
    assert_eq!(step(&mut core, now, verified(2, Verdict::Good)), verify(1, Some(1 << 20)));
    let replica = ReportedReplica { block: block(2, 5), len_bytes: 10 };
    let changes = vec![ReplicaChange::Received { storage: ONE, replica }];
    let call = CallId { session: 1, kind: CallKind::Changes };
    let request = Request::DatanodeBlockChanges { id: DatanodeId(7), changes };
    assert_eq!(tick(&mut core).1, [Effect::Call { call, request }]);
}

#[test]
fn a_replica_that_the_namenode_doubts_is_verified_and_told_of() {
    let mut core = quiet(&[(block(1, 5), 300), (block(2, 5), 10)]);
    let blocks = vec![block(1, 5), block(2, 4), block(3, 5)];
    let asked = answer(1, CallKind::Heartbeat, Ok(commands(vec![DatanodeCommand::Verify { blocks }])));
    let verify = Effect::Verify { storage: ONE, block: block(1, 5), rate_bytes: None };
    assert_eq!(step(&mut core, T0, asked), [judge(T0), verify]);
    let verified = |verdict| Event::Verified { storage: ONE, block: block(1, 5), verdict };
    assert_eq!(step(&mut core, T0, verified(Verdict::Good)), []);
    let replica = ReportedReplica { block: block(1, 5), len_bytes: 300 };
    let changes = vec![
        ReplicaChange::Deleted { block: block(2, 4) },
        ReplicaChange::Deleted { block: block(3, 5) },
        ReplicaChange::Received { storage: ONE, replica },
    ];
    let call = CallId { session: 1, kind: CallKind::Changes };
    let told = Effect::Call { call, request: Request::DatanodeBlockChanges { id: DatanodeId(7), changes } };
    let (now, effects) = tick(&mut core);
    assert_eq!(effects, [told]);
    // It was asked once: a later pass of the scrubber says nothing of a good replica.
    assert_eq!(step(&mut core, now, answer(1, CallKind::Changes, Ok(Response::Done))), []);
    assert_eq!(step(&mut core, now, verified(Verdict::Good)), []);
}

#[test]
fn of_two_replicas_in_one_life_none_is_deleted_before_one_is_verified() {
    let gone = |storage| Effect::Index { storage, id: BlockId(1), replica: None };
    let delete = |storage| Effect::Delete { storage, block: block(1, 5) };
    let verified = |verdict| Event::Verified { storage: ONE, block: block(1, 5), verdict };
    let start = || {
        let volumes = [ONE, TWO].map(|storage| volume(storage, &[(block(1, 5), 300)]));
        let mut core = Core::new(me(), config(), volumes.to_vec(), T0);
        core.handle_timeout(T0);
        let verify = Effect::Verify { storage: ONE, block: block(1, 5), rate_bytes: None };
        assert!(drain(&mut core).contains(&verify));
        core
    };
    let mut core = start();
    assert_eq!(step(&mut core, T0, verified(Verdict::Good)), [gone(TWO), delete(TWO)]);
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((ONE, 300)));
    let known = IndexedReplica { generation: GenerationStamp(5), len_bytes: 300 };
    let other = Effect::Index { storage: TWO, id: BlockId(1), replica: Some(known) };
    for bad in [Verdict::Corrupt("bits".to_owned()), Verdict::Gone] {
        let mut core = start();
        // Nobody has looked at the other one yet.
        let verify = Effect::Verify { storage: TWO, block: block(1, 5), rate_bytes: None };
        assert_eq!(step(&mut core, T0, verified(bad)), [other.clone(), gone(ONE), delete(ONE), verify]);
        assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((TWO, 300)));
    }
    // One that cannot be read keeps its files: the other one may be bad.
    let mut core = start();
    let verify = Effect::Verify { storage: TWO, block: block(1, 5), rate_bytes: None };
    let probe = Effect::Probe { storage: ONE };
    let unreadable = verified(Verdict::DiskFailed("input/output error".to_owned()));
    assert_eq!(step(&mut core, T0, unreadable), [probe, other.clone(), gone(ONE), verify]);
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((TWO, 300)));
    // The volume of one of them fails first, or the namenode wants neither.
    let failed = |storage| Event::Probed { storage, failed: Some("worn out".to_owned()) };
    let mut core = start();
    step(&mut core, T0, failed(ONE));
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((TWO, 300)));
    let mut core = start();
    step(&mut core, T0, failed(TWO));
    assert_eq!(step(&mut core, T0, verified(Verdict::Good)), []);
    let mut core = start();
    core.handle(T0, answer(1, CallKind::Register, Ok(registered_rarely())));
    drain(&mut core);
    let blocks = vec![block(1, 5)];
    let unwanted = answer(1, CallKind::Heartbeat, Ok(commands(vec![DatanodeCommand::Invalidate { blocks }])));
    let effects = step(&mut core, T0, unwanted);
    assert_eq!(effects, [judge(T0), gone(TWO), delete(TWO), gone(ONE), delete(ONE)]);
}

#[test]
fn a_replica_that_cannot_be_read_is_told_of_and_keeps_its_files() {
    let gone = Effect::Index { storage: ONE, id: BlockId(1), replica: None };
    let told = |core: &mut Core| {
        let (_, effects) = tick(core);
        match effects.first() {
            Some(Effect::Call { request: Request::DatanodeBlockChanges { changes, .. }, .. }) => changes.clone(),
            _ => panic!("{effects:?}"),
        }
    };
    let corrupt = ReplicaChange::Corrupt { block: block(1, 5) };
    let mut core = quiet(&[(block(1, 5), 300)]);
    let verdict = Verdict::DiskFailed("input/output error".to_owned());
    let unreadable = Event::Verified { storage: ONE, block: block(1, 5), verdict };
    assert_eq!(step(&mut core, T0, unreadable), [Effect::Probe { storage: ONE }, gone.clone()]);
    assert_eq!(core.replicas().final_replica(block(1, 5)).unwrap_err().code, ErrorCode::Corrupt);
    assert_eq!(told(&mut core), std::slice::from_ref(&corrupt));
    // So does one that could not be read at start, and one on another volume takes its place, in whatever order they come.
    let at_start = |storage, health| {
        let mut volume = volume(storage, &[(block(1, 5), 300)]);
        volume.replicas[0].health = health;
        volume
    };
    let start = |volumes| {
        let mut core = Core::new(me(), config(), volumes, T0);
        let effects = drain(&mut core);
        (core, effects)
    };
    let (mut core, effects) = start(vec![at_start(ONE, Health::Unreadable)]);
    assert_eq!(effects, std::slice::from_ref(&gone));
    core.handle_timeout(T0);
    core.handle(T0, answer(1, CallKind::Register, Ok(registered_rarely())));
    core.handle(T0, answer(1, CallKind::Report, Ok(Response::Done)));
    drain(&mut core);
    assert_eq!(told(&mut core), [corrupt]);
    let known = IndexedReplica { generation: GenerationStamp(5), len_bytes: 300 };
    let other = Effect::Index { storage: TWO, id: BlockId(1), replica: Some(known) };
    let (core, effects) = start(vec![at_start(ONE, Health::Unreadable), at_start(TWO, Health::Final)]);
    assert_eq!(effects, [other, gone]);
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((TWO, 300)));
    let (core, effects) = start(vec![at_start(TWO, Health::Final), at_start(ONE, Health::Unreadable)]);
    assert_eq!(effects, []);
    assert_eq!(core.replicas().final_replica(block(1, 5)), Ok((TWO, 300)));
}

/// Whatever comes in whatever order, the invariants hold, every request is answered once, and no two writers have the
/// same replica at once.
#[test]
fn any_order_of_events_keeps_the_invariants() {
    for seed in 0..300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut core =
            Core::new(me(), config(), vec![volume(ONE, &[(block(1, 3), 9)]), volume(TWO, &[(block(1, 3), 9)])], T0);
        let (mut now, mut next_request, mut open_requests) = (T0, 0, std::collections::BTreeSet::new());
        let (mut writers, mut deletes) = (Vec::<WriterId>::new(), Vec::new());
        for _ in 0..400 {
            let event = match draw(12) {
                0..5 => {
                    let stage = match draw(2) {
                        0 => WriteStage::Create,
                        _ => WriteStage::Resume { len_bytes: draw(20) },
                    };
                    next_request += 1;
                    open_requests.insert(RequestId(next_request));
                    open(next_request, block(draw(3), draw(12)), stage)
                }
                5..8 if !writers.is_empty() => {
                    let writer = writers.swap_remove(usize::try_from(draw(writers.len() as u64)).unwrap());
                    let len_bytes = 20 + draw(10);
                    let end = match draw(3) {
                        0 => WriterEnd::Final { len_bytes },
                        1 => WriterEnd::Abandoned { len_bytes },
                        _ => WriterEnd::Failed,
                    };
                    Event::WriterEnded { writer, end }
                }
                8..10 if !deletes.is_empty() => {
                    let (storage, block) = deletes.remove(0);
                    Event::Deleted { storage, block }
                }
                10 => {
                    let blocks = vec![block(draw(3), draw(12))];
                    answer(1, CallKind::Heartbeat, Ok(commands(vec![DatanodeCommand::Invalidate { blocks }])))
                }
                11 if draw(30) == 0 => Event::Probed { storage: TWO, failed: Some("gone".to_owned()) },
                _ => {
                    now = now + Duration::from_secs(draw(40));
                    answer(1, CallKind::Register, Ok(registered()))
                }
            };
            core.handle(now, event);
            for effect in drain(&mut core) {
                match effect {
                    Effect::GrantWrite { request, grant } => {
                        assert!(open_requests.remove(&request), "seed {seed}: answered twice");
                        writers.push(grant.writer);
                    }
                    Effect::RefuseWrite { request, .. } => {
                        assert!(open_requests.remove(&request), "seed {seed}: answered twice");
                    }
                    Effect::Delete { storage, block } => deletes.push((storage, block)),
                    _ => {}
                }
            }
        }
        for id in 0..3 {
            if let Some(replica) = core.replicas().get(BlockId(id))
                && let ReplicaState::BeingWritten { writer, .. } = replica.state
            {
                assert!(writers.contains(&writer), "seed {seed}: who writes was granted it and has not ended");
            }
        }
    }
}
