//! No live block is deleted: the rules for deleting replicas.

use situ_wire::error::ErrorCode;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::namenode::{
    DatanodeCommand, ReplicaChange, ReportedReplica, Request, Response, SafeModeAction,
};
use situ_wire::time::WallTime;

use super::world::{World, code, config, datanode, datanode_id, path, storage_of};
use crate::core::CoreConfig;

fn invalidations(commands: &[DatanodeCommand]) -> usize {
    let blocks = commands.iter().map(|command| match command {
        DatanodeCommand::Invalidate { blocks } => blocks.len(),
        _ => 0,
    });
    blocks.sum()
}

/// All that datanodes are told to delete in a few heartbeats, without their doing it.
fn told_to_delete(world: &mut World) -> usize {
    let mut count = 0;
    for _ in 0..3 {
        world.pass(1000);
        for id in world.up() {
            count += invalidations(&world.heartbeat(id));
        }
    }
    count
}

#[test]
fn a_deleted_files_replicas_go() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 3, 10);
    let operation = world.operation();
    world.call(Request::Delete { path: path("/f"), recursive: false, operation }).unwrap();
    world.ns.check();
    world.live(2000);
    assert!(world.holders(block).is_empty());
    // One that comes back later with a replica is told as well.
    world.store_on(datanode_id(1), ReportedReplica { block, len_bytes: 10 });
    world.live(2000);
    assert!(world.holders(block).is_empty());
    world.ns.check();
}

#[test]
fn an_order_to_delete_waits_for_the_deletion_to_be_on_disk() {
    use crate::core::Effect;
    let mut world = World::cluster(1, 1);
    world.write_file("/f", 1, 10);
    let operation = world.operation();
    world.call(Request::Delete { path: path("/f"), recursive: false, operation }).unwrap();
    let tx = world.journal.last().map(|(tx, _)| *tx);
    let volumes = world.volumes(datanode_id(0));
    let request = Request::DatanodeHeartbeat { id: datanode_id(0), volumes, transfers: 0, clock: WallTime(0) };
    let effects = world.effects(datanode(datanode_id(0)), request);
    let [Effect::Reply { when, result: Ok(Response::Commands { commands, .. }), .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(invalidations(commands), 1);
    assert_eq!(*when, tx);
}

#[test]
fn what_another_namespace_left_on_the_datanodes_is_neither_written_over_nor_deleted() {
    let begin = |epoch_chance| {
        let mut world = World::with(CoreConfig { epoch_chance, ..config() });
        for number in 0..3 {
            world.join(number, "/rack");
        }
        world.live(3000);
        world
    };
    let mut lost = begin(3);
    for at in 0..5 {
        lost.write_file(&format!("/f{at}"), 3, 10);
    }
    // Its directory was not mounted: an empty one was formatted for the same cluster, and the datanodes come to it.
    let mut world = begin(5);
    for (id, disk) in &lost.disks {
        world.disks.get_mut(id).unwrap().replicas = disk.replicas.clone();
    }
    for id in world.up() {
        world.full_report(id);
    }
    assert!(world.warnings.iter().any(|warning| warning.contains("never gave out; they are kept")));
    for at in 0..20 {
        world.write_file(&format!("/new{at}"), 3, 10);
    }
    let operation = world.operation();
    world.call(Request::Delete { path: path("/new0"), recursive: false, operation }).unwrap();
    for id in world.up() {
        world.full_report(id);
    }
    world.live(60_000);
    for (id, disk) in &lost.disks {
        assert!(disk.replicas.iter().all(|(block, replica)| world.disks[id].replicas.get(block) == Some(replica)));
        assert_eq!(world.disks[id].replicas.len(), 5 + 19, "its own deletions are carried out");
    }
    world.ns.check();
}

#[test]
fn safe_mode_deletes_nothing_and_changes_nothing() {
    let mut world = World::cluster(4, 1);
    for at in 0..10 {
        world.write_file(&format!("/f{at}"), 2, 10);
    }
    let (_, gone) = world.write_file("/gone", 3, 10);
    let operation = world.operation();
    world.call(Request::Delete { path: path("/gone"), recursive: false, operation }).unwrap();
    world.restart();
    assert!(world.ns.safe_mode().is_some());
    for id in [0, 1].map(datanode_id) {
        world.register(id);
        world.full_report(id);
    }
    world.disks.get_mut(&datanode_id(2)).unwrap().up = false;
    world.disks.get_mut(&datanode_id(3)).unwrap().up = false;
    assert_eq!(told_to_delete(&mut world), 0, "it waits for the others");
    let before = world.journal.len();
    assert!(world.mkdir("/new").is_err());
    assert_eq!(world.journal.len(), before);
    assert!(world.exists("/f0"), "it can be read");
    world.ns.check();
    for id in [2, 3].map(datanode_id) {
        world.disks.get_mut(&id).unwrap().up = true;
        world.register(id);
        world.full_report(id);
    }
    assert!(world.ns.safe_mode().is_some(), "a little longer");
    world.live(3000);
    assert_eq!(world.ns.safe_mode(), None);
    world.live(3000);
    assert!(world.holders(gone).is_empty());
    world.mkdir("/new").unwrap();
    world.ns.check();
}

#[test]
fn nothing_is_deleted_while_a_replica_is_on_a_volume_that_has_not_reported() {
    let mut world = World::cluster(4, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let holders = world.holders(block);
    let spare: Vec<DatanodeId> = world.up().into_iter().filter(|id| !holders.contains(id)).collect();
    // One of the holders comes back anew, its content unknown.
    world.register(holders[0]);
    for id in &spare {
        world.store_on(*id, ReportedReplica { block, len_bytes: 10 });
    }
    assert_eq!(world.readable("/f").len(), 4);
    assert_eq!(told_to_delete(&mut world), 0);
    world.full_report(holders[0]);
    world.live(3000);
    assert_eq!(world.holders(block).len(), 2);
    world.ns.check();
}

#[test]
fn an_excess_replica_stays_when_the_others_are_lost_meanwhile() {
    let mut world = World::cluster(4, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let holders = world.holders(block);
    let spare = world.up().into_iter().find(|id| !holders.contains(id)).unwrap();
    world.store_on(spare, ReportedReplica { block, len_bytes: 10 });
    // A heartbeat of someone else makes the namenode choose which one goes.
    let idle = world.up().into_iter().find(|id| !holders.contains(id) && *id != spare).unwrap();
    world.heartbeat(idle);
    let all = world.holders(block);
    for id in &all {
        // Before the order is given, another one is lost: then nobody is told to delete.
        let mut found = Vec::new();
        for other in all.iter().filter(|other| *other != id) {
            found.push(*other);
        }
        if found.len() == 2 {
            world.disks.get_mut(id).unwrap().replicas.remove(&block.id);
            world.change(*id, ReplicaChange::Deleted { block });
            break;
        }
    }
    assert_eq!(told_to_delete(&mut world), 0);
    assert_eq!(world.holders(block).len(), 2);
    world.ns.check();
}

#[test]
fn a_corrupt_replica_goes_when_there_are_enough_others_and_not_before() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let [bad, good] = world.holders(block)[..] else { panic!() };
    world.call(Request::ReportCorrupt { block, datanode: bad }).unwrap();
    assert_eq!(world.readable("/f"), [good], "readers are sent elsewhere");
    assert_eq!(world.heartbeat(bad), [DatanodeCommand::Verify { blocks: vec![block] }], "it is asked, once");
    assert_eq!(invalidations(&world.heartbeat(bad)), 0);
    world.ns.check();
    // It still has it: that does not make it good.
    world.full_report(bad);
    assert_eq!(world.readable("/f"), [good]);
    world.live(4000);
    assert_eq!(world.holders(block).len(), 3, "what a reader alone says deletes nothing");
    world.change(bad, ReplicaChange::Corrupt { block });
    world.live(4000);
    assert_eq!(world.holders(block).len(), 2);
    assert!(!world.holders(block).contains(&bad));
    world.ns.check();
    // The last one is never deleted, and is still handed out.
    for id in world.holders(block) {
        world.change(id, ReplicaChange::Corrupt { block });
    }
    assert_eq!(told_to_delete(&mut world), 0);
    assert_eq!(world.readable("/f").len(), 2);
    world.ns.check();
}

#[test]
fn a_reader_that_calls_every_replica_corrupt_does_no_harm() {
    let mut world = World::cluster(3, 1);
    let (_, block) = world.write_file("/f", 3, 10);
    let holders = world.holders(block);
    for datanode in &holders {
        world.call(Request::ReportCorrupt { block, datanode: *datanode }).unwrap();
    }
    assert_eq!(world.readable("/f").len(), 3, "they are read as long as there is no better one");
    let asked = DatanodeCommand::Verify { blocks: vec![block] };
    assert_eq!(world.heartbeat(holders[0]), std::slice::from_ref(&asked));
    world.ns.check();
    // Whoever starts anew or does not answer is asked again.
    world.register(holders[0]);
    world.full_report(holders[0]);
    assert_eq!(world.heartbeat(holders[0]), std::slice::from_ref(&asked));
    assert_eq!(world.heartbeat(holders[0]), []);
    world.pass(30_000);
    world.beat_all();
    let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
    assert_eq!((report.corrupt, report.missing, report.under_replicated), (0, 0, 0), "all have verified it");
    assert_eq!(world.holders(block), holders);
    world.ns.check();
}

#[test]
fn a_corrupt_replica_that_is_kept_aside_is_not_forgotten() {
    let told = |world: &mut World, bad| invalidations(&world.heartbeat(bad)) + invalidations(&world.heartbeat(bad));
    let mut world = World::cluster(4, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let [bad, _] = world.holders(block)[..] else { panic!() };
    // Its datanode leaves it out of its reports.
    world.disks.get_mut(&bad).unwrap().replicas.remove(&block.id);
    world.change(bad, ReplicaChange::Corrupt { block });
    world.full_report(bad);
    let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
    assert_eq!(report.corrupt, 1, "it is still known");
    world.live(3000);
    let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
    assert_eq!((report.corrupt, report.under_replicated), (0, 0), "it was deleted when there was another copy");
    world.ns.check();
    // After a restart the namenode hears of it again, and of one whose file is gone.
    let mut again = World::cluster(4, 1);
    let (_, block) = again.write_file("/f", 2, 10);
    let (_, gone) = again.write_file("/g", 1, 10);
    let outsider = again.up().into_iter().find(|id| !again.holders(block).contains(id)).unwrap();
    let operation = again.operation();
    again.call(Request::Delete { path: path("/g"), recursive: false, operation }).unwrap();
    again.live(3000);
    again.change(outsider, ReplicaChange::Corrupt { block });
    again.change(outsider, ReplicaChange::Corrupt { block: gone });
    assert_eq!(told(&mut again, outsider), 2);
    again.ns.check();
    again.change(outsider, ReplicaChange::Deleted { block });
    again.change(outsider, ReplicaChange::Deleted { block: gone });
    assert_eq!(told(&mut again, outsider), 0);
    again.ns.check();
}

#[test]
fn a_replica_that_was_damaged_before_its_block_was_committed_does_not_count() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 2);
    let located = world.add_block(inode);
    let committed = world.store(&located, 10);
    let bad = committed.replicas[0];
    world.disks.get_mut(&bad).unwrap().replicas.remove(&located.block.id);
    world.change(bad, ReplicaChange::Corrupt { block: located.block });
    world.ns.check();
    world.complete(inode, vec![committed.clone()]).unwrap();
    assert_eq!(world.readable("/f"), [committed.replicas[1]]);
    world.ns.check();
    world.live(3000);
    assert_eq!(world.readable("/f").len(), 2);
    world.ns.check();
}

#[test]
fn a_damaged_replica_that_was_left_behind_goes_with_its_block() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 3);
    let first = world.add_block(inode);
    let members: Vec<DatanodeId> = first.locations.iter().map(|location| location.id).collect();
    let (survivors, behind) = (members[..2].to_vec(), members[2]);
    let operation = world.operation();
    world.call(Request::RecoverPipeline { inode, block: first.block, survivors, operation }).unwrap();
    // It starts anew, which makes the namenode forget what it was told, and then finds what it has damaged.
    world.register(behind);
    world.full_report(behind);
    world.change(behind, ReplicaChange::Corrupt { block: first.block });
    let operation = world.operation();
    world.call(Request::Delete { path: path("/f"), recursive: false, operation }).unwrap();
    assert_eq!(world.heartbeat(behind), [DatanodeCommand::Invalidate { blocks: vec![first.block] }]);
    world.ns.check();
}

#[test]
fn a_member_that_missed_the_last_life_of_a_block_loses_its_older_one() {
    let mut world = World::cluster(3, 1);
    let inode = world.create("/f", 2);
    let first = world.add_block(inode);
    let [one, two] = [first.locations[0].id, first.locations[1].id];
    world.store(&first, 10);
    let request =
        Request::RecoverPipeline { inode, block: first.block, survivors: vec![one, two], operation: world.operation() };
    let Response::Block(anew) = world.call(request).unwrap() else { panic!() };
    // Only one of them goes on; the other says what it has before the block is committed.
    world.full_report(two);
    world.store_on(one, ReportedReplica { block: anew.block, len_bytes: 10 });
    let claim = situ_wire::block::CommittedBlock { replicas: vec![one], ..super::world::committed(&anew, 10) };
    world.complete(inode, vec![claim]).unwrap();
    world.ns.check();
    assert_eq!(invalidations(&world.heartbeat(two)), 0, "there are not enough others yet");
    let other = world.up().into_iter().find(|id| ![one, two].contains(id)).unwrap();
    world.store_on(other, ReportedReplica { block: anew.block, len_bytes: 10 });
    assert_eq!(invalidations(&world.heartbeat(two)), 1);
    world.ns.check();
}

#[test]
fn a_corrupt_replica_makes_room_when_nobody_else_can_take_a_copy() {
    let mut world = World::cluster(2, 1);
    let (_, block) = world.write_file("/f", 2, 10);
    let [bad, _] = world.holders(block)[..] else { panic!() };
    world.change(bad, ReplicaChange::Corrupt { block });
    world.live(5000);
    assert_eq!(world.readable("/f").len(), 2);
    world.ns.check();
}

#[test]
fn the_only_replica_in_an_old_life_is_kept() {
    let mut world = World::cluster(1, 1);
    let inode = world.create("/f", 1);
    let block = world.add_block(inode);
    let id = datanode_id(0);
    let operation = world.operation();
    let request = Request::RecoverPipeline { inode, block: block.block, survivors: vec![id], operation };
    let Response::Block(anew) = world.call(request).unwrap() else { panic!() };
    world.complete(inode, vec![super::world::committed(&anew, 10)]).unwrap();
    // The datanode comes up with the old life only: not good, but all there is.
    world
        .disks
        .get_mut(&id)
        .unwrap()
        .replicas
        .insert(block.block.id, ReportedReplica { block: block.block, len_bytes: 10 });
    world.register(id);
    world.full_report(id);
    assert_eq!(world.readable("/f"), [], "an old life is not handed out");
    assert_eq!(told_to_delete(&mut world), 0);
    world.ns.check();
}

#[test]
fn an_order_that_got_lost_is_given_again() {
    let mut world = World::cluster(1, 1);
    let (_, block) = world.write_file("/f", 1, 10);
    let operation = world.operation();
    world.call(Request::Delete { path: path("/f"), recursive: false, operation }).unwrap();
    let id = datanode_id(0);
    assert_eq!(invalidations(&world.heartbeat(id)), 1);
    assert_eq!(invalidations(&world.heartbeat(id)), 0);
    for _ in 0..61 {
        world.pass(1000);
        for command in world.heartbeat(id) {
            world.obey(id, command);
        }
    }
    assert!(world.holders(block).is_empty());
    let storage = storage_of(id);
    let request = Request::DatanodeBlockReport { id, storage, slice: 0, last: true, replicas: Vec::new() };
    world.by_datanode(request).unwrap();
    world.ns.check();
}

/// The operator says that the namenode goes on with what it knows.
fn leave_safe_mode(world: &mut World) {
    let action = SafeModeAction::Leave;
    assert_eq!(world.call(Request::SafeMode { action }), Ok(Response::SafeMode(None)));
}

/// All datanodes come to a namenode that was started anew.
fn all_come(world: &mut World) {
    for id in world.up() {
        world.register(id);
        world.full_report(id);
    }
}

/// The blocks of which a namespace needs all replicas.
fn assert_whole(world: &mut World, files: &[&str]) {
    for file in files {
        let held = world.readable(file).len();
        assert_eq!(held, 3, "{file}");
        for block in world.blocks(file) {
            assert_eq!(world.holders(block.block).len(), 3, "{file}");
        }
    }
}

/// A restored backup, or a snapshot of a virtual machine: what was stored after it is neither written over nor deleted.
#[test]
fn a_namenode_with_an_older_copy_of_its_directory_destroys_nothing_that_is_newer() {
    for restarted in [false, true] {
        let start = |world: &mut World, epoch_chance| world.restart_with(CoreConfig { epoch_chance, ..config() });
        let mut world = World::cluster(3, 1);
        world.write_file("/old", 3, 10);
        let older = world.journal.clone();
        if restarted {
            start(&mut world, 5);
            all_come(&mut world);
            world.live(3_000);
        }
        for at in 0..5 {
            world.write_file(&format!("/new{at}"), 3, 10);
        }
        let newer = std::mem::replace(&mut world.journal, older);

        start(&mut world, 77);
        all_come(&mut world);
        world.live(60_000);
        assert!(
            world.ns.safe_mode().is_some_and(|reason| reason.contains("15 replicas that this namespace never gave"))
        );
        assert_eq!(code(world.mkdir("/d")), ErrorCode::SafeMode);
        let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
        assert_eq!((report.unknown, report.datanodes[0].unknown), (15, 5));
        leave_safe_mode(&mut world);
        for at in 0..8 {
            world.write_file(&format!("/new{at}"), 3, 10);
        }
        // One that nobody accepts, one that fails after all have it, and one that is deleted.
        for accepted in [false, true] {
            let inode = world.create(&format!("/failed-{accepted}"), 3);
            let block = world.add_block(inode);
            if accepted {
                world.store(&block, 10);
            }
            let operation = world.operation();
            world.call(Request::AbandonBlock { inode, block: block.block, operation }).unwrap();
        }
        let operation = world.operation();
        world.call(Request::Delete { path: path("/new0"), recursive: false, operation }).unwrap();
        all_come(&mut world);
        world.live(120_000);
        assert_whole(&mut world, &["/old", "/new1", "/new7"]);
        for disk in world.disks.values() {
            assert_eq!(disk.replicas.len(), 1 + 5 + 7, "its own deletions are carried out");
        }
        world.ns.check();

        // The newer one is back.
        world.journal = newer;
        start(&mut world, 78);
        all_come(&mut world);
        assert!(world.ns.safe_mode().is_some_and(|reason| reason.contains("21 replicas")));
        leave_safe_mode(&mut world);
        world.live(120_000);
        assert_whole(&mut world, &["/old", "/new0", "/new1", "/new2", "/new3", "/new4"]);
        world.ns.check();
    }
}
