//! Images take no room that the log needs, and a full disk takes nothing that is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::faulty::{Fault, Faults, Operation, Rule};
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, DiskErrorKind, File, OpenMode};
use situ_runtime::journal::JournalError;
use situ_runtime::rpc::RpcError;
use situ_runtime::sim::SimWorld;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::messages::namenode::{Request, Response, Taking};

use super::cluster::{Client, DIRECTORY, config, image_directories, parse, start_on, without_images};
use super::faulty::FaultyRuntime;
use crate::error::NamenodeError;
use crate::server::directory::images_path;
use crate::server::{NamenodeHandle, format};

const SMALL_DISK_BYTES: u64 = 4 << 20;
/// What is kept of it for the log.
const LOG_RESERVE_BYTES: u64 = SMALL_DISK_BYTES / 32;
/// What is kept of that from deletions too.
const LAST_BYTES: u64 = LOG_RESERVE_BYTES / 4;
/// What the log may have written ahead, which is room too.
const SEGMENT_LEN_BYTES: u64 = 4096;
/// With less an image is not begun.
const IMAGE_RESERVE_BYTES: u64 = 2 * LOG_RESERVE_BYTES;

/// A namenode's host with a small disk, formatted.
fn small(world: &SimWorld) -> FaultyRuntime {
    let host = world.host("nn", &[Role::Namenode]);
    let runtime = FaultyRuntime::with_disk(host, MemoryDisk::new(SMALL_DISK_BYTES), Faults::new(0));
    format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
    runtime
}

/// Leaves so much room on the disk, by one large file.
fn leave<R: Runtime>(runtime: &R, free_bytes: u64) {
    let file = runtime.disk().open(Path::new("/ballast"), OpenMode::Truncate).unwrap();
    let free_now_bytes = runtime.disk().space(Path::new("/")).unwrap().free_bytes;
    file.set_len(free_now_bytes - free_bytes).unwrap();
}

#[test]
fn an_image_that_failed_is_removed() {
    SimWorld::run(10, async |world| {
        let faults = Faults::new(10);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        // Every sync of an image fails: no two images are ever good.
        for _ in 0..1000 {
            let under = images_path(Path::new(DIRECTORY));
            faults.add(Rule { on: Operation::Sync, under, skip: 0, fault: Fault::Fail });
        }
        let mut client = Client::new(&world);
        for number in 0..200 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        namenode.shutdown().await.unwrap();
        let failures = namenode.metrics().image_failures.get();
        assert!(failures >= 3 && namenode.metrics().checkpoints.get() == 0, "{failures}");
        assert_eq!(image_directories(&runtime), [] as [PathBuf; 0]);
    });
}

#[test]
fn without_room_a_checkpoint_is_put_off_and_the_namenode_goes_on() {
    SimWorld::run(12, async |world| {
        let runtime = small(&world);
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let mut client = Client::new(&world);
        for number in 0..200 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        world.clock().sleep(Duration::from_secs(10)).await;
        let checkpoints = namenode.metrics().checkpoints.get();
        assert!(checkpoints >= 2);

        leave(&runtime, IMAGE_RESERVE_BYTES - 1);
        for number in 0..100 {
            client.mkdir(namenode.address(), &format!("/more{number}")).await.unwrap();
        }
        assert_eq!(namenode.metrics().checkpoints.get(), checkpoints);

        // The images are what they were: what is brought forward when there is room again is good.
        runtime.disk().remove_file(Path::new("/ballast")).unwrap();
        for number in 0..100 {
            client.mkdir(namenode.address(), &format!("/again{number}")).await.unwrap();
        }
        world.clock().sleep(Duration::from_secs(10)).await;
        assert!(namenode.metrics().checkpoints.get() > checkpoints);
        assert_eq!(namenode.metrics().image_failures.get(), 0);
        let before = client.report(namenode.address()).await;
        namenode.shutdown().await.unwrap();
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}

#[test]
fn an_image_that_does_not_fit_is_given_up_before_the_log_lacks_room() {
    SimWorld::run(13, async |world| {
        let runtime = small(&world);
        // Nothing tells yet how large the first image will be: it is begun.
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let mut client = Client::new(&world);
        for number in 0..2000 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        leave(&runtime, IMAGE_RESERVE_BYTES);
        namenode.shutdown().await.unwrap();
        assert_eq!((namenode.metrics().checkpoints.get(), namenode.metrics().image_failures.get()), (0, 1));
        assert_eq!(runtime.disk().space(Path::new("/")).unwrap().free_bytes, IMAGE_RESERVE_BYTES);
    });
}

/// Until the room has been looked at again for sure.
const LOOKED: Duration = Duration::from_secs(3);

fn free_bytes<R: Runtime>(runtime: &R) -> u64 {
    runtime.disk().space(Path::new("/")).unwrap().free_bytes
}

fn delete(client: &mut Client, path: &str) -> Request {
    Request::Delete { path: parse(path), recursive: true, operation: client.operation() }
}

/// Makes so many calls at once, each of a client of its own.
async fn at_once(
    client: &Client,
    namenode: &NamenodeHandle,
    count: u32,
    request: impl Fn(&mut Client, u32) -> Request,
) -> Vec<Result<Response, RemoteError>> {
    let (address, runtime) = (namenode.address(), client.connector.runtime());
    let mut calls = Vec::new();
    for number in 0..count {
        let mut client = Client::with(client.connector.clone(), u128::from(number) + 1000);
        let request = request(&mut client, number);
        let call = async move { client.once(address, &request).await };
        calls.push(runtime.spawn("call", call));
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.push(match call.join().await.unwrap() {
            Ok(response) => Ok(response),
            Err(RpcError::Remote(error)) => Err(error),
            Err(error) => panic!("{error}"),
        });
    }
    answers
}

/// Makes directories with long names, each in the one before.
fn mkdir_long(client: &mut Client, number: u32) -> Request {
    let path = parse(&format!("/{number}{}", format!("/{}", "n".repeat(200)).repeat(8)));
    Request::Mkdir { path, parents: true, mode: 0o755, operation: client.operation() }
}

#[test]
fn below_the_reserve_what_adds_is_refused_and_deletions_go_on_until_there_is_room_again() {
    SimWorld::run(14, async |world| {
        let runtime = small(&world);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let address = namenode.address();
        let mut client = Client::new(&world);
        for number in 0..100 {
            client.mkdir(address, &format!("/d{number}")).await.unwrap();
        }
        let room = client.report(address).await.room.unwrap();
        assert_eq!(
            (room.taking, room.reserve_bytes, room.last_bytes),
            (Taking::Everything, LOG_RESERVE_BYTES, LAST_BYTES)
        );

        leave(&runtime, LOG_RESERVE_BYTES - SEGMENT_LEN_BYTES);
        world.clock().sleep(LOOKED).await;
        let error = client.mkdir(address, "/new").await.unwrap_err();
        assert_eq!((error.code, error.subject.as_str()), (ErrorCode::NamenodeFull, "/new"));
        assert!(error.message.contains(DIRECTORY) && error.message.contains("128.0 KiB"), "{error}");
        assert_eq!(client.report(address).await.room.unwrap().taking, Taking::WhatFrees);
        assert!(client.stat(address, "/d7").await.is_some());
        let (mut deleted, mut refused) = (0, None);
        while refused.is_none() && deleted < 1000 {
            let request = delete(&mut client, &format!("/d{deleted}"));
            refused = client.call(|| address, &request).await.err();
            deleted += 1;
        }
        assert!(deleted > 100 && refused.is_some_and(|error| error.code == ErrorCode::NamenodeFull), "{deleted}");
        assert!(free_bytes(&runtime) >= LAST_BYTES / 2, "{}", free_bytes(&runtime));
        assert_eq!(client.report(address).await.room.unwrap().taking, Taking::Nothing);
        assert!(client.stat(address, "/").await.is_some());

        runtime.disk().remove_file(Path::new("/ballast")).unwrap();
        world.clock().sleep(LOOKED).await;
        client.mkdir(address, "/new").await.unwrap();
        let before = client.report(address).await;
        assert_eq!((before.room.unwrap().taking, before.directories), (Taking::Everything, 2));
        namenode.shutdown().await.unwrap();
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        assert_eq!(client.report(namenode.address()).await.digest, before.digest);
    });
}

#[test]
fn between_two_looks_no_more_is_appended_than_there_is_room_for() {
    SimWorld::run(15, async |world| {
        let runtime = small(&world);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let client = Client::new(&world);
        leave(&runtime, LOG_RESERVE_BYTES + 1000);
        world.clock().sleep(LOOKED).await;
        let answers = at_once(&client, &namenode, 2000, mkdir_long).await;
        let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert!(
            !made.is_empty()
                && refused.iter().all(|answer| answer.as_ref().unwrap_err().code == ErrorCode::NamenodeFull)
        );
        assert!(free_bytes(&runtime) >= LAST_BYTES, "{} free after {}", free_bytes(&runtime), made.len());
        let answers = at_once(&client, &namenode, 2000, |client, number| delete(client, &format!("/{number}"))).await;
        assert!(answers.iter().any(Result::is_err));
        assert!(client.stat(namenode.address(), "/").await.is_some());
        assert!(free_bytes(&runtime) > 0);
    });
}

#[test]
fn a_namenode_that_a_full_disk_has_ended_comes_up_again_and_refuses() {
    SimWorld::run(16, async |world| {
        let runtime = small(&world);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let mut client = Client::new(&world);
        for number in 0..20 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        // Somebody else takes all of it between two looks.
        leave(&runtime, 0);
        let answers = at_once(&client, &namenode, 100, mkdir_long).await;
        assert!(answers.iter().any(|answer| answer.as_ref().is_err_and(|error| error.code == ErrorCode::Unavailable)));
        let error = namenode.stopped().await.unwrap_err();
        assert!(
            matches!(&error, NamenodeError::Journal(JournalError::Disk(disk)) if disk.kind == DiskErrorKind::Full),
            "{error}"
        );
        drop(namenode);
        let made = answers.iter().filter(|answer| answer.is_ok()).count() as u64;

        // The disk is as full as it was, to the last byte that its own end has set free.
        leave(&runtime, 0);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert!(after.directories >= before.directories + made, "what was acknowledged is there");
        assert_eq!(after.room.unwrap().taking, Taking::Nothing);
        let request = delete(&mut client, "/d1");
        for request in [mkdir_long(&mut client, 1000), request] {
            let refused = client.call(|| namenode.address(), &request).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::NamenodeFull);
        }
        assert!(client.stat(namenode.address(), "/d1").await.is_some());

        // With a little room it deletes, and with more it does all.
        leave(&runtime, 2 * LAST_BYTES);
        world.clock().sleep(LOOKED).await;
        let request = delete(&mut client, "/d1");
        client.call(|| namenode.address(), &request).await.unwrap();
        runtime.disk().remove_file(Path::new("/ballast")).unwrap();
        world.clock().sleep(LOOKED).await;
        client.mkdir(namenode.address(), "/d1").await.unwrap();
        namenode.shutdown().await.unwrap();
    });
}
