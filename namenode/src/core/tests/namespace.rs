//! Make, rename, delete, publish; rights; retries.

use situ_wire::error::ErrorCode;
use situ_wire::ids::{ClientId, INodeId, OperationId, TxId};
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::time::WallTime;

use super::world::{BLOCK, ROOT, World, caller, code, path};
use crate::core::{CallId, Change, Edit, EditV1, Effect, Epoch, NewDirectory};

fn rename(world: &mut World, from: &str, to: &str, overwrite: bool) -> Result<Response, ErrorCode> {
    let operation = world.operation();
    world.call(Request::Rename { from: path(from), to: path(to), overwrite, operation }).map_err(|error| error.code)
}

fn delete(world: &mut World, text: &str, recursive: bool) -> Result<Response, ErrorCode> {
    let operation = world.operation();
    world.call(Request::Delete { path: path(text), recursive, operation }).map_err(|error| error.code)
}

fn names(world: &mut World, text: &str) -> Vec<String> {
    match world.call(Request::List { path: path(text), after: None, limit: 1000 }).unwrap() {
        Response::Listing { entries, more: false } => {
            entries.iter().map(|entry| entry.path.name().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_appended_and_answered_when_it_is_on_disk() {
    let mut world = World::new();
    let operation = world.operation();
    let request = Request::Mkdir { path: path("/a"), parents: false, mode: 0o750, operation };
    let time = WallTime(world.now.0);
    let done = |call, when| Effect::Reply { call: CallId(call), when: Some(TxId(when)), result: Ok(Response::Done) };
    let change = Change::Mkdir {
        directories: vec![NewDirectory {
            inode: INodeId(1 << 24 | 1),
            parent: INodeId(1),
            name: "a".to_owned(),
            owner: ROOT.to_owned(),
            group: "supergroup".to_owned(),
            mode: 0o750,
        }],
    };
    let edit = Edit::V1(EditV1 { time, operation: Some(operation), change });
    let effects = world.effects(caller(ROOT), request.clone());
    let epoch = Edit::V1(EditV1 { time, operation: None, change: Change::BeginEpoch { epoch: Epoch(1) } });
    let begin = Effect::Append { tx: TxId(1), edit: epoch };
    assert_eq!(effects, [begin, Effect::Append { tx: TxId(2), edit }, done(1, 2)]);

    // A retry, after another change, changes nothing and waits for the first.
    world.mkdir("/b").unwrap();
    assert_eq!(world.effects(caller(ROOT), request), [done(3, 2)]);
    // A reader waits for all that it may have seen.
    let effects = world.effects(caller(ROOT), Request::Stat { path: path("/nothing") });
    let nothing = Ok(Response::Status(None));
    assert_eq!(effects, [Effect::Reply { call: CallId(4), when: Some(TxId(3)), result: nothing }]);
    world.ns.check();
}

#[test]
fn directories_and_files_are_made_where_they_may_be() {
    let mut world = World::new();
    let mkdir = |world: &mut World, text: &str, parents| {
        let operation = world.operation();
        world.call(Request::Mkdir { path: path(text), parents, mode: 0o755, operation }).map_err(|error| error.code)
    };
    assert_eq!(mkdir(&mut world, "/a/b", false), Err(ErrorCode::NotFound));
    assert_eq!(mkdir(&mut world, "/a/b/c", true), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "/a/b/c", true), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "/a/b/c", false), Err(ErrorCode::AlreadyExists));
    assert_eq!(mkdir(&mut world, "/", false), Err(ErrorCode::AlreadyExists));
    assert_eq!(mkdir(&mut world, "/", true), Ok(Response::Done));
    let file = world.create("/a/f", 1);
    assert_eq!(mkdir(&mut world, "/a/f", true), Err(ErrorCode::AlreadyExists));
    assert_eq!(mkdir(&mut world, "/a/f/g", true), Err(ErrorCode::NotADirectory));
    assert!(!world.exists("/a/f/g"));
    world.complete(file, Vec::new()).unwrap();

    let mut create = |text: &str, overwrite, replication, block_len_bytes, mode| {
        let operation = world.operation();
        let path = path(text);
        let request =
            Request::Create { path, overwrite, parents: false, replication, block_len_bytes, mode, operation };
        world.call(request).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(create("/a/f", false, 1, BLOCK, 0o644), Err(ErrorCode::AlreadyExists));
    assert_eq!(create("/a/f/g", false, 1, BLOCK, 0o644), Err(ErrorCode::NotADirectory));
    assert_eq!(create("/a", true, 1, BLOCK, 0o644), Err(ErrorCode::IsADirectory));
    assert_eq!(create("/", true, 1, BLOCK, 0o644), Err(ErrorCode::IsADirectory));
    assert_eq!(create("/x/y", false, 1, BLOCK, 0o644), Err(ErrorCode::NotFound));
    assert_eq!(create("/y", false, 0, BLOCK, 0o644), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("/y", false, 513, BLOCK, 0o644), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("/y", false, 1, BLOCK - 1, 0o644), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("/y", false, 1, (4 << 30) + 1, 0o644), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("/y", false, 1, BLOCK, 0o7777), Err(ErrorCode::InvalidArgument));
    assert_eq!(create("/a/f", true, 1, 4 << 30, 0o644), Ok(()));
    assert_eq!(names(&mut world, "/a"), ["b", "f"]);
    world.ns.check();
}

#[test]
fn renames_keep_the_tree_a_tree() {
    let mut world = World::new();
    world.mkdir("/d/sub").unwrap();
    world.mkdir("/e").unwrap();
    let f = world.create("/f", 1);
    world.complete(f, Vec::new()).unwrap();
    let g = world.create("/g", 1);
    world.complete(g, Vec::new()).unwrap();
    for (from, to, overwrite, expected) in [
        ("/f", "/f", true, ErrorCode::AlreadyExists),
        ("/d", "/d/sub/d", false, ErrorCode::InvalidArgument),
        ("/d", "/d/d", false, ErrorCode::InvalidArgument),
        ("/", "/d/root", false, ErrorCode::InvalidArgument),
        ("/f", "/", true, ErrorCode::InvalidArgument),
        ("/nothing", "/x", false, ErrorCode::NotFound),
        ("/f/x", "/x", false, ErrorCode::NotFound),
        ("/f", "/x/y", false, ErrorCode::NotFound),
        ("/f", "/g/y", false, ErrorCode::NotADirectory),
        ("/f", "/g", false, ErrorCode::AlreadyExists),
        ("/f", "/e", true, ErrorCode::AlreadyExists),
        ("/d", "/e", true, ErrorCode::AlreadyExists),
        ("/d", "/g", true, ErrorCode::AlreadyExists),
    ] {
        assert_eq!(rename(&mut world, from, to, overwrite), Err(expected), "{from} to {to}");
    }
    assert_eq!(rename(&mut world, "/f", "/g", true), Ok(Response::Done));
    assert_eq!(rename(&mut world, "/d/sub", "/e/d", false), Ok(Response::Done));
    assert_eq!(rename(&mut world, "/d", "/dd", false), Ok(Response::Done));
    assert_eq!(names(&mut world, "/"), ["dd", "e", "g"]);
    assert_eq!(names(&mut world, "/e"), ["d"]);
    world.ns.check();
}

#[test]
fn what_moves_keeps_valid_paths_below_it() {
    let mut world = World::new();
    let (deep, name) = ("/a".repeat(300), "n".repeat(255));
    let long = format!("/{name}").repeat(8);
    for text in [&deep, &long, "/b", &"/c".repeat(300), &format!("/d{long}")] {
        world.mkdir(text).unwrap();
    }
    let (deeper, longer) = (format!("{deep}/x"), format!("{long}/x"));
    assert_eq!(rename(&mut world, "/c", &deeper, false), Err(ErrorCode::InvalidArgument), "601 levels");
    assert_eq!(rename(&mut world, "/d", &longer, false), Err(ErrorCode::InvalidArgument), "more than 4096 bytes");
    let moves = vec![(path("/c"), path(&deeper))];
    let publish = Request::Publish { moves, remove: path("/nothing"), operation: world.operation() };
    assert_eq!(code(world.call(publish)), ErrorCode::InvalidArgument);
    assert_eq!(rename(&mut world, "/b", &deeper, false), Ok(Response::Done));
    assert_eq!(rename(&mut world, &"/c".repeat(100), &format!("{deep}/c"), false), Ok(Response::Done), "501 levels");
    world.ns.check();
}

#[test]
fn what_came_too_deep_is_left_out_of_reports_and_moves_up_again() {
    let mut world = World::cluster(1, 1);
    let deep = "/a".repeat(300);
    world.mkdir(&deep).unwrap();
    // Only so many names are looked at when it moves.
    for at in 0..10_000 {
        world.mkdir(&format!("/c/{at:05}")).unwrap();
    }
    world.write_file("/c/f", 1, 10);
    let bottom = "/z".repeat(300);
    world.write_file(&format!("/c{bottom}/f"), 1, 10);
    let moved = format!("{deep}/c");
    assert_eq!(rename(&mut world, "/c", &moved, false), Ok(Response::Done));
    let Ok(Response::Health { files, more: false }) =
        world.call(Request::Fsck { path: path("/"), after: None, limit: 1000 })
    else {
        panic!()
    };
    assert_eq!(files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>(), [format!("{moved}/f")]);
    assert!(world.warnings.last().is_some_and(|warning| warning.contains("1 names below it")));
    assert_eq!(rename(&mut world, &moved, "/c", false), Ok(Response::Done));
    assert_eq!(world.readable(&format!("/c{bottom}/f")).len(), 1);
    world.ns.check();
}

#[test]
fn deletions_ask_before_they_take_much() {
    let mut world = World::new();
    world.mkdir("/d/e").unwrap();
    world.create("/d/e/f", 1);
    assert_eq!(delete(&mut world, "/", true), Err(ErrorCode::InvalidArgument));
    assert_eq!(delete(&mut world, "/d", false), Err(ErrorCode::NotEmpty));
    assert_eq!(delete(&mut world, "/nothing", true), Ok(Response::Deleted(false)));
    assert_eq!(delete(&mut world, "/d/e/f/g", true), Ok(Response::Deleted(false)));
    assert_eq!(delete(&mut world, "/d", true), Ok(Response::Deleted(true)));
    assert!(!world.exists("/d/e/f"));
    world.mkdir("/d").unwrap();
    assert_eq!(delete(&mut world, "/d", false), Ok(Response::Deleted(true)));
    world.ns.check();
}

#[test]
fn a_retry_gets_the_first_answer_even_when_the_world_has_changed() {
    let mut world = World::new();
    world.mkdir("/a").unwrap();
    let operation = world.operation();
    let request = Request::Delete { path: path("/a"), recursive: false, operation };
    assert_eq!(world.call(request.clone()), Ok(Response::Deleted(true)));
    world.mkdir("/a").unwrap();
    assert_eq!(world.call(request.clone()), Ok(Response::Deleted(true)));
    assert!(world.exists("/a"), "the retry deleted nothing");
    let create = world.create_request(1, "/f", 2);
    let created = world.call(create.clone());
    world.restart();
    assert_eq!(world.call(request), Ok(Response::Deleted(true)));
    assert_eq!(world.call(create), created, "a restart does not forget");
    let changes: Vec<&Change> = world.journal.iter().map(|(_, Edit::V1(edit))| &edit.change).collect();
    assert_eq!(changes.iter().filter(|change| !matches!(change, Change::BeginEpoch { .. })).count(), 4);
    // What failed may be tried anew under the same name.
    let operation = world.operation();
    let request = Request::Rename { from: path("/x"), to: path("/y"), overwrite: false, operation };
    assert_eq!(code(world.call(request.clone())), ErrorCode::NotFound);
    world.mkdir("/x").unwrap();
    assert_eq!(world.call(request), Ok(Response::Done));
}

#[test]
fn an_operation_too_old_to_be_remembered_is_refused() {
    let mut world = World::new();
    let operation = |sequence| OperationId { client: ClientId(5), sequence };
    let request = |sequence| Request::Delete { path: path("/x"), recursive: false, operation: operation(sequence) };
    for sequence in 1..=4097 {
        assert_eq!(world.call(request(sequence)), Ok(Response::Deleted(false)));
    }
    assert_eq!(code(world.call(request(1))), ErrorCode::TooMuch);
    assert_eq!(world.call(request(2)), Ok(Response::Deleted(false)));
    assert_eq!(world.journal.len(), 4097);
    assert_eq!(world.replayed().digest(), world.ns.digest());
    world.pass(2_000_000);
    assert!(matches!(
        world.journal.last(),
        Some((_, Edit::V1(EditV1 { change: Change::ForgetClients { clients }, .. }))) if *clients == [ClientId(5)]
    ));
    world.ns.check();
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn owners_groups_and_others_may_what_the_bits_say() {
    let mut world = World::new();
    world.mkdir("/home").unwrap();
    let operation = world.operation();
    world.call(Request::Mkdir { path: path("/tmp"), parents: false, mode: 0o1777, operation }).unwrap();
    let mkdir = |world: &mut World, user: &str, text: &str, mode| {
        let operation = world.operation_of(if user == "ann" { 7 } else { 8 });
        let request = Request::Mkdir { path: path(text), parents: false, mode, operation };
        world.call_by(caller(user), request).map_err(|error| error.code)
    };
    assert_eq!(mkdir(&mut world, "ann", "/home/ann", 0o755), Err(ErrorCode::PermissionDenied));
    assert_eq!(mkdir(&mut world, "ann", "/tmp/ann", 0o700), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "ann", "/tmp/ann/in", 0o755), Ok(Response::Done));
    // Not even that it is there shows to who may not search.
    let stat = Request::Stat { path: path("/tmp/ann/in") };
    assert_eq!(code(world.call_by(caller("bob"), stat.clone())), ErrorCode::PermissionDenied);
    assert!(world.call_by(caller("ann"), stat.clone()).is_ok());
    assert!(world.call_by(caller(ROOT), stat).is_ok());
    let list = Request::List { path: path("/tmp/ann"), after: None, limit: 9 };
    assert_eq!(code(world.call_by(caller("bob"), list)), ErrorCode::PermissionDenied);
    // In a sticky directory others' things stay where they are.
    let operation = world.operation_of(8);
    let delete = Request::Delete { path: path("/tmp/ann"), recursive: true, operation };
    assert_eq!(code(world.call_by(caller("bob"), delete)), ErrorCode::PermissionDenied);
    assert_eq!(mkdir(&mut world, "bob", "/tmp/bob", 0o777), Ok(Response::Done));
    let operation = world.operation_of(8);
    let (from, to) = (path("/tmp/ann"), path("/tmp/bob/ann"));
    let steal = Request::Rename { from, to, overwrite: false, operation };
    assert_eq!(code(world.call_by(caller("bob"), steal)), ErrorCode::PermissionDenied);
    let operation = world.operation_of(7);
    let delete = Request::Delete { path: path("/tmp/ann"), recursive: true, operation };
    assert_eq!(world.call_by(caller("ann"), delete), Ok(Response::Deleted(true)));
    // Only datanodes speak as datanodes.
    let request = Request::DatanodeHeartbeat {
        id: super::world::datanode_id(1),
        volumes: Vec::new(),
        transfers: 0,
        clock: WallTime(0),
    };
    assert_eq!(code(world.call(request)), ErrorCode::PermissionDenied);
}

#[test]
fn what_all_users_share_is_made_for_whoever_needs_it_and_is_nobody_s_own() {
    let mut world = World::new();
    let mkdir = |world: &mut World, user: &str, text: &str, parents, mode| {
        let operation = world.operation_of(if user == "ann" { 7 } else { 8 });
        let request = Request::Mkdir { path: path(text), parents, mode, operation };
        world.call_by(caller(user), request).map_err(|error| error.code)
    };
    assert_eq!(mkdir(&mut world, "ann", "/.situ/mine", true, 0o755), Err(ErrorCode::PermissionDenied));
    assert_eq!(mkdir(&mut world, "ann", "/.situ/jobs", true, 0o700), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "bob", "/.situ/jobs", true, 0o755), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "bob", "/.situ/programs", true, 0o755), Ok(Response::Done));
    for shared in ["/.situ", "/.situ/jobs", "/.situ/programs"] {
        let Ok(Response::Status(Some(status))) = world.call(Request::Stat { path: path(shared) }) else {
            panic!("{shared} is not there")
        };
        assert_eq!((status.owner.as_str(), status.mode), (ROOT, 0o1777), "{shared}");
    }
    assert_eq!(mkdir(&mut world, "ann", "/.situ/jobs/job-1-a", false, 0o700), Ok(Response::Done));
    assert_eq!(mkdir(&mut world, "bob", "/.situ/jobs/job-2-b", false, 0o700), Ok(Response::Done));
    let operation = world.operation_of(8);
    let delete = Request::Delete { path: path("/.situ/jobs/job-1-a"), recursive: true, operation };
    assert_eq!(code(world.call_by(caller("bob"), delete)), ErrorCode::PermissionDenied);
    assert_eq!(world.replayed().digest(), world.ns.digest());
}

#[test]
fn a_publication_happens_whole_or_not_at_all() {
    let mut world = World::new();
    world.mkdir("/out/_tmp/1").unwrap();
    for name in ["/out/_tmp/1/part-0", "/out/_tmp/1/part-1", "/out/_tmp/1/success", "/out/_tmp/zombie"] {
        let inode = world.create(name, 1);
        world.complete(inode, Vec::new()).unwrap();
    }
    let publish = |world: &mut World, moves: &[(&str, &str)], remove: &str| {
        let moves = moves.iter().map(|(from, to)| (path(from), path(to))).collect();
        let (remove, operation) = (path(remove), world.operation());
        world.call(Request::Publish { moves, remove, operation }).map_err(|error| error.code)
    };
    let _ = world.create("/out/_tmp/open", 1);
    let before = (world.ns.digest(), world.journal.len());
    let one = ("/out/_tmp/1/part-0", "/out/part-0");
    let two = ("/out/_tmp/1/part-1", "/out/part-1");
    let success = ("/out/_tmp/1/success", "/out/_SUCCESS");
    for (moves, remove, expected) in [
        (vec![one, ("/out/_tmp/1/lost", "/out/part-1")], "/out/_tmp", ErrorCode::NotFound),
        (vec![one, (two.0, one.1)], "/out/_tmp", ErrorCode::InvalidArgument),
        (vec![one, (one.0, two.1)], "/out/_tmp", ErrorCode::InvalidArgument),
        (vec![one, (success.0, "/out/_tmp/_SUCCESS")], "/out/_tmp", ErrorCode::InvalidArgument),
        (vec![one, ("/out/_tmp/open", "/out/_SUCCESS")], "/out/_tmp", ErrorCode::BeingWritten),
        (vec![(one.0, "/out/_tmp/x")], "/out/_tmp", ErrorCode::InvalidArgument),
        (vec![one, ("/out", "/o")], "/out/_tmp", ErrorCode::InvalidArgument),
        (vec![(one.0, "/nowhere/part-0")], "/out/_tmp", ErrorCode::NotFound),
        (vec![one, (success.0, "/out/_tmp/zombie")], "/out/x", ErrorCode::AlreadyExists),
    ] {
        assert_eq!(publish(&mut world, &moves, remove), Err(expected), "{moves:?}");
        assert_eq!((world.ns.digest(), world.journal.len()), before, "nothing happened");
    }
    assert_eq!(publish(&mut world, &[one, two, success], "/out/_tmp"), Ok(Response::Done));
    assert_eq!(names(&mut world, "/out"), ["_SUCCESS", "part-0", "part-1"]);
    assert_eq!(world.journal.len(), before.1 + 1, "in one edit");
    // A zombie's second publication finds nothing.
    assert_eq!(publish(&mut world, &[one], "/out/_tmp"), Err(ErrorCode::NotFound));
    world.ns.check();
}

#[test]
fn listings_and_health_come_in_pages() {
    let mut world = World::cluster(1, 1);
    for name in ["/d/a", "/d/b/x", "/d/b/y", "/d/b.c", "/d/c"] {
        world.write_file(name, 1, 10);
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let request = Request::List { path: path("/d"), after: after.clone(), limit: 2 };
        let Response::Listing { entries, more } = world.call(request).unwrap() else { panic!() };
        seen.extend(entries.iter().map(|entry| entry.path.name().to_owned()));
        after = seen.last().cloned();
        if !more {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "b.c", "c"]);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let request = Request::Fsck { path: path("/d"), after: after.clone(), limit: 1 };
        let Response::Health { files, more } = world.call(request).unwrap() else { panic!() };
        assert_eq!(files[0].blocks[0].replicas.len(), 1);
        seen.extend(files.iter().map(|file| file.path.to_string()));
        after = files.last().map(|file| file.path.clone());
        if !more {
            break;
        }
    }
    assert_eq!(seen, ["/d/a", "/d/b/x", "/d/b/y", "/d/b.c", "/d/c"]);
    let Response::Summary(summary) = world.call(Request::Summary { path: path("/d") }).unwrap() else { panic!() };
    assert_eq!((summary.directories, summary.files, summary.len_bytes, summary.space_bytes), (2, 5, 50, 50));
}
