//! A disk that is almost full: what adds is refused, what frees goes on, and then nothing does.

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::INodeId;
use situ_wire::messages::namenode::{LogRoom, Request, Response, Taking};

use super::world::{ROOT, World, caller, code, committed, config, path};
use crate::core::{CoreConfig, Effect, Event, Room};

const RESERVE: u64 = 8 << 20;

/// A cluster with a file `/f`, a whole copy that has no name yet, and an open file with a block in it.
fn world() -> (World, INodeId) {
    let mut world = World::with(CoreConfig { directory: "/nn".to_owned(), ..config() });
    for number in 0..3 {
        world.join(number, "/rack");
    }
    world.write_file("/f", 1, 10);
    world.write_file("/.1._COPYING_", 1, 10);
    let open = world.create("/open", 2);
    (world, open)
}

/// The effects of a look at the room.
fn look(world: &mut World, free_bytes: u64) -> Vec<Effect> {
    world.ns.handle(world.now, Event::Room(Room::new(free_bytes, RESERVE)));
    std::iter::from_fn(|| world.ns.poll_effect()).collect()
}

fn warning(message: &str) -> [Effect; 1] {
    [Effect::Warn { message: message.to_owned() }]
}

fn rename(world: &mut World, from: &str, to: &str) -> Result<Response, RemoteError> {
    let operation = world.operation();
    world.call(Request::Rename { from: path(from), to: path(to), overwrite: false, operation })
}

fn delete(world: &mut World, text: &str) -> Result<Response, RemoteError> {
    let operation = world.operation();
    world.call(Request::Delete { path: path(text), recursive: true, operation })
}

const LOW: &str = "the namenode's disk is almost full, 7.0 MiB free under /nn of which 8.0 MiB are kept: nothing is added, \
                   deletions go on; free space on the disk of /nn on the namenode's host";

#[test]
fn below_the_reserve_nothing_is_added() {
    let (mut world, open) = world();
    let operation = world.operation();
    let done = Request::Mkdir { path: path("/done"), parents: false, mode: 0o755, operation };
    world.call(done.clone()).unwrap();
    assert_eq!(look(&mut world, 9 << 20), []);
    assert_eq!(look(&mut world, 7 << 20), warning(LOW));
    assert_eq!(look(&mut world, 7 << 20), [], "it is said once");

    let (create, operation) = (world.create_request(1, "/new", 1), world.operation());
    let publish = Request::Publish { moves: vec![(path("/f"), path("/g"))], remove: path("/done"), operation };
    let operation = world.operation();
    let effects =
        world.effects(caller(ROOT), Request::Mkdir { path: path("/new"), parents: true, mode: 0o755, operation });
    let last = world.ns.last_tx();
    let refused = Err(RemoteError::new(ErrorCode::NamenodeFull, "/new", LOW));
    assert!(
        matches!(&effects[..], [Effect::Reply { when, result, .. }] if *when == Some(last) && *result == refused),
        "{effects:?}"
    );
    let before = world.journal.len();
    assert_eq!(code(world.call(create)), ErrorCode::NamenodeFull);
    let error = world.try_add_block(open, Vec::new()).unwrap_err();
    assert_eq!((error.code, error.subject.as_str()), (ErrorCode::NamenodeFull, "/open"));
    let operation = world.operation_of(2);
    let request = Request::AddBlock { inode: open, committed: Vec::new(), exclude: Vec::new(), node: None, operation };
    let error = world.call_by(caller("bob"), request).unwrap_err();
    assert_eq!((error.code, error.subject), (ErrorCode::NamenodeFull, open.to_string()), "it is not his file");
    assert_eq!(code(rename(&mut world, "/f", "/g")), ErrorCode::NamenodeFull);
    assert_eq!(code(world.call(publish)), ErrorCode::NamenodeFull);
    assert_eq!(world.journal.len(), before);
    assert!(world.exists("/f"), "it can be read");
    assert_eq!(world.call(done), Ok(Response::Done), "what was done before is answered again");
    let expected = LogRoom {
        directory: "/nn".to_owned(),
        free_bytes: 7 << 20,
        reserve_bytes: RESERVE,
        last_bytes: RESERVE / 4,
        taking: Taking::WhatFrees,
    };
    match world.call(Request::Report) {
        Ok(Response::Report(report)) => assert_eq!(report.room, Some(expected)),
        other => panic!("{other:?}"),
    }
    world.ns.check();
}

#[test]
fn below_the_reserve_what_frees_or_finishes_goes_on() {
    let (mut world, open) = world();
    let (first, lost) = (world.add_block(open), world.create("/lost", 1));
    let unwritten = world.add_block(lost);
    look(&mut world, 7 << 20);

    let survivors = vec![first.locations[0].id];
    let operation = world.operation();
    let recover = Request::RecoverPipeline { inode: open, block: first.block, survivors, operation };
    let recovered = match world.call(recover).unwrap() {
        Response::Block(block) => block,
        other => panic!("{other:?}"),
    };
    world.store(&recovered, 10);
    assert_eq!(world.complete(open, vec![committed(&recovered, 10)]), Ok(Response::Done));
    let operation = world.operation();
    let abandon = Request::AbandonBlock { inode: lost, block: unwritten.block, operation };
    assert_eq!(world.call(abandon), Ok(Response::Done));
    assert_eq!(rename(&mut world, "/.1._COPYING_", "/copied"), Ok(Response::Done));
    assert_eq!(delete(&mut world, "/f"), Ok(Response::Deleted(true)));
    // What was left open is closed, and silent clients are forgotten.
    let before = world.journal.len();
    world.pass(2_000_000);
    assert_eq!(world.journal.len(), before + 2, "{:?}", world.journal);
    world.ns.check();
}

#[test]
fn below_the_last_bytes_nothing_changes_until_there_is_room_again() {
    let (mut world, _) = world();
    let message = "the namenode's disk is full, 1.0 MiB free under /nn of which 2.0 MiB are kept even from deletions: \
                   nothing is changed; free space on the disk of /nn on the namenode's host";
    assert_eq!(look(&mut world, 1 << 20), warning(message));
    let before = world.journal.len();
    assert_eq!(delete(&mut world, "/f"), Err(RemoteError::new(ErrorCode::NamenodeFull, "/f", message)));
    assert_eq!(code(world.mkdir("/new")), ErrorCode::NamenodeFull);
    // Leases are over, but nothing can be written down of it.
    world.pass(2_000_000);
    assert_eq!(world.journal.len(), before);
    assert!(world.exists("/f"));

    let message = "the namenode's disk has room again, 20.0 MiB free under /nn: every change is taken";
    assert_eq!(look(&mut world, 20 << 20), warning(message));
    world.pass(0);
    assert!(world.journal.len() > before && !world.exists("/.1._COPYING_"), "what was due is done");
    world.mkdir("/new").unwrap();
    world.ns.check();
}

#[test]
fn a_lack_of_room_and_safe_mode_are_two_things() {
    let (mut world, _) = world();
    world.restart();
    assert!(world.ns.safe_mode().is_some());
    look(&mut world, 7 << 20);
    assert_eq!(code(world.mkdir("/new")), ErrorCode::NamenodeFull, "to wait would not help");
    assert_eq!(code(delete(&mut world, "/f")), ErrorCode::SafeMode);
    look(&mut world, 20 << 20);
    assert_eq!(code(world.mkdir("/new")), ErrorCode::SafeMode);
}
