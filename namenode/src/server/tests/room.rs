//! Images take no room that the log needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::faulty::{Fault, Faults, Operation, Rule};
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_runtime::sim::SimWorld;
use situ_wire::hello::Role;

use super::cluster::{Client, DIRECTORY, config, image_directories, start_on, without_images};
use super::faulty::FaultyRuntime;
use crate::server::directory::images_path;
use crate::server::format;

const SMALL_DISK_BYTES: u64 = 4 << 20;
/// Of a small disk a sixteenth stays free.
const SMALL_RESERVE_BYTES: u64 = SMALL_DISK_BYTES / 16;

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

        leave(&runtime, SMALL_RESERVE_BYTES - 1);
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
        leave(&runtime, SMALL_RESERVE_BYTES);
        namenode.shutdown().await.unwrap();
        assert_eq!((namenode.metrics().checkpoints.get(), namenode.metrics().image_failures.get()), (0, 1));
        assert_eq!(runtime.disk().space(Path::new("/")).unwrap().free_bytes, SMALL_RESERVE_BYTES);
    });
}
