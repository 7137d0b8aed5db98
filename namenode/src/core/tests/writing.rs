//! Open files: leases, blocks, pipelines, recovery.

use situ_wire::block::{Block, CommittedBlock, TokenMode};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{ClientId, DatanodeId, GenerationStamp, OperationId};
use situ_wire::messages::namenode::{FileKind, ReplicaChange, ReportedReplica, Request, Response};

use super::world::{BLOCK, ROOT, World, caller, code, committed, config, datanode_id, path, storage_of};
use crate::core::{Change, Edit, EditV1};

fn operation(client: u128, sequence: u64) -> OperationId {
    OperationId { client: ClientId(client), sequence }
}

fn len_bytes(world: &mut World, text: &str) -> (u64, bool) {
    match world.call(Request::Stat { path: path(text) }).unwrap() {
        Response::Status(Some(status)) => match status.kind {
            FileKind::File { len_bytes, open, .. } => (len_bytes, open),
            FileKind::Directory => panic!("a directory"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_stream_while_earlier_ones_are_not_yet_acknowledged() {
    let mut world = World::cluster(4, 2);
    let inode = world.create("/f", 3);
    let one = world.add_block(inode);
    let two = world.add_block(inode);
    assert_eq!((one.offset, two.offset), (0, BLOCK));
    let key = config().token_key;
    assert_eq!(key.check(&one.token, one.block, TokenMode::Write, world.now), Ok(()));
    // Until the first is final, nothing can be read, whatever comes later.
    let last = world.store(&two, BLOCK);
    let three = world.try_add_block(inode, vec![last]).unwrap();
    assert_eq!(len_bytes(&mut world, "/f"), (0, true));
    let first = world.store(&one, BLOCK);
    let third = world.store(&three, 5);
    assert_eq!(code(world.complete(inode, vec![third.clone()])), ErrorCode::InvalidArgument);
    assert_eq!(world.complete(inode, vec![first, third]), Ok(Response::Done));
    assert_eq!(len_bytes(&mut world, "/f"), (2 * BLOCK + 5, false));
    let blocks = world.blocks("/f");
    assert_eq!(blocks.iter().map(|block| block.len_bytes).collect::<Vec<_>>(), [BLOCK, BLOCK, 5]);
    assert!(blocks.iter().all(|block| block.locations.len() == 3 && block.root.is_some()));
    world.ns.check();
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn what_a_writer_claims_about_its_blocks_is_checked() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 2);
    let one = world.add_block(inode);
    let good = committed(&one, BLOCK);
    let stale = Block { generation: GenerationStamp(0), ..one.block };
    let unknown = Block { id: situ_wire::ids::BlockId(999), ..one.block };
    let stranger = DatanodeId(77);
    for (claim, expected) in [
        (CommittedBlock { len_bytes: BLOCK - 1, ..good.clone() }, ErrorCode::InvalidArgument),
        (CommittedBlock { len_bytes: BLOCK + 1, ..good.clone() }, ErrorCode::InvalidArgument),
        (CommittedBlock { block: stale, ..good.clone() }, ErrorCode::StaleGeneration),
        (CommittedBlock { block: unknown, ..good.clone() }, ErrorCode::InvalidArgument),
        (CommittedBlock { replicas: vec![stranger], ..good.clone() }, ErrorCode::InvalidArgument),
        (CommittedBlock { replicas: Vec::new(), ..good.clone() }, ErrorCode::InvalidArgument),
    ] {
        assert_eq!(code(world.try_add_block(inode, vec![claim])), expected);
    }
    assert!(world.try_add_block(inode, vec![good.clone()]).is_ok());
    // To say it again is harmless; to say something else is not.
    assert!(world.try_add_block(inode, vec![good.clone()]).is_ok());
    let other = CommittedBlock { root: situ_wire::block::BlockRoot([9; 32]), ..good };
    assert_eq!(code(world.try_add_block(inode, vec![other])), ErrorCode::InvalidArgument);
    world.ns.check();
}

#[test]
fn the_acknowledged_count_until_they_fail_to_be_confirmed() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 3);
    let block = world.add_block(inode);
    // Two say so themselves, the third is only acknowledged.
    let replica = ReportedReplica { block: block.block, len_bytes: 7 };
    for location in &block.locations[..2] {
        world.store_on(location.id, replica);
    }
    let silent = block.locations[2].id;
    world.complete(inode, vec![committed(&block, 7)]).unwrap();
    assert_eq!(world.readable("/f").len(), 3);
    world.ns.check();
    for _ in 0..59 {
        world.pass(1000);
        for id in world.up() {
            assert_eq!(world.heartbeat(id), [], "nothing to do yet");
        }
    }
    world.pass(2000);
    assert!(!world.readable("/f").contains(&silent));
    world.ns.check();
    world.live(3000);
    assert_eq!(world.readable("/f").len(), 3, "a copy was made");
    world.ns.check();
}

#[test]
fn a_new_life_of_a_block_fences_the_old_one() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 3);
    let one = world.add_block(inode);
    let pipeline: Vec<DatanodeId> = one.locations.iter().map(|location| location.id).collect();
    let operation = world.operation();
    let survivors = vec![pipeline[2], pipeline[0]];
    let recover = |block, survivors| Request::RecoverPipeline { inode, block, survivors, operation };
    assert_eq!(code(world.call(recover(one.block, vec![DatanodeId(99)]))), ErrorCode::InvalidArgument);
    assert_eq!(code(world.call(recover(one.block, Vec::new()))), ErrorCode::InvalidArgument);
    let Response::Block(anew) = world.call(recover(one.block, survivors.clone())).unwrap() else { panic!() };
    assert!(anew.block.generation > one.block.generation && anew.block.id == one.block.id);
    assert_eq!(anew.locations.iter().map(|location| location.id).collect::<Vec<_>>(), survivors);
    // A retry gets the same life.
    let Response::Block(again) = world.call(recover(one.block, survivors.clone())).unwrap() else { panic!() };
    assert_eq!(again.block, anew.block);
    // The old life can neither be committed nor recovered, and what is left of it goes.
    assert_eq!(code(world.complete(inode, vec![committed(&one, 3)])), ErrorCode::StaleGeneration);
    let operation = world.operation();
    let request = Request::RecoverPipeline { inode, block: one.block, survivors, operation };
    assert_eq!(code(world.call(request)), ErrorCode::StaleGeneration);
    let replica = ReportedReplica { block: one.block, len_bytes: 3 };
    world.store_on(pipeline[1], replica);
    let committed = world.store(&anew, 3);
    world.complete(inode, vec![committed]).unwrap();
    world.live(2000);
    assert!(world.holders(one.block).is_empty());
    world.live(5000);
    assert_eq!(world.holders(anew.block).len(), 3);
    world.ns.check();
}

#[test]
fn a_writer_has_so_many_blocks_unfinished_at_once() {
    let mut world = World::cluster(1, 1);
    let inode = world.create("/f", 1);
    let first = world.add_block(inode);
    for _ in 1..64 {
        world.add_block(inode);
    }
    assert_eq!(code(world.try_add_block(inode, Vec::new())), ErrorCode::TooMuch);
    // Those that are finished with the call do not count, and an abandoned one leaves its place.
    let first = world.store(&first, BLOCK);
    let block = world.try_add_block(inode, vec![first.clone()]).unwrap().block;
    assert_eq!(code(world.try_add_block(inode, vec![first])), ErrorCode::TooMuch);
    let operation = world.operation();
    world.call(Request::AbandonBlock { inode, block, operation }).unwrap();
    world.add_block(inode);
    world.ns.check();
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn only_the_last_unfinished_block_can_be_abandoned() {
    let mut world = World::cluster(2, 1);
    let inode = world.create("/f", 1);
    let (one, two) = (world.add_block(inode), world.add_block(inode));
    let abandon = |world: &mut World, block| {
        let operation = world.operation();
        world.call(Request::AbandonBlock { inode, block, operation })
    };
    assert_eq!(code(abandon(&mut world, one.block)), ErrorCode::InvalidArgument);
    assert_eq!(abandon(&mut world, two.block), Ok(Response::Done));
    assert_eq!(code(abandon(&mut world, two.block)), ErrorCode::InvalidArgument);
    let one = world.store(&one, 9);
    assert_eq!(world.complete(inode, vec![one]), Ok(Response::Done));
    assert_eq!(len_bytes(&mut world, "/f"), (9, false));
    world.ns.check();
}

#[test]
fn one_client_writes_a_file_at_a_time() {
    let mut world = World::cluster(1, 1);
    let inode = world.create("/f", 1);
    let request = world.create_request(2, "/f", 1);
    let overwrite = |world: &mut World, client| Request::Create {
        path: path("/f"),
        overwrite: true,
        parents: false,
        replication: 1,
        block_len_bytes: BLOCK,
        mode: 0o644,
        operation: world.operation_of(client),
    };
    assert_eq!(code(world.call(request.clone())), ErrorCode::BeingWritten);
    let theirs = overwrite(&mut world, 2);
    assert_eq!(code(world.call(theirs.clone())), ErrorCode::BeingWritten);
    // Another client cannot go on with it.
    let operation = world.operation_of(2);
    let steal = Request::Complete { inode, committed: Vec::new(), operation };
    assert_eq!(code(world.call(steal)), ErrorCode::LeaseLost);
    // Renewal keeps it, silence past the soft limit gives it away.
    world.live(59_000);
    world.call(Request::RenewLease { client: ClientId(1) }).unwrap();
    world.live(59_000);
    assert_eq!(code(world.call(theirs.clone())), ErrorCode::BeingWritten);
    world.live(2_000);
    assert!(world.call(theirs).is_ok());
    assert_eq!(code(world.try_add_block(inode, Vec::new())), ErrorCode::NotFound);
    world.ns.check();
    // Its own file a client may replace.
    let again = overwrite(&mut world, 2);
    assert!(world.call(again).is_ok());
    world.ns.check();
}

#[test]
fn a_client_belongs_to_one_user_and_its_id_is_told_to_nobody() {
    let mut world = World::cluster(1, 1);
    // As random as a client's id is.
    let client = 0x5eed_0123_4567_89ab_cdef_fedc_ba98_7654;
    let request = world.create_request(client, "/secret/f", 1);
    let Response::Created { inode, .. } = world.call(request).unwrap() else { panic!() };
    let add_block =
        |operation| Request::AddBlock { inode, committed: Vec::new(), exclude: Vec::new(), node: None, operation };
    let block = world.call(add_block(operation(client, 100))).unwrap();
    let Response::Block(block) = block else { panic!() };
    let eve = || caller("eve");

    // Whose file it is not learns neither its path nor who writes it, nor that it is there at all.
    let mut answers = Vec::new();
    for (at, inode) in [(1, inode), (2, situ_wire::ids::INodeId(999))] {
        let abandon = Request::AbandonBlock { inode, block: block.block, operation: operation(66, at) };
        let error = world.call_by(eve(), abandon).unwrap_err();
        assert_eq!(error.subject, inode.to_string());
        answers.push((error.code, error.message));
    }
    assert_eq!(answers[0], answers[1]);
    // Nobody is told the client's id, not even the same user.
    let others = [world.create_request(2, "/secret/f", 1), add_block(operation(2, 1))];
    let id = ClientId(client).to_string();
    for request in others {
        let error = world.call(request).unwrap_err();
        assert!(!error.to_string().contains(&id), "{error}");
    }

    // Who knows it all the same can neither use up its operations, nor be taken for it, nor keep its leases.
    let complete = Request::Complete { inode, committed: Vec::new(), operation: operation(client, 101) };
    let mkdir = |operation| Request::Mkdir { path: path("/"), parents: true, mode: 0o755, operation };
    let renew = Request::RenewLease { client: ClientId(client) };
    for restarted in [false, true] {
        if restarted {
            world.restart();
        }
        for request in [mkdir(operation(client, 101)), mkdir(operation(client, 100)), renew.clone()] {
            assert_eq!(code(world.call_by(eve(), request)), ErrorCode::PermissionDenied);
        }
        assert_eq!(world.call(renew.clone()), Ok(Response::Done));
        // Refused because its block is not finished: what eve said was not taken for it.
        world.live(5_000);
        assert_eq!(code(world.call(complete.clone())), ErrorCode::InvalidArgument);
    }
    // A client that has no file open has its user as well.
    world.call(mkdir(operation(77, 1))).unwrap();
    assert_eq!(code(world.call_by(eve(), mkdir(operation(77, 2)))), ErrorCode::PermissionDenied);
    world.restart();
    // After a start it is the first who calls, with a retry too.
    world.call(mkdir(operation(77, 1))).unwrap();
    assert_eq!(code(world.call_by(eve(), mkdir(operation(77, 2)))), ErrorCode::PermissionDenied);
    world.ns.check();
}

#[test]
fn a_left_file_keeps_its_blocks_up_to_the_first_unfinished_one() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 1);
    let (one, two, three) = (world.add_block(inode), world.add_block(inode), world.add_block(inode));
    let (first, third) = (world.store(&one, BLOCK), world.store(&three, BLOCK));
    world.try_add_block(inode, vec![first, third]).unwrap();
    // After the soft limit, somebody else's create closes it, and then finds it there.
    world.live(61_000);
    let request = world.create_request(2, "/f", 1);
    assert_eq!(code(world.call(request)), ErrorCode::AlreadyExists);
    assert_eq!(len_bytes(&mut world, "/f"), (BLOCK, false));
    assert_eq!(code(world.complete(inode, Vec::new())), ErrorCode::LeaseLost);
    world.ns.check();
    world.live(2000);
    assert!(world.holders(three.block).is_empty() && world.holders(two.block).is_empty());
    assert_eq!(world.holders(one.block).len(), 1);
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn the_hard_limit_closes_a_file_by_itself() {
    let mut world = World::cluster(1, 1);
    world.create("/f", 1);
    world.live(299_000);
    assert_eq!(len_bytes(&mut world, "/f"), (0, true));
    world.live(2_000);
    assert_eq!(len_bytes(&mut world, "/f"), (0, false));
    let recovered = |(_, edit): &&(_, Edit)| {
        matches!(edit, Edit::V1(EditV1 { operation: None, change: Change::RecoverFile { .. }, .. }))
    };
    assert_eq!(world.journal.iter().filter(recovered).count(), 1);
    world.ns.check();
}

#[test]
fn a_clock_that_was_set_back_leaves_no_file_locked() {
    let mut world = World::new();
    world.create("/f", 1);
    world.now.0 -= 900_000;
    world.restart();
    let request = world.create_request(2, "/f", 1);
    world.pass(59_000);
    assert_eq!(code(world.call(request.clone())), ErrorCode::BeingWritten);
    world.pass(2_000);
    assert_eq!(code(world.call(request)), ErrorCode::AlreadyExists);
    assert_eq!(len_bytes(&mut world, "/f"), (0, false));
    world.ns.check();
}

#[test]
fn the_hard_limit_deletes_what_was_being_copied() {
    let mut world = World::cluster(1, 1);
    let inode = world.create("/d/.1._COPYING_", 1);
    let whole = world.create("/d/.2._COPYING_", 1);
    world.create("/d/3._COPYING_", 1);
    let (block, other) = (world.add_block(inode), world.add_block(whole));
    let claims = [world.store(&block, BLOCK), world.store(&other, 5)];
    let [first, last] = claims;
    world.try_add_block(inode, vec![first]).unwrap();
    world.complete(whole, vec![last]).unwrap();
    world.live(299_000);
    assert_eq!(len_bytes(&mut world, "/d/.1._COPYING_"), (BLOCK, true));
    world.live(4_000);
    assert_eq!(world.call(Request::Stat { path: path("/d/.1._COPYING_") }), Ok(Response::Status(None)));
    assert!(world.holders(block.block).is_empty(), "its blocks are deleted");
    // What is whole and has not got its name goes too; what only looks like it stays.
    assert_eq!(world.call(Request::Stat { path: path("/d/.2._COPYING_") }), Ok(Response::Status(None)));
    assert_eq!(len_bytes(&mut world, "/d/3._COPYING_"), (0, false));
    world.ns.check();
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn what_was_copied_waits_for_its_name_and_no_longer() {
    let mut world = World::cluster(1, 1);
    for name in ["/.1._COPYING_", "/.2._COPYING_"] {
        world.write_file(name, 1, 5);
    }
    let rename = |world: &mut World, from: &str, to: &str| {
        let (from, to, operation) = (path(from), path(to), world.operation());
        world.call(Request::Rename { from, to, overwrite: false, operation })
    };
    world.live(200_000);
    world.restart();
    for id in world.up() {
        world.register(id);
        world.full_report(id);
    }
    // A restart gives it time anew: its writer could not reach the namenode.
    world.live(200_000);
    rename(&mut world, "/.1._COPYING_", "/f").unwrap();
    assert_eq!(code(rename(&mut world, "/f", "/.3._COPYING_")), ErrorCode::InvalidArgument);
    world.live(110_000);
    assert!(world.exists("/f") && !world.exists("/.2._COPYING_"));
    world.live(600_000);
    assert!(world.exists("/f"), "what has its name stays");
    world.ns.check();
}

#[test]
fn deleting_or_replacing_an_open_file_ends_its_writer() {
    let mut world = World::cluster(2, 1);
    let inode = world.create("/f", 2);
    let block = world.add_block(inode);
    let operation = world.operation_of(2);
    world.call(Request::Delete { path: path("/f"), recursive: false, operation }).unwrap();
    let claim = world.store(&block, 5);
    assert_eq!(code(world.complete(inode, vec![claim])), ErrorCode::NotFound);
    world.ns.check();
    world.live(2000);
    assert!(world.holders(block.block).is_empty(), "what it had written is deleted");
    let gone = world.create("/g", 1);
    let other = world.create("/h", 1);
    world.complete(other, Vec::new()).unwrap();
    let operation = world.operation();
    world.call(Request::Rename { from: path("/h"), to: path("/g"), overwrite: true, operation }).unwrap();
    assert_eq!(code(world.complete(gone, Vec::new())), ErrorCode::NotFound);
    world.ns.check();
}

#[test]
fn a_final_replica_of_another_length_than_committed_is_corrupt() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 2);
    let block = world.add_block(inode);
    let [one, two] = [block.locations[0].id, block.locations[1].id];
    world.store_on(one, ReportedReplica { block: block.block, len_bytes: 8 });
    world.store_on(two, ReportedReplica { block: block.block, len_bytes: 9 });
    world.complete(inode, vec![committed(&block, 8)]).unwrap();
    assert_eq!(world.readable("/f"), [one]);
    world.ns.check();
    world.live(4000);
    assert_eq!(world.readable("/f").len(), 2);
    assert!(world.disks[&two].replicas.get(&block.block.id).is_none_or(|replica| replica.len_bytes == 8));
    world.ns.check();
}

#[test]
fn a_pipeline_starts_at_the_writer_and_leaves_out_whom_it_cannot_use() {
    let mut world = World::cluster(6, 2);
    let inode = world.create("/f", 3);
    let node = Some(situ_wire::ids::NodeName("node-4".to_owned()));
    for _ in 0..20 {
        let operation = world.operation();
        let request = Request::AddBlock {
            inode,
            committed: Vec::new(),
            exclude: vec![datanode_id(1)],
            node: node.clone(),
            operation,
        };
        let Response::Block(block) = world.call(request).unwrap() else { panic!() };
        let racks: Vec<&str> = block.locations.iter().map(|location| location.rack.0.as_str()).collect();
        assert_eq!(block.locations[0].id, datanode_id(4));
        assert_eq!(racks, ["/rack-0", "/rack-1", "/rack-1"]);
        assert!(block.locations.iter().all(|location| location.id != datanode_id(1)));
    }
    // Full ones and suspects are left out; fewer than asked for is fine; none is an error.
    for number in 0..6 {
        world.disks.get_mut(&datanode_id(number)).unwrap().free_bytes = if number < 3 { 1 << 40 } else { BLOCK - 1 };
    }
    world.beat_all();
    world.pass(2000);
    world.heartbeat(datanode_id(0));
    world.heartbeat(datanode_id(3));
    world.pass(2000);
    let block = world.add_block(inode);
    assert_eq!(block.locations.iter().map(|location| location.id).collect::<Vec<_>>(), [datanode_id(0)]);
    world.pass(3000);
    let error = world.try_add_block(inode, Vec::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::NoDatanodes);
    assert!(error.message.contains("0 of 6 live") && error.message.contains("; start datanodes"), "{error}");
    world.heartbeat(datanode_id(3));
    let error = world.try_add_block(inode, Vec::new()).unwrap_err();
    assert!(error.message.contains("1 of 6 live, 1 of them with too little room (at most 0.1 MiB), 0 of"), "{error}");
    assert!(error.message.contains("free space"), "{error}");
    // Reports of a volume's replicas are not taken from clients.
    let received = ReplicaChange::Received {
        storage: storage_of(datanode_id(0)),
        replica: ReportedReplica { block: block.block, len_bytes: 1 },
    };
    let request = Request::DatanodeBlockChanges { id: datanode_id(0), changes: vec![received] };
    assert_eq!(code(world.call_by(caller(ROOT), request)), ErrorCode::PermissionDenied);
}
