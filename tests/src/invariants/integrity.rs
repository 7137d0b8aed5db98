//! Wrong bytes are never returned: detected, read elsewhere, repaired.

use std::path::{Path, PathBuf};

use situ_tests::harness::{TestCluster, bytes};

use crate::SITU;

/// The files below a directory that hold a replica's bytes: as long as `len_bytes`.
fn replicas(directory: &Path, len_bytes: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        // A file may be moved between being listed and being looked at.
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.len() == len_bytes {
                found.push(entry.path());
            }
        }
    }
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_read_around_and_repaired() {
    let situ = TestCluster::start(SITU, 4, 2).await;
    let expected = bytes(1, 200_003);
    situ.put("/file", &expected).await;
    let root = situ.cluster.layout().root().to_owned();
    let all = replicas(&root, 200_003);
    assert_eq!(all.len(), 3, "{all:?}");
    for spoilt in &all[..2] {
        flip(spoilt, 100_000);
    }
    // Whichever replica comes first, the bytes are right. A command of its own each time remembers no bad replica, so
    // sooner or later one meets each; what it found is then made good.
    for round in 0.. {
        assert!(round < 200, "the spoilt replicas are found and replaced");
        let said = situ.situ(&["fs", "cat", "/file"], b"").ok();
        assert!(said.out == expected);
        situ.wait_whole().await;
        let good = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes == expected);
        if replicas(&root, 200_003).iter().filter(|path| good(path)).count() >= 3 {
            break;
        }
    }
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_replica_is_spoilt_there_is_an_error_and_no_wrong_byte() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let expected = bytes(2, 150_001);
    situ.put("/file", &expected).await;
    for path in replicas(situ.cluster.layout().root(), 150_001) {
        flip(&path, 149_999);
    }
    let said = situ.situ(&["fs", "cat", "/file"], b"");
    assert!(expected.starts_with(&said.out), "only verified bytes come out");
    for node in ["node-1 at", "node-2 at", "node-3 at"] {
        assert_eq!(said.err.matches(node).count(), 1, "each replica is blamed once: {}", said.err);
    }
    said.fails(1, &["/file", "`situ fsck /file`"]);
    let local = situ.directory().join("copy");
    situ.situ(&["fs", "get", "/file", local.to_str().unwrap()], b"").fails(1, &["/file"]);
    assert!(!local.exists(), "a file that could not be fetched whole is not there");
}
