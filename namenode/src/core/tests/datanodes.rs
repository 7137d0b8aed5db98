//! Datanodes: liveness, reports, copies, placement.

use situ_wire::error::ErrorCode;
use situ_wire::ids::{BlockId, ClusterId, DatanodeId, GenerationStamp, NodeName};
use situ_wire::messages::namenode::{
    ClusterReport, DatanodeCommand, Liveness, ReplicaChange, ReportedReplica, Request, Response,
};
use situ_wire::time::WallTime;

use super::world::{World, code, datanode, datanode_id, path, storage_of};

fn report(world: &mut World) -> ClusterReport {
    match world.call(Request::Report).unwrap() {
        Response::Report(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn liveness(world: &mut World) -> Vec<Liveness> {
    report(world).datanodes.iter().map(|datanode| datanode.liveness).collect()
}

#[test]
fn a_datanode_is_asked_to_register_and_to_report() {
    let mut world = World::cluster(1, 1);
    let id = datanode_id(0);
    let unknown =
        Request::DatanodeHeartbeat { id: datanode_id(9), volumes: Vec::new(), transfers: 0, clock: WallTime(0) };
    let Ok(Response::Commands { commands, .. }) = world.by_datanode(unknown) else { panic!() };
    assert_eq!(commands, [DatanodeCommand::Register]);
    assert_eq!(world.heartbeat(id), []);
    world.register(id);
    assert_eq!(world.heartbeat(id), [DatanodeCommand::Report]);
    assert_eq!(world.heartbeat(id), [], "it is not asked at every heartbeat");
    world.full_report(id);
    world.pass(1000);
    assert_eq!(world.heartbeat(id), []);
    let mut registration = world.registration(id);
    registration.cluster = Some(ClusterId(0xbad));
    assert_eq!(code(world.by_datanode(Request::DatanodeRegister(registration))), ErrorCode::WrongCluster);
}

#[test]
fn a_datanode_speaks_for_itself_alone() {
    let mut world = World::cluster(2, 1);
    let (_, block) = world.write_file("/f", 1, 10);
    let holder = world.holders(block)[0];
    let other = world.up().into_iter().find(|id| *id != holder).unwrap();
    // It cannot come as another node, nor as the datanode that another node came as, living or dead.
    let mut invented = world.registration(other);
    invented.id = datanode_id(7);
    invented.node = NodeName("node-7".to_owned());
    assert_eq!(code(world.call_by(datanode(other), Request::DatanodeRegister(invented))), ErrorCode::WrongIdentity);
    world.pass(20_000);
    let mut taken = world.registration(holder);
    taken.node = NodeName(datanode(other).name);
    assert_eq!(code(world.call_by(datanode(other), Request::DatanodeRegister(taken))), ErrorCode::PermissionDenied);
    assert_eq!(world.warnings.iter().filter(|warning| warning.contains("speaks for it")).count(), 1);
    for id in [holder, other] {
        world.register(id);
        world.full_report(id);
    }
    // Nor can it say what another one holds, or ask what that shall do.
    let volumes = world.volumes(holder);
    let storage = storage_of(holder);
    for request in [
        Request::DatanodeHeartbeat { id: holder, volumes, transfers: 0, clock: WallTime(0) },
        Request::DatanodeBlockReport { id: holder, storage, slice: 0, last: true, replicas: Vec::new() },
        Request::DatanodeBlockChanges { id: holder, changes: vec![ReplicaChange::Deleted { block }] },
    ] {
        assert_eq!(code(world.call_by(datanode(other), request)), ErrorCode::PermissionDenied);
    }
    assert_eq!(world.readable("/f"), [holder]);
    world.ns.check();
}

#[test]
fn silence_makes_suspect_then_dead_but_the_namenodes_own_pause_does_not() {
    let mut world = World::cluster(2, 1);
    world.pass(2999);
    assert_eq!(liveness(&mut world), [Liveness::Live; 2]);
    world.pass(1);
    assert_eq!(liveness(&mut world), [Liveness::Suspect; 2]);
    world.heartbeat(datanode_id(0));
    assert_eq!(liveness(&mut world), [Liveness::Live, Liveness::Suspect]);
    world.pass(11_999);
    assert_eq!(liveness(&mut world), [Liveness::Suspect, Liveness::Suspect]);
    world.pass(1);
    assert_eq!(liveness(&mut world), [Liveness::Suspect, Liveness::Dead]);

    let mut world = World::cluster(2, 1);
    world.now.0 += 60_000;
    world.ns.handle_timeout(world.now);
    assert_eq!(liveness(&mut world), [Liveness::Live; 2], "it was the namenode that stood still");
    world.heartbeat(datanode_id(1));
    world.pass(1_000);
    assert_eq!(liveness(&mut world), [Liveness::Suspect, Liveness::Live]);
    world.pass(14_000);
    assert_eq!(liveness(&mut world), [Liveness::Dead; 2]);
}

#[test]
fn every_pause_of_the_namenode_excuses() {
    let mut world = World::cluster(1, 1);
    for _ in 0..3 {
        world.heartbeat(datanode_id(0));
        world.pass(14_000);
        assert_eq!(liveness(&mut world), [Liveness::Suspect]);
        world.now.0 += 60_000;
        world.ns.handle_timeout(world.now);
        assert_eq!(liveness(&mut world), [Liveness::Suspect], "what it said meanwhile waits to be heard");
        world.heartbeat(datanode_id(0));
        world.pass(4_000);
    }
}

#[test]
fn a_namenode_that_is_always_late_still_notices_the_dead() {
    let mut world = World::cluster(2, 1);
    for _ in 0..40 {
        world.now.0 += 2_500;
        world.heartbeat(datanode_id(0));
        if world.ns.poll_timeout().is_some_and(|due| due.0 + 1_500 < world.now.0) {
            world.ns.handle_timeout(world.now);
        }
    }
    assert_eq!(liveness(&mut world), [Liveness::Live, Liveness::Dead]);
}

#[test]
fn a_dead_datanodes_replicas_are_made_anew_and_the_extra_ones_go_when_it_returns() {
    let mut world = World::cluster(4, 2);
    let (_, block) = world.write_file("/f", 3, 10);
    let dead = world.holders(block)[0];
    world.disks.get_mut(&dead).unwrap().up = false;
    world.live(14_000);
    assert_eq!(report(&mut world).under_replicated, 0);
    world.live(3_000);
    assert!(world.disks[&dead].replicas.contains_key(&block.id));
    assert_eq!(world.holders(block).len(), 4);
    assert!(!world.readable("/f").contains(&dead));
    assert_eq!(report(&mut world).under_replicated, 0);
    world.ns.check();
    world.disks.get_mut(&dead).unwrap().up = true;
    world.live(5_000);
    assert_eq!(world.holders(block).len(), 3);
    assert_eq!(world.readable("/f"), world.holders(block));
    world.ns.check();
}

#[test]
fn the_worst_off_block_is_copied_first() {
    let mut world = World::cluster(3, 1);
    let (_, three) = world.write_file("/three", 3, 10);
    let (_, two) = world.write_file("/two", 3, 10);
    for (block, lost) in [(three, 1), (two, 2)] {
        for id in world.holders(block).into_iter().take(lost) {
            world.disks.get_mut(&id).unwrap().replicas.remove(&block.id);
            world.change(id, ReplicaChange::Deleted { block });
        }
    }
    let report = report(&mut world);
    assert_eq!((report.under_replicated, report.missing), (2, 0));
    let mut commands = Vec::new();
    for id in world.up() {
        commands.extend(world.heartbeat(id));
    }
    let blocks: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            DatanodeCommand::Replicate { block, targets, .. } => Some((*block, targets.len())),
            _ => None,
        })
        .collect();
    assert!(blocks.contains(&(two, 2)) && blocks.contains(&(three, 1)), "{blocks:?}");
    // Both wait for the copies that are under way; nothing is ordered twice.
    for _ in 0..59 {
        for id in world.up() {
            assert_eq!(world.heartbeat(id), []);
        }
        world.pass(1000);
    }
    world.ns.check();
    // They never come: after the timeout they are ordered anew.
    world.live(5000);
    assert_eq!((world.holders(two).len(), world.holders(three).len()), (3, 3));
    world.ns.check();
}

#[test]
fn a_busy_datanode_sends_as_many_copies_as_an_idle_one() {
    let mut world = World::cluster(2, 1);
    for at in 0..20 {
        world.write_file(&format!("/two/{at}"), 2, 10);
    }
    world.join(2, "/rack-0");
    for at in 0..20 {
        world.write_file(&format!("/three/{at}"), 3, 10);
    }
    let copies = |world: &mut World, id| {
        let volumes = world.volumes(id);
        let busy = Request::DatanodeHeartbeat { id, volumes, transfers: 1000, clock: WallTime(0) };
        let Ok(Response::Commands { commands, .. }) = world.by_datanode(busy) else { panic!() };
        commands.iter().filter(|command| matches!(command, DatanodeCommand::Replicate { .. })).count()
    };
    let lose = |world: &mut World, id: DatanodeId, names: &str| {
        for at in 0..20 {
            let block = world.blocks(&format!("/{names}/{at}"))[0].block;
            world.disks.get_mut(&id).unwrap().replicas.remove(&block.id);
            world.change(id, ReplicaChange::Deleted { block });
        }
    };
    world.join(3, "/rack-0");
    // Two replicas are left of each of these: either holder sends as many as the limit says.
    lose(&mut world, datanode_id(2), "three");
    assert_eq!([0, 1].map(|number| copies(&mut world, datanode_id(number))), [4, 4]);
    assert_eq!([0, 1].map(|number| copies(&mut world, datanode_id(number))), [0, 0]);
    // Only one is left of each of these: its holder sends more of them, but not all at once.
    lose(&mut world, datanode_id(1), "two");
    assert_eq!([0, 1].map(|number| copies(&mut world, datanode_id(number))), [4, 0]);
    assert_eq!(copies(&mut world, datanode_id(0)), 0);
    world.ns.check();
}

#[test]
fn a_block_on_one_rack_is_spread() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 3, 10);
    world.join(7, "/rack-7");
    // Something must make the namenode look at the block again.
    let id = world.holders(block)[0];
    let replica = ReportedReplica { block, len_bytes: 10 };
    world.store_on(id, replica);
    world.live(5000);
    assert!(world.holders(block).contains(&datanode_id(7)));
    assert_eq!(world.holders(block).len(), 3);
    world.ns.check();
}

#[test]
fn a_full_report_in_slices_takes_out_what_is_missing() {
    let mut world = World::cluster(2, 1);
    let blocks: Vec<_> = (0..10).map(|at| world.write_file(&format!("/f{at}"), 2, 10).1).collect();
    let id = datanode_id(0);
    for lost in [blocks[0], blocks[4], blocks[9]] {
        world.disks.get_mut(&id).unwrap().replicas.remove(&lost.id);
    }
    world.full_report(id);
    world.ns.check();
    let mut deficient = Vec::new();
    for at in 0..10 {
        if world.readable(&format!("/f{at}")).len() < 2 {
            deficient.push(at);
        }
    }
    assert_eq!(deficient, [0, 4, 9]);
    // Out of order, or not ascending: refused.
    let slice = |slice, replicas: Vec<ReportedReplica>| Request::DatanodeBlockReport {
        id,
        storage: storage_of(id),
        slice,
        last: false,
        replicas,
    };
    let replica = |block| ReportedReplica { block, len_bytes: 10 };
    assert_eq!(code(world.by_datanode(slice(1, Vec::new()))), ErrorCode::InvalidArgument);
    let descending = vec![replica(blocks[5]), replica(blocks[1])];
    assert_eq!(code(world.by_datanode(slice(0, descending))), ErrorCode::InvalidArgument);
    let upto5: Vec<_> = [1, 2, 3, 5].map(|at| replica(blocks[at])).to_vec();
    world.by_datanode(slice(0, upto5)).unwrap();
    assert_eq!(code(world.by_datanode(slice(1, vec![replica(blocks[2])]))), ErrorCode::InvalidArgument);
    world.ns.check();
}

#[test]
fn what_arrives_while_a_report_is_under_way_is_not_missing() {
    let mut world = World::cluster(1, 1);
    let id = datanode_id(0);
    let slice =
        |slice, last| Request::DatanodeBlockReport { id, storage: storage_of(id), slice, last, replicas: vec![] };
    world.by_datanode(slice(0, false)).unwrap();
    world.write_file("/f", 1, 10);
    world.by_datanode(slice(1, true)).unwrap();
    assert_eq!(world.readable("/f"), [id]);
}

#[test]
fn a_failed_volume_loses_what_it_held_and_no_more() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let id = world.holders(block)[0];
    let mut volumes = world.volumes(id);
    volumes[0].failed = Some("input/output error".to_owned());
    world.by_datanode(Request::DatanodeHeartbeat { id, volumes, transfers: 0, clock: WallTime(0) }).unwrap();
    assert!(world.warnings.last().is_some_and(|last| last.ends_with("out of use: input/output error")));
    assert_eq!(world.readable("/f").len(), 1);
    world.pass(0);
    world.ns.check();
    let healthy: Vec<DatanodeId> = world.up().into_iter().filter(|other| *other != id).collect();
    for healthy in healthy {
        for command in world.heartbeat(healthy) {
            world.obey(healthy, command);
        }
    }
    assert_eq!(world.readable("/f").len(), 2);
    world.ns.check();
}

#[test]
fn a_datanode_with_fresh_volumes_takes_the_place_of_the_one_at_its_address_at_once() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let old = world.holders(block)[0];
    world.disks.get_mut(&old).unwrap().up = false;
    world.warnings.clear();
    let fresh = datanode_id(old.0 + 100);
    world.join(fresh.0, "/rack-0");
    let states = |report: &ClusterReport, id| {
        report.datanodes.iter().find(|datanode| datanode.location.id == id).map(|datanode| datanode.liveness)
    };
    let now = report(&mut world);
    assert_eq!((states(&now, old), states(&now, fresh)), (Some(Liveness::Dead), Some(Liveness::Live)));
    assert_eq!(world.warnings.len(), 1, "{:?}", world.warnings);
    for word in [&old.to_string(), &fresh.to_string(), "mount them", "127.0.0.1:900"] {
        assert!(world.warnings[0].contains(word), "{word}: {:?}", world.warnings);
    }
    world.pass(0);
    world.ns.check();
    assert_eq!(report(&mut world).under_replicated, 1, "what it held is made anew");
    world.beat_all();
    assert_eq!(world.readable("/f").len(), 2);
    assert_eq!(report(&mut world).under_replicated, 0);
    // The same datanode again at its own address displaces nobody.
    world.register(fresh);
    assert_eq!(world.warnings.len(), 1, "{:?}", world.warnings);
}

#[test]
fn two_datanodes_that_take_one_address_from_each_other_have_nothing_deleted() {
    let mut world = World::cluster(6, 1);
    let blocks: Vec<_> = (0..8).map(|at| world.write_file(&format!("/f{at}"), 3, 10).1).collect();
    let (one, two) = (datanode_id(0), datanode_id(100));
    let before: Vec<_> = blocks.iter().map(|block| world.holders(*block)).collect();
    assert!(before.iter().any(|holders| holders.contains(&one)), "{before:?}");
    world.warnings.clear();
    world.join(two.0, "/rack-0");
    let take_overs = 10;
    for at in 0..take_overs {
        // Whoever is out is told to register, and does; the others go on for a while.
        world.disks.get_mut(&one).unwrap().up = at % 2 == 0;
        world.disks.get_mut(&two).unwrap().up = at % 2 == 1;
        world.live(2000);
        world.ns.check();
        let mut living = |id: DatanodeId| {
            report(&mut world)
                .datanodes
                .iter()
                .any(|datanode| datanode.location.id == id && datanode.liveness != Liveness::Dead)
        };
        assert_eq!([one, two].into_iter().filter(|id| living(*id)).count(), 1);
    }
    let warnings = world.warnings.iter().filter(|warning| warning.contains("address of its own")).count();
    assert_eq!(warnings, 1 + take_overs);
    for (block, before) in blocks.iter().zip(&before) {
        assert!(before.iter().all(|id| world.holders(*block).contains(id)), "{block}");
    }
    // It is settled: the second one is gone. Only what is too much goes.
    world.disks.get_mut(&one).unwrap().up = true;
    world.disks.get_mut(&two).unwrap().up = false;
    world.live(30_000);
    for block in blocks {
        let counted = world.holders(block).into_iter().filter(|id| *id != two).count();
        assert_eq!(counted, 3, "{block}");
    }
    world.ns.check();
}

#[test]
fn readers_are_sent_to_the_nearest_first() {
    let mut world = World::cluster(6, 2);
    world.write_file("/f", 6, 10);
    let request = |node: &str| Request::Blocks {
        path: path("/f"),
        offset: 0,
        len_bytes: 1,
        node: Some(NodeName(node.to_owned())),
        client: situ_wire::ids::ClientId(1),
    };
    let mut seconds = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let Response::Blocks { blocks, .. } = world.call(request("node-3")).unwrap() else { panic!() };
        let ids: Vec<u128> = blocks[0].locations.iter().map(|location| location.id.0).collect();
        assert_eq!(ids[0], 3);
        assert!(ids[1..3].iter().all(|id| id % 2 == 1), "the rack comes next: {ids:?}");
        seconds.insert(ids[1]);
    }
    assert_eq!(seconds.len(), 2, "load spreads among those alike");
    // A suspect comes last among those alike.
    world.pass(2000);
    for number in [0, 1, 2, 4, 5] {
        world.heartbeat(datanode_id(number));
    }
    world.pass(1500);
    let Response::Blocks { blocks, .. } = world.call(request("node-1")).unwrap() else { panic!() };
    let ids: Vec<u128> = blocks[0].locations.iter().map(|location| location.id.0).collect();
    assert_eq!((ids[0], ids[1], ids[2]), (1, 5, 3));
}

#[test]
fn replicas_from_a_newer_namespace_are_never_touched() {
    let mut world = World::cluster(2, 1);
    let (_, block) = world.write_file("/f", 1, 10);
    let id = world.holders(block)[0];
    let other = world.up().into_iter().find(|other| *other != id).unwrap();
    let newer_block = situ_wire::block::Block { id: BlockId(1000), generation: GenerationStamp(1) };
    let newer_life = situ_wire::block::Block { id: block.id, generation: GenerationStamp(1000) };
    for replica in [newer_block, newer_life].map(|block| ReportedReplica { block, len_bytes: 10 }) {
        world.warnings.clear();
        world.store_on(other, replica);
        assert_eq!(world.warnings.len(), 1);
        world.full_report(other);
    }
    world.live(10_000);
    assert_eq!(world.disks[&other].replicas.len(), 2);
    world.ns.check();
}
