//! Two times: what is decided goes by the namenode's own, what people see by the wall clock, which may be set.

use situ_wire::messages::namenode::{Liveness, Request, Response};
use situ_wire::time::{TimeMs, WallClock, WallTime};

use super::world::{World, config, datanode_id, path};
use crate::core::edit::{Change, Edit};
use crate::core::{Effect, Namesystem};

const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

fn modified(world: &mut World, text: &str) -> WallTime {
    match world.call(Request::Stat { path: path(text) }) {
        Ok(Response::Status(Some(status))) => status.modified,
        other => panic!("{other:?}"),
    }
}

/// The wall clock says `wall` now.
fn set(world: &mut World, wall: u64) {
    world.ns.set_wall_clock(WallClock::read(world.now, WallTime(wall)));
}

#[test]
fn times_of_files_follow_the_wall_clock_and_never_go_back_within_a_file() {
    let mut world = World::new();
    set(&mut world, 10 * YEAR_MS);
    let open = world.create("/open", 1);
    world.create("/early", 1);
    assert_eq!(modified(&mut world, "/early"), WallTime(10 * YEAR_MS));
    world.pass(1_000);
    set(&mut world, YEAR_MS);
    world.complete(open, Vec::new()).unwrap();
    world.create("/late", 1);
    assert_eq!(modified(&mut world, "/open"), WallTime(10 * YEAR_MS), "it was there then");
    assert_eq!(modified(&mut world, "/late"), WallTime(YEAR_MS));
    world.pass(1_000);
    set(&mut world, 20 * YEAR_MS);
    world.mkdir("/d").unwrap();
    assert_eq!(modified(&mut world, "/d"), WallTime(20 * YEAR_MS));
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn a_wall_clock_that_is_set_ends_no_lease_and_no_datanode_and_is_told_once() {
    let mut world = World::cluster(3, 1);
    let open = world.create("/open", 3);
    world.add_block(open);
    let (deadline, warnings) = (world.ns.poll_timeout(), world.warnings.len());
    for wall in [world.now.0, YEAR_MS, YEAR_MS + 10, 0, 0] {
        set(&mut world, wall);
        assert_eq!(world.ns.poll_timeout(), deadline);
        world.pass(0);
    }
    let set_ms = YEAR_MS - world.now.0;
    let told = [("ahead", set_ms), ("back", YEAR_MS + 10)].map(|(how, by_ms)| {
        format!(
            "the clock of the namenode's host was set {how} by {} s; the times of files follow it, and nothing is decided \
             by it",
            by_ms / 1000
        )
    });
    assert_eq!(world.warnings[warnings..], told);
    let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
    assert!(report.datanodes.iter().all(|node| node.liveness == Liveness::Live), "{report:?}");
    assert!(world.try_add_block(open, Vec::new()).is_ok(), "the file is still open");
}

#[test]
fn all_that_a_journal_of_another_time_names_counts_as_heard_at_the_start() {
    let mut world = World::new();
    world.pass(YEAR_MS);
    set(&mut world, 50 * YEAR_MS);
    world.create("/open", 1);
    let copied = world.create("/.1._COPYING_", 1);
    world.complete(copied, Vec::new()).unwrap();
    // The namenode starts anew, by a clock that is far behind.
    let mut ns = Namesystem::new(config());
    for (tx, edit) in &world.journal {
        ns.apply(*tx, edit).unwrap();
    }
    let (start, hard_ms, expiry_ms) = (TimeMs(1_000), config().lease_hard_ms, config().client_expiry_ms);
    ns.start(start);
    let mut due = Vec::new();
    while let Some(now) = ns.poll_timeout().filter(|now| now.0 < HOUR_MS * 2) {
        ns.handle_timeout(now);
        while let Some(effect) = ns.poll_effect() {
            if let Effect::Append { edit: Edit::V1(edit), .. } = effect {
                due.push((now.0 - start.0, edit.change));
            }
        }
    }
    let [
        (closed, Change::RecoverFile { .. }),
        (dropped, Change::Delete { .. }),
        (forgotten, Change::ForgetClients { .. }),
    ] = &due[..]
    else {
        panic!("{due:?}")
    };
    assert_eq!((*closed, *dropped), (hard_ms, hard_ms));
    assert!((expiry_ms..2 * expiry_ms).contains(forgotten), "{forgotten}");
}

#[test]
fn a_datanode_whose_clock_differs_is_told_of_once_for_each_change() {
    let mut world = World::cluster(1, 1);
    let warnings = world.warnings.len();
    let mut beat = |theirs: u64| {
        world.pass(1_000);
        set(&mut world, YEAR_MS);
        let id = datanode_id(0);
        let volumes = world.volumes(id);
        let beat = Request::DatanodeHeartbeat { id, volumes, transfers: 0, clock: WallTime(theirs) };
        world.by_datanode(beat).unwrap();
        let Ok(Response::Report(report)) = world.call(Request::Report) else { panic!() };
        (report.datanodes[0].clock_ahead_ms, world.warnings.split_off(warnings))
    };
    let mut said = Vec::new();
    for theirs in [0, 0, 4_000, 70_000, 70_000, 70_000, 0, 0] {
        said.push(beat(YEAR_MS + theirs));
    }
    said.push(beat(YEAR_MS - 70_000));
    said.push(beat(YEAR_MS - 70_000));
    let ahead: Vec<i64> = said.iter().map(|(ahead_ms, _)| *ahead_ms).collect();
    assert_eq!(ahead, [0, 0, 0, 4_000, 70_000, 70_000, 0, 0, 0, -70_000]);
    let warnings: Vec<String> = said.into_iter().flat_map(|(_, warnings)| warnings).collect();
    let of = "datanode 00000000000000000000000000000000 on node-0: its clock";
    assert_eq!(
        warnings,
        [
            format!("{of} is 70 s ahead of the namenode's; set whichever is wrong"),
            format!("{of} agrees with the namenode's again"),
            format!("{of} is 70 s behind the namenode's; set whichever is wrong"),
        ]
    );
}
