//! Bad input gets an error that names the thing, what was expected, what was found and what to do; nothing is lost.

use situ_tests::harness::{TestCluster, run};

use crate::SITU;

#[tokio::test(flavor = "multi_thread")]
async fn strange_but_valid_names_and_contents_are_stored() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let longest = format!("/{}", "n".repeat(255));
    for path in ["/with space", "/quote\"'s", "/crab 🦀", longest.as_str(), "/-dash", "/*star"] {
        let escaped = path.replace('*', "\\*");
        let _ = situ.situ(&["fs", "put", "-", &escaped], path.as_bytes()).ok();
        assert_eq!(situ.situ(&["fs", "cat", &escaped], b"").ok().out, path.as_bytes());
    }
    let _ = situ.situ(&["fs", "put", "-", "/empty"], b"").ok();
    assert_eq!(situ.situ(&["fs", "cat", "/empty"], b"").ok().out, b"");
    let _ = situ.situ(&["fs", "rm", "/\\*star"], b"").ok();
    assert_eq!(situ.situ(&["--json", "fs", "ls", "/"], b"").ok().text().lines().count(), 6);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_paths_and_targets_are_refused_and_nothing_is_lost() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let _ = situ.situ(&["fs", "put", "-", "/kept"], b"kept").ok();
    let too_long = format!("/{}", "n".repeat(256));
    for (path, word) in
        [("relative", "absolute"), ("/a/../b", "\"..\""), ("/a//b", "//"), ("", "empty"), (too_long.as_str(), "255")]
    {
        situ.situ(&["fs", "put", "-", path], b"x").fails(2, &[word]);
        situ.situ(&["fs", "stat", path], b"").fails(2, &[word]);
    }
    situ.situ(&["fs", "put", "-", "/kept"], b"other").fails(1, &["/kept", "exists", "-f"]);
    situ.situ(&["fs", "put", "-", "/missing/file"], b"x").fails(1, &["/missing"]);
    situ.situ(&["fs", "put", "-", "/kept/file"], b"x").fails(1, &["/kept"]);
    situ.situ(&["fs", "put", "/no/such/local/file", "/x"], b"").fails(1, &["/no/such/local/file"]);
    situ.situ(&["fs", "put", "/proc/self/mem", "/x"], b"").fails(1, &["/proc/self/mem"]);
    situ.situ(&["fs", "put", "/tmp", "/x"], b"").fails(1, &["-r"]);
    situ.situ(&["fs", "mkdir", "/kept"], b"").fails(1, &["/kept"]);
    situ.situ(&["fs", "rm", "/nothing"], b"").fails(1, &["/nothing"]);
    let _ = situ.situ(&["fs", "rm", "-f", "/nothing"], b"").ok();
    situ.situ(&["fs", "rm", "-r", "/"], b"").fails(1, &["/"]);
    let _ = situ.situ(&["fs", "mkdir", "-p", "/full/of"], b"").ok();
    situ.situ(&["fs", "rm", "/full"], b"").fails(1, &["/full", "-r"]);
    situ.situ(&["fs", "mv", "/full", "/full/of/itself"], b"").fails(1, &["/full"]);
    situ.situ(&["fs", "cat", "/full"], b"").fails(1, &["/full", "directory"]);
    situ.situ(&["fs", "ls", "/none*"], b"").fails(1, &["/none*"]);
    situ.situ(&["fsck", "/nothing"], b"").fails(1, &["/nothing"]);
    situ.situ(&["fs", "nonsense"], b"").fails(2, &["nonsense"]);
    situ.situ(&["job", "status", "99"], b"").fails(1, &["job-99"]);
    situ.situ(&["job", "status", "x"], b"").fails(2, &["\"x\""]);
    let _ = situ.situ(&["fs", "put", "-f", "-", "/kept"], b"replaced").ok();
    assert_eq!(situ.situ(&["fs", "cat", "/kept"], b"").ok().out, b"replaced");
    assert_eq!(situ.situ(&["--json", "fs", "ls", "/"], b"").ok().text().lines().count(), 2, "nothing is left behind");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_cannot_be_run_say_why_and_leave_what_is_there() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    situ.put("/text", b"a b\n").await;
    let wordcount = |input: &str, output: &str| situ.situ(&["job", "run", "wordcount", input, output], b"");
    wordcount("/nothing", "/out").fails(1, &["/nothing"]);
    let _ = wordcount("/text", "/out").ok();
    let before = situ.read("/out/part-*").await.unwrap();
    wordcount("/text", "/out").fails(1, &["/out", "exists"]);
    assert_eq!(situ.read("/out/part-*").await.unwrap(), before);
    let script = situ.directory().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    situ.situ(&["job", "submit", script.to_str().unwrap()], b"").fails(1, &["ELF"]);
    // An executable that is no program of a job: its exit code is told.
    situ.situ(&["job", "submit", "/bin/false"], b"").fails(1, &["exit code 1"]);
    let listed = situ.situ(&["--json", "fs", "ls", "/"], b"").ok().text();
    assert!(!listed.contains("_temporary"), "{listed}");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_misbehave_end_with_what_they_did_and_hurt_nobody_else() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    situ.put("/text", b"a b\n").await;
    let misbehave = |kind: &str| situ.situ(&["job", "submit", env!("CARGO_BIN_EXE_misbehaving"), kind], b"");
    misbehave("error").fails(1, &["the moon is in the wrong house"]);
    misbehave("panic").fails(1, &["57 is not to be counted", "misbehaving.rs"]);
    misbehave("abort").fails(1, &["signal 6"]);
    misbehave("differ").fails(1, &["reduce_by_key", "2 partitions", "3 partitions"]);
    misbehave("eat").fails(1, &["MiB of memory", "worker_memory_bytes"]);
    // One that never ends is ended from outside.
    let scheduler = situ.session.client.scheduler();
    let jobs = scheduler.list().await.unwrap();
    let program = jobs[0].program.clone();
    let job = scheduler.submit(program, vec!["loop".to_owned()]).await.unwrap();
    let mut revision = 0;
    loop {
        let status = scheduler.changed_status(job, revision, std::time::Duration::from_secs(10)).await.unwrap();
        revision = status.revision;
        assert!(!status.summary.state.is_final(), "{status:?}");
        if status.stages.iter().any(|stage| stage.running > 0) {
            break;
        }
    }
    let _ = situ.situ(&["job", "kill", &job.to_string()], b"").ok();
    let status = scheduler.status(job).await.unwrap();
    assert!(matches!(status.summary.state, situ_wire::messages::scheduler::JobState::Killed { .. }), "{status:?}");
    // The next job finds its slots free.
    let _ = situ.situ(&["job", "run", "wordcount", "/text", "/out", "--reducers", "1"], b"").ok();
    assert_eq!(situ.read("/out/part-00000").await.unwrap(), b"a\t1\nb\t1\n");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_and_a_cluster_that_is_not_there_are_named() {
    let situ = TestCluster::start(SITU, 0, 1).await;
    situ.situ(&["fs", "put", "-", "/file"], b"x").fails(1, &["datanode"]);
    let root = situ.cluster.layout().root().to_owned();
    let again = ["up", "--dir", root.to_str().unwrap()];
    run(SITU.as_ref(), None, &again, b"").fails(1, &["running already"]);
    let config = situ.cluster.layout().config("namenode");
    let second = ["namenode", "--config", config.to_str().unwrap()];
    run(SITU.as_ref(), None, &second, b"").fails(1, &["namenode", "another process"]);
    let stranger = situ.directory().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(stranger.join("letter"), "dear").unwrap();
    run(SITU.as_ref(), None, &["up", "--dir", stranger.to_str().unwrap()], b"").fails(1, &["letter"]);
    run(SITU.as_ref(), Some(&stranger), &["fs", "ls"], b"").fails(1, &["situ up"]);
    situ.stop().await;
}
