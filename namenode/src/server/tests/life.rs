//! Start, serve, end; what is refused.

use std::path::Path;

use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, DiskErrorKind};
use situ_runtime::rpc::RpcError;
use situ_runtime::sim::SimWorld;
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

use super::cluster::{Client, DIRECTORY, config, start, start_on, without_images};
use crate::error::{DirectoryError, FormatError, StartError};
use crate::server::format;

#[test]
fn a_clean_end_and_a_start_give_everything_back() {
    SimWorld::run(1, async |world| {
        let (_, namenode) = start(&world, &config()).await.unwrap();
        let mut client = Client::new(&world);
        for number in 0..100 {
            client.mkdir(namenode.address(), &format!("/d{number}")).await.unwrap();
        }
        let before = client.report(namenode.address()).await;
        namenode.shutdown().await.unwrap();
        namenode.stopped().await.unwrap();
        assert!(namenode.metrics().checkpoints.get() >= 2, "both images were made");

        let (_, namenode) = start(&world, &config()).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((after.tx, after.digest, after.directories), (before.tx, before.digest, 101));
        assert!(client.stat(namenode.address(), "/d99").await.is_some());
        assert!(client.stat(namenode.address(), "/d100").await.is_none());
        assert_eq!(client.mkdir(namenode.address(), "/d7").await.unwrap_err().code, ErrorCode::AlreadyExists);
    });
}

#[test]
fn after_a_shutdown_calls_are_turned_away_and_the_directory_is_free() {
    SimWorld::run(2, async |world| {
        let (runtime, namenode) = start(&world, &config()).await.unwrap();
        let client = Client::new(&world);
        client.stat(namenode.address(), "/").await;
        namenode.shutdown().await.unwrap();
        let refused = client.once(namenode.address(), &situ_wire::messages::namenode::Request::Report).await;
        match refused {
            Err(RpcError::Remote(error)) => assert_eq!(error.code, ErrorCode::Unavailable),
            other => panic!("{other:?}"),
        }
        start_on(&runtime, &world, &config()).await.unwrap();
    });
}

#[test]
fn two_namenodes_do_not_share_a_directory() {
    SimWorld::run(3, async |world| {
        let (runtime, _namenode) = start(&world, &config()).await.unwrap();
        let error = start_on(&runtime, &world, &config()).await.unwrap_err();
        assert!(
            matches!(&error, StartError::Directory(DirectoryError::Disk(disk)) if disk.kind == DiskErrorKind::Locked),
            "{error}"
        );
        assert!(error.to_string().contains(DIRECTORY), "{error}");
    });
}

#[test]
fn a_directory_that_is_not_this_clusters_is_refused() {
    SimWorld::run(4, async |world| {
        let runtime = world.host("nn", &[Role::Namenode]);
        let directory = Path::new(DIRECTORY);
        let error = start_on(&runtime, &world, &config()).await.unwrap_err();
        assert!(matches!(error, StartError::Directory(DirectoryError::NotFormatted { .. })), "{error}");
        assert!(error.to_string().contains("situ namenode --config FILE --format"), "{error}");

        let other = ClusterId(99);
        format(runtime.disk(), directory, other).unwrap();
        let error = start_on(&runtime, &world, &config()).await.unwrap_err();
        assert!(
            matches!(error, StartError::Directory(DirectoryError::WrongCluster { found, .. }) if found == other),
            "{error}"
        );

        let version = format!("situ-namenode\nlayout 2\ncluster {}\n", world.cluster());
        // Its edit log alone is gone, before there is any image that would tell.
        runtime.disk().write_atomically(&directory.join("VERSION"), version.as_bytes()).unwrap();
        runtime.disk().remove_directory(&directory.join("journal")).unwrap();
        let error = start_on(&runtime, &world, &config()).await.unwrap_err();
        assert!(matches!(error, StartError::Directory(DirectoryError::NoJournal { .. })), "{error}");

        let again = format(runtime.disk(), directory, other);
        assert!(matches!(again, Err(FormatError::AlreadyFormatted { .. })), "{again:?}");
        runtime.disk().create_directory(Path::new("/home/me")).unwrap();
        let stranger = format(runtime.disk(), Path::new("/home"), other);
        assert!(matches!(stranger, Err(FormatError::NotEmpty { ref found, .. }) if found == "me"), "{stranger:?}");
    });
}

#[test]
fn a_format_that_lost_power_can_be_done_again() {
    for seed in 0..20 {
        SimWorld::run(seed, async |world| {
            let runtime = world.host("nn", &[Role::Namenode]);
            format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
            world.crash("nn");
            start(&world, &without_images()).await.unwrap();
        });
    }
}
