//! Damage on the disk: found, told, survived where it can be, never passed over.

use std::path::{Path, PathBuf};

use situ_runtime::Runtime;
use situ_runtime::disk::faulty::{Fault, Faults, Operation, Rule};
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_runtime::journal::{Journal, JournalError};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::messages::namenode::{ClusterReport, Request};

use super::cluster::{Client, DIRECTORY, config, image_directories, parse, start, start_on, without_images};
use super::faulty::FaultyRuntime;
use crate::config::NamenodeConfig;
use crate::error::{NamenodeError, StartError};
use crate::server::directory::{format, images_path, journal_path};
use crate::server::image::Image;
use crate::server::images::image_path;
use crate::server::recovery::journal_options;

/// A namespace of some directories, made in two runs, and how it was reported last. The namenode is not running.
async fn made(world: &SimWorld, config: &NamenodeConfig) -> (SimRuntime, ClusterReport) {
    let mut client = Client::new(world);
    let mut report = None;
    for run in 0..2 {
        let (_, namenode) = start(world, config).await.unwrap();
        for number in 0..100 {
            client.mkdir(namenode.address(), &format!("/d{run}-{number}")).await.unwrap();
        }
        report = Some(client.report(namenode.address()).await);
        namenode.shutdown().await.unwrap();
    }
    let runtime = world.host("nn", &[Role::Namenode]);
    (runtime, report.expect("there were two runs"))
}

/// The good images, newest first.
fn images(runtime: &SimRuntime, world: &SimWorld) -> Vec<PathBuf> {
    let mut images: Vec<_> = image_directories(runtime)
        .into_iter()
        .filter_map(|path| Some((Image::open(runtime, &path, world.cluster()).ok()?.header.tx, path)))
        .collect();
    images.sort();
    images.into_iter().rev().map(|(_, path)| path).collect()
}

/// Flips a bit of a record of an image.
fn flip_in_image(runtime: &SimRuntime, path: &Path) {
    let store = runtime.open_store(path).unwrap();
    let (key, mut value) = store.scan(&[3]).next().unwrap().unwrap();
    let last = value.len() - 1;
    value[last] ^= 1;
    store.write(vec![(key, Some(value))]).unwrap();
    store.sync().unwrap();
}

/// The segments of the log, oldest first.
fn segments(runtime: &SimRuntime) -> Vec<PathBuf> {
    let directory = journal_path(Path::new(DIRECTORY));
    let entries = runtime.disk().list(&directory).unwrap();
    entries.iter().filter(|entry| entry.len_bytes > 0).map(|entry| directory.join(&entry.name)).collect()
}

/// The first record that the log still has.
fn log_begins(runtime: &SimRuntime, world: &SimWorld) -> u64 {
    let path = journal_path(Path::new(DIRECTORY));
    Journal::open(runtime.disk().clone(), &path, journal_options(world.cluster(), 4096)).unwrap().1.first
}

#[test]
fn a_flipped_bit_in_the_newest_image_leads_to_the_other_one() {
    SimWorld::run(1, async |world| {
        let (runtime, before) = made(&world, &config()).await;
        let good = images(&runtime, &world);
        assert!(good.len() >= 2, "{good:?}");
        flip_in_image(&runtime, &good[0]);
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let mut client = Client::new(&world);
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));

        // The damaged one is made anew, and what is made anew is good.
        for number in 0..200 {
            client.mkdir(namenode.address(), &format!("/more{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        namenode.shutdown().await.unwrap();
        assert!(!runtime.disk().exists(&good[0]).unwrap(), "the damaged image is removed");
        let good = images(&runtime, &world);
        assert_eq!(good.len(), 2, "{good:?}");
        flip_in_image(&runtime, &good[0]);
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}

#[test]
fn without_any_good_image_a_whole_log_is_enough() {
    SimWorld::run(2, async |world| {
        let (_, namenode) = start(&world, &without_images()).await.unwrap();
        let mut client = Client::new(&world);
        client.mkdir(namenode.address(), "/d").await.unwrap();
        let before = client.report(namenode.address()).await;
        namenode.shutdown().await.unwrap();
        let runtime = world.host("nn", &[Role::Namenode]);
        let good = images(&runtime, &world);
        assert_eq!(good.len(), 1, "{good:?}");
        flip_in_image(&runtime, &good[0]);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}

#[test]
fn without_any_good_image_a_log_that_was_cut_is_not_enough_and_the_error_says_so() {
    SimWorld::run(7, async |world| {
        let (runtime, _) = made(&world, &config()).await;
        let good = images(&runtime, &world);
        assert_eq!(good.len(), 2);
        for image in good {
            flip_in_image(&runtime, &image);
        }
        let error = start_on(&runtime, &world, &config()).await.unwrap_err();
        let StartError::NoImage { refused, first, .. } = &error else { panic!("{error}") };
        assert!(first.0 > 1 && refused.len() >= 2, "{error}");
        assert!(error.to_string().contains("damaged") && error.to_string().contains("begins at"), "{error}");
    });
}

/// A namenode that has made `/d0` to `/d49` and was killed, so that its log is all there is.
async fn killed(world: &SimWorld) -> SimRuntime {
    let (_, namenode) = start(world, &without_images()).await.unwrap();
    let mut client = Client::new(world);
    for number in 0..50 {
        client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
    }
    world.kill("nn");
    drop(namenode);
    world.host("nn", &[Role::Namenode])
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_fatal_and_says_where() {
    SimWorld::run(3, async |world| {
        let runtime = killed(&world).await;
        let segments = segments(&runtime);
        assert!(segments.len() > 2, "{segments:?}");
        let file = runtime.disk().open(&segments[1], OpenMode::Write).unwrap();
        // The first frame of a segment begins behind its header of 512 bytes, and its payload 40 bytes later.
        let byte = file.read_at(560, 1).unwrap()[0];
        file.write_at(560, &[byte ^ 1]).unwrap();
        file.sync().unwrap();
        let error = start_on(&runtime, &world, &without_images()).await.unwrap_err();
        assert!(
            matches!(&error, StartError::Journal(JournalError::Damaged { segment, offset: 512, .. }) if *segment == segments[1]),
            "{error}"
        );
        let name = segments[1].file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name) && error.to_string().contains("512"), "{error}");
    });
}

#[test]
fn a_torn_tail_is_cut_off_and_the_rest_is_there() {
    SimWorld::run(4, async |world| {
        let runtime = killed(&world).await;
        // As after a power cut in the middle of a frame that nobody was told is done: its last sector is not there.
        let segments = segments(&runtime);
        let file = runtime.disk().open(segments.last().unwrap(), OpenMode::Write).unwrap();
        let bytes = file.read_at(0, 1 << 20).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        file.write_at(u64::try_from(last - 3).unwrap(), &[0; 4]).unwrap();
        file.sync().unwrap();
        drop(file);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let mut client = Client::new(&world);
        assert!(client.stat(namenode.address(), "/d48").await.is_some());
        assert!(client.stat(namenode.address(), "/d49").await.is_none());
        client.mkdir(namenode.address(), "/d49").await.unwrap();
    });
}

#[test]
fn when_the_log_cannot_be_synced_nothing_is_acknowledged_any_more() {
    SimWorld::run(5, async |world| {
        let faults = Faults::new(5);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let mut client = Client::new(&world);
        client.mkdir(namenode.address(), "/good").await.unwrap();

        let under = journal_path(Path::new(DIRECTORY));
        faults.add(Rule { on: Operation::Sync, under, skip: 0, fault: Fault::Fail });
        let lost = Request::Mkdir { path: parse("/lost"), parents: false, mode: 0o755, operation: client.operation() };
        let seen = Request::Stat { path: parse("/lost") };
        let address = namenode.address();
        let (made, seen) = tokio::join!(client.once(address, &lost), client.once(address, &seen));
        for answer in [made, seen] {
            assert_eq!(answer.unwrap_err().remote().map(|error| error.code), Some(ErrorCode::Unavailable));
        }
        assert!(matches!(namenode.stopped().await, Err(NamenodeError::Journal(_))));
        assert!(matches!(namenode.shutdown().await, Err(NamenodeError::Journal(_))));
        // From here on the disk says that all is well, and the namenode does not believe it.
        let later = client.once(address, &Request::Stat { path: parse("/good") }).await;
        assert_eq!(later.unwrap_err().remote().map(|error| error.code), Some(ErrorCode::Unavailable));

        drop(namenode);
        world.crash("nn");
        let runtime = world.host("nn", &[Role::Namenode]);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        assert!(client.stat(namenode.address(), "/good").await.is_some());
        assert!(client.call(|| namenode.address(), &lost).await.is_ok(), "the retry is carried out once");
        assert!(client.stat(namenode.address(), "/lost").await.is_some());
    });
}

#[test]
fn an_image_that_cannot_be_written_costs_nothing_but_the_image() {
    SimWorld::run(6, async |world| {
        let faults = Faults::new(6);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let mut client = Client::new(&world);
        let under = images_path(Path::new(DIRECTORY));
        for skip in [0, 3, 8] {
            faults.add(Rule { on: Operation::Sync, under: under.clone(), skip, fault: Fault::Fail });
        }
        for number in 0..400 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        assert!(namenode.metrics().image_failures.get() >= 2);
        assert!(namenode.metrics().checkpoints.get() >= 2);
        drop(namenode);
        world.crash("nn");
        let runtime = world.host("nn", &[Role::Namenode]);
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}

/// Lets the disk of the images die in the middle of the next one, when that says that it is in progress.
fn die_in_the_next_image(faults: &Faults) {
    // The store's file and the mark come first, and two chunks of the records at least.
    faults.add(Rule { on: Operation::Write, under: images_path(Path::new(DIRECTORY)), skip: 3, fault: Fault::Die });
}

#[test]
fn a_clean_end_never_writes_to_the_only_good_image() {
    SimWorld::run(8, async |world| {
        let faults = Faults::new(8);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
        let mut client = Client::new(&world);

        // Two good images, and a log that was cut; then killed in a checkpoint, which takes one of them.
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let mut number = 0;
        while namenode.metrics().image_failures.get() == 0 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
            number += 1;
            if number == 300 {
                assert!(namenode.metrics().checkpoints.get() >= 2);
                die_in_the_next_image(&faults);
            }
        }
        drop(namenode);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        faults.heal();

        // Killed in the last image of a clean end.
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        for number in 0..50 {
            client.mkdir(namenode.address(), &format!("/late{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        die_in_the_next_image(&faults);
        namenode.shutdown().await.unwrap();
        assert_eq!(namenode.metrics().image_failures.get(), 1, "the last image was cut short");
        drop(namenode);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        faults.heal();

        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}

#[test]
fn clean_ends_alone_give_two_good_images_and_a_log_that_is_cut() {
    SimWorld::run(9, async |world| {
        let (runtime, _) = made(&world, &without_images()).await;
        assert_eq!(images(&runtime, &world).len(), 2);
        assert!(log_begins(&runtime, &world) > 1);
    });
}

#[test]
fn a_start_removes_what_was_never_finished_and_keeps_what_is_damaged() {
    SimWorld::run(11, async |world| {
        let (host, _) = made(&world, &config()).await;
        let good = images(&host, &world);
        assert_eq!(good.len(), 2, "{good:?}");
        let faults = Faults::new(11);
        let runtime = FaultyRuntime::new(host, faults.clone());
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        // Not the one that made the others: its operations would be theirs again.
        let mut client = Client::with(Client::new(&world).connector, 2);
        client.mkdir(namenode.address(), "/d").await.unwrap();
        let before = client.report(namenode.address()).await;
        die_in_the_next_image(&faults);
        namenode.shutdown().await.unwrap();
        drop(namenode);

        let runtime = world.host("nn", &[Role::Namenode]);
        assert_eq!(image_directories(&runtime).len(), 3, "one is in progress");
        flip_in_image(&runtime, &good[0]);
        let namenode = start_on(&runtime, &world, &without_images()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
        let left = image_directories(&runtime);
        assert!(left.len() == 2 && good.iter().all(|image| left.contains(image)), "{left:?}");
    });
}

#[test]
fn an_image_is_read_back_before_the_log_is_cut_on_its_word() {
    SimWorld::run(14, async |world| {
        let faults = Faults::new(14);
        let runtime = FaultyRuntime::new(world.host("nn", &[Role::Namenode]), faults.clone());
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
        // A flipped bit makes records of the first two images vanish, which no sync or later write tells.
        for number in [1, 2] {
            let under = image_path(&images_path(Path::new(DIRECTORY)), number).join("log");
            faults.add(Rule { on: Operation::Read, under, skip: 0, fault: Fault::FlipBit });
        }
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let mut client = Client::new(&world);
        for number in 0..400 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        assert_eq!(faults.injected(), 2);
        assert!(namenode.metrics().checkpoints.get() >= 2);
        drop(namenode);
        world.crash("nn");
        let runtime = world.host("nn", &[Role::Namenode]);
        assert!(log_begins(&runtime, &world) > 1, "the log was cut");
        let namenode = start_on(&runtime, &world, &config()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest), (before.tx, before.digest));
    });
}
