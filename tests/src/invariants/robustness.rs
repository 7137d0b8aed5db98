//! Bad input gets an error that names the thing, what was expected, what was found and what to do; nothing is lost.

use std::io::{BufRead, BufReader, Write};

use situ_tests::harness::{TestCluster, run};
use situ_wire::path::DfsPath;

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
    situ.situ(&["fs", "mkdir", "/kept"], b"").fails(1, &["/kept", "a file already"]);
    situ.situ(&["fs", "mkdir", "/a/b/c"], b"").fails(1, &["/a/b/c", "-p"]);
    situ.situ(&["fs", "put", "-", "/kept/file"], b"").fails(1, &["/kept/file", "a file where a directory is needed"]);
    situ.situ(&["fs", "get", "/kept", "/no/such/directory"], b"").fails(1, &["/no/such", "mkdir"]);
    situ.situ(&["fs", "rm", "/nothing"], b"").fails(1, &["/nothing"]);
    let _ = situ.situ(&["fs", "rm", "-f", "/nothing", "/none*"], b"").ok();
    situ.situ(&["fs", "rm", "-f", "relative*"], b"").fails(2, &["absolute"]);
    situ.situ(&["fs", "rm", "-f", "/a["], b"").fails(2, &["the pattern \"/a[\" is not valid", "is not closed"]);
    for root in [&["fs", "rm", "-r", "/"][..], &["fs", "rm", "/"], &["fs", "rm", "-rf", "/"]] {
        situ.situ(root, b"").fails(1, &["root directory", "'/*'"]);
    }
    let _ = situ.situ(&["fs", "mkdir", "-p", "/full/of"], b"").ok();
    situ.situ(&["fs", "rm", "/full"], b"").fails(1, &["/full", "-r"]);
    situ.situ(&["fs", "mv", "/full", "/full/of/itself"], b"").fails(1, &["/full"]);
    situ.situ(&["fs", "cat", "/full"], b"").fails(1, &["/full", "directory"]);
    let _ = situ.situ(&["fs", "put", "-", "/full/other"], b"other").ok();
    situ.situ(&["fs", "mv", "/full/other", "/kept"], b"").fails(1, &["/kept", "-f"]);
    let _ = situ.situ(&["fs", "mv", "-f", "/full/other", "/full/of"], b"").ok();
    situ.situ(&["fs", "mv", "/full/of", "/kept"], b"").fails(1, &["/kept", "a file already"]);
    situ.situ(&["fs", "mv", "/kept", "/kept"], b"").fails(1, &["/kept", "there already"]);
    situ.situ(&["fs", "mv", "/kept", "/no/such"], b"").fails(1, &["situ fs mkdir -p /no"]);
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
async fn an_output_that_nobody_reads_changes_nothing_of_what_is_done() {
    let mut situ = TestCluster::start(SITU, 1, 1).await;
    let unread = |situ: &TestCluster, arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        situ.command(arguments).stdout(writer).status().unwrap().code()
    };
    for path in ["/one", "/two", "/three"] {
        let _ = situ.situ(&["fs", "put", "-", path], b"no line ends here").ok();
    }
    assert_eq!(unread(&situ, &["fs", "cat", "/one"]), Some(0));
    assert_eq!(unread(&situ, &["fs", "ls", "-R", "/"]), Some(0));
    for arguments in [&["fs", "cat", "/one"][..], &["fs", "get", "/one", "-"], &["fs", "ls", "/"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(situ.command(arguments).stdout(full).status().unwrap().code(), Some(1), "{arguments:?}");
    }
    assert_eq!(unread(&situ, &["--json", "fs", "rm", "/one", "/two"]), Some(0));
    assert_eq!(situ.situ(&["--json", "fs", "ls", "/"], b"").ok().text().lines().count(), 1);
    situ.cluster.nodes[0].datanode.as_mut().unwrap().kill().await.unwrap();
    situ.wait_for("the loss is known", |report| report.missing == 1).await;
    assert_eq!(unread(&situ, &["fsck", "/"]), Some(1));
    // Whoever waits for a datanode that is away is told so.
    situ.situ(&["fs", "cat", "/three"], b"").fails(1, &["/three: waiting for the datanodes", "situ admin report"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_paths_one_that_is_missing_keeps_nothing_of_the_rest_back() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    situ.situ(&["fs", "mkdir", "/no/parent", "/dir", "/empty"], b"").fails(1, &["/no/parent", "-p"]);
    for path in ["/dir/one", "/dir/two", "/three"] {
        let _ = situ.situ(&["fs", "put", "-", path], path.as_bytes()).ok();
    }
    // Wrong use does nothing, wherever it stands.
    situ.situ(&["fs", "rm", "/three", "relative"], b"").fails(2, &["absolute"]);
    situ.situ(&["fs", "mkdir", "/new", "relative"], b"").fails(2, &["absolute"]);
    situ.situ(&["fs", "stat", "/new"], b"").fails(1, &["/new"]);
    let half = |arguments: &[&str]| {
        let said = situ.situ(arguments, b"");
        assert_eq!(said.err.matches("situ: /gone: there is no such").count(), 1, "{said:?}");
        assert_eq!(said.code, Some(1), "{said:?}");
        said.text()
    };
    assert_eq!(half(&["fs", "cat", "/gone", "/dir/one", "/dir/two"]), "/dir/one/dir/two");
    assert!(half(&["fs", "ls", "/gone", "/dir"]).contains("/dir/two"));
    assert!(half(&["fs", "stat", "/gone", "/dir", "/three"]).contains("/three"));
    assert!(half(&["fs", "du", "-s", "/gone", "/three"]).contains("  /three"));
    let local = situ.directory().to_str().unwrap();
    half(&["fs", "get", "/gone", "/three", local]);
    assert_eq!(std::fs::read(situ.directory().join("three")).unwrap(), b"/three");
    half(&["fs", "mv", "/gone", "/dir/one", "/empty"]);
    situ.situ(&["fs", "mv", "/gone", "/empty/one", "/three"], b"").fails(1, &["/gone", "for several sources"]);
    let said = half(&["--json", "fs", "rm", "/gone", "/empty/one", "/dir/two"]);
    assert_eq!(said.lines().count(), 3, "an error and two that are deleted: {said}");
    assert_eq!(situ.situ(&["--json", "fs", "ls", "-R", "/"], b"").ok().text().lines().count(), 3);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_into_devices_fifos_and_links_leaves_them_what_they_are() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = situ.situ(&["fs", "put", "-", "/file"], b"bytes").ok();
    let local = |name: &str| situ.directory().join(name).to_str().unwrap().to_owned();
    let (fifo, real, link, broken) = (local("fifo"), local("real"), local("link"), local("broken"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = fifo.clone();
    let reader = std::thread::spawn(move || std::fs::read(path).unwrap());
    let _ = situ.situ(&["fs", "get", "/file", &fifo], b"").ok();
    assert_eq!(reader.join().unwrap(), b"bytes");
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    std::fs::write(&real, b"old").unwrap();
    symlink("real", &link).unwrap();
    situ.situ(&["fs", "get", "/file", &link], b"").fails(1, &["exists already", "-f"]);
    let _ = situ.situ(&["fs", "get", "-f", "/file", &link], b"").ok();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&real).unwrap(), b"bytes");
    symlink("nothing", &broken).unwrap();
    situ.situ(&["fs", "get", "-f", "/file", &broken], b"").fails(1, &["leads nowhere"]);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_a_tree_cannot_be_stored_is_said_and_the_rest_is_stored() {
    use std::os::unix::fs::symlink;
    let situ = TestCluster::start(SITU, 1, 1).await;
    let tree = situ.directory().join("tree");
    std::fs::create_dir_all(tree.join("below")).unwrap();
    for name in ["a", "below/z"] {
        std::fs::write(tree.join(name), name).unwrap();
    }
    symlink("..", tree.join("below/back")).unwrap();
    symlink("nowhere", tree.join("broken")).unwrap();
    symlink("below", tree.join("twice")).unwrap();
    let said = situ.situ(&["fs", "put", "-r", tree.to_str().unwrap(), "/no/such/local", "/"], b"");
    assert!(!said.err.contains("/no/such/local/"), "{said:?}");
    let words =
        ["stored 3 files", "tree/broken: there is no", "below/back: leads back to", "/no/such/local: there is no"];
    said.fails(1, &words);
    assert_eq!(situ.read("/tree/{below,twice}/z").await.unwrap(), b"below/zbelow/z");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_at_the_end_means_a_directory() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = situ.situ(&["fs", "put", "-", "/file"], b"one").ok();
    let _ = situ.situ(&["fs", "mkdir", "/dir/"], b"").ok();
    let local = situ.directory().join("local");
    std::fs::write(&local, b"two").unwrap();
    let local = local.to_str().unwrap();
    for target in ["/file/", "/new/", "/dir/"] {
        situ.situ(&["fs", "put", "-f", "-", target], b"x").fails(1, &[target.trim_end_matches('/'), "standard input"]);
    }
    for target in ["/file/", "/new/"] {
        situ.situ(&["fs", "put", "-f", local, target], b"").fails(1, &["expected a directory"]);
        situ.situ(&["fs", "mv", "-f", "/file", target], b"").fails(1, &["expected a directory"]);
    }
    for command in ["cat", "ls", "stat", "rm", "du"] {
        situ.situ(&["fs", command, "/file/"], b"").fails(1, &["/file/", "expected a directory"]);
    }
    for target in [format!("{local}/"), format!("{local}-new/")] {
        situ.situ(&["fs", "get", "-f", "/file", &target], b"").fails(1, &["expected a directory"]);
    }
    assert_eq!(std::fs::read(local).unwrap(), b"two");
    // What is a directory takes what is put into it; a directory may become what is not there, slash or not.
    let _ = situ.situ(&["fs", "put", local, "/dir/"], b"").ok();
    let _ = situ.situ(&["fs", "mv", "/file", "/dir/"], b"").ok();
    let _ = situ.situ(&["fs", "mv", "/dir", "/moved/"], b"").ok();
    assert_eq!(situ.situ(&["fs", "cat", "/moved/file", "/moved/local"], b"").ok().out, b"onetwo");
    let got = format!("{local}-tree/");
    let _ = situ.situ(&["fs", "get", "-r", "/moved", &got], b"").ok();
    assert_eq!(std::fs::read(format!("{got}file")).unwrap(), b"one");
    let listed = situ.situ(&["fs", "ls", "-d", "/*/"], b"").ok().text();
    assert!(listed.contains("/moved") && listed.lines().count() == 1, "{listed}");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_put_leaves_is_in_nobodys_way() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let _ = situ.situ(&["fs", "mkdir", "/dir"], b"").ok();
    let mut put = situ.command(&["fs", "put", "-", "/dir/file"]).spawn().unwrap();
    let mut input = put.stdin.take().unwrap();
    input.write_all(&[7; 3_000_000]).unwrap();
    let directory = DfsPath::parse("/dir").unwrap();
    while situ.session.client.list_all(&directory).await.unwrap().is_empty() {
        assert_eq!(put.try_wait().unwrap(), None, "it waits for more");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    put.kill().unwrap();
    put.wait().unwrap();
    // The lease of the dead client lasts for minutes.
    let listed = situ.situ(&["fs", "ls", "/dir"], b"").ok().text();
    assert!(listed.contains("._COPYING_  (being written)") && !listed.contains("/dir/file"), "{listed}");
    situ.situ(&["fs", "cat", "/dir/*"], b"").fails(1, &["nothing matches"]);
    let _ = situ.situ(&["fs", "put", "-", "/dir/file"], b"whole").ok();
    assert_eq!(situ.situ(&["fs", "cat", "/dir/*"], b"").ok().out, b"whole");
    let _ = situ.situ(&["fs", "rm", "-r", "/dir"], b"").ok();
    assert_eq!(situ.situ(&["fs", "ls", "/"], b"").ok().text(), "");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_that_somebody_chose_moves_the_cursor() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    for arguments in [
        &["fs", "put", "/no/\x1b[31mlocal", "/x"][..],
        &["fs", "put", "-", "/a\nb"],
        &["fs", "ls", "/\x1b[31m*"],
        &["fs", "get", "/", "/no/\x1b[31mlocal"],
        &["job", "submit", "/no/\x1b[31mprogram"],
        &["job", "run", "grep", "\x1b[", "/in", "/out"],
    ] {
        let said = situ.situ(arguments, b"");
        assert!(said.code == Some(1) || said.code == Some(2), "{said:?}");
        assert!(!said.err.contains('\x1b') && said.err.lines().count() >= 1, "{said:?}");
    }
    // The arguments of a job may hold anything; a row stays a row.
    let grep = ["job", "run", "grep", "\x1b|\n|x", "/nothing", "/out\u{202e}"];
    assert_eq!(situ.situ(&grep, b"").code, Some(1));
    let listed = situ.situ(&["job", "list"], b"").ok().text();
    assert!(listed.lines().count() == 1 && !listed.contains('\x1b') && !listed.contains('\u{202e}'), "{listed:?}");
    let listed = situ.situ(&["--json", "job", "list"], b"").ok();
    let listed: serde_json::Value = serde_json::from_slice(&listed.out).unwrap();
    assert_eq!(listed["arguments"][0], "\x1b|\n|x");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_count_alike_in_the_report_and_in_fsck() {
    let mut situ = TestCluster::start(SITU, 2, 1).await;
    let _ = situ.situ(&["fs", "put", "--replication", "1", "-", "/one"], b"one").ok();
    let _ = situ.situ(&["fs", "put", "--replication", "2", "-", "/two"], b"two").ok();
    let _ = situ.situ(&["fs", "put", "--replication", "3", "-", "/three"], b"three").ok();
    let health = situ.situ(&["--json", "fsck", "/one"], b"").ok();
    let health: serde_json::Value = serde_json::from_slice(&health.out).unwrap();
    let holder = health["blocks"][0]["replicas"][0]["node"].as_str().unwrap().to_owned();
    let away = situ.cluster.nodes.iter().position(|node| node.name == holder).unwrap();
    situ.cluster.nodes[away].datanode.as_mut().unwrap().kill().await.unwrap();
    let report = situ.wait_for("the loss is known", |report| report.missing == 1).await;
    assert_eq!((report.under_replicated, report.missing), (3, 1));
    let said = situ.situ(&["fsck", "/"], b"");
    assert!(said.text().contains("3 blocks under-replicated, 1 of them missing"), "{}", said.text());
    said.fails(1, &["1 file damaged", "situ admin report"]);
    let said = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(said.contains("under-replicated  3  (the 1 missing among them)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_executors_says_what_it_waits_for_and_goes_on_when_there_is_one() {
    let mut situ = TestCluster::start(SITU, 1, 1).await;
    situ.put("/text", b"a b\n").await;
    let report = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(report.contains("executors: 1 live, 0 dead") && report.contains("0 of 1 slot taken"), "{report}");
    situ.cluster.nodes[0].executor.as_mut().unwrap().kill().await.unwrap();
    let mut job = situ.command(&["job", "run", "wordcount", "/text", "/out"]).spawn().unwrap();
    let mut lines = BufReader::new(job.stderr.take().unwrap()).lines();
    // It comes by itself; if it does not, the job waits for ever and so does this test.
    let said = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("waits for"))).unwrap().unwrap();
    assert!(said.contains("job-1") && said.contains("executor"), "{said}");
    let status = situ.situ(&["job", "status", "1"], b"").ok().text();
    assert!(status.contains("waits for  executors"), "{status}");
    situ.cluster.nodes[0].executor.as_mut().unwrap().restart().await.unwrap();
    assert!(job.wait().unwrap().success(), "{:?}", lines.collect::<Vec<_>>());
    assert_eq!(situ.read("/out/part-*").await.unwrap(), b"a\t1\nb\t1\n");
    let status = situ.situ(&["job", "status", "1"], b"").ok().text();
    assert!(!status.contains("waits for"), "{status}");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_cannot_be_run_say_why_and_leave_what_is_there() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    situ.put("/text", b"a b\n").await;
    let wordcount = |input: &str, output: &str| situ.situ(&["job", "run", "wordcount", input, output], b"");
    wordcount("/nothing", "/out").fails(1, &["/nothing"]);
    // What is wrong with the arguments of a built-in program is said before there is a job.
    situ.situ(&["job", "run", "wordcount", "in", "/out"], b"").fails(2, &["\"in\"", "absolute", "usage: wordcount"]);
    situ.situ(&["job", "run", "wordcount", "/text", "/o", "--reducers", "0"], b"").fails(2, &["--reducers"]);
    situ.situ(&["job", "run", "grep", "(", "/text", "/out"], b"").fails(2, &["regular expression"]);
    situ.situ(&["job", "run", "pi", "0", "10"], b"").fails(2, &["PARTITIONS", "\"0\""]);
    assert_eq!(
        situ.session.client.scheduler().list().await.unwrap().len(),
        1,
        "only the one that had an input to miss"
    );
    assert!(situ.situ(&["job", "run", "pi", "2", "20000"], b"").ok().text().starts_with("pi is about 3.1"));
    situ.situ(&["job", "kill", "1"], b"").fails(1, &["job-1", "ended already", "failed"]);
    situ.situ(&["job", "kill", "2"], b"").fails(1, &["job-2", "ended already", "succeeded"]);
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
    let said = situ.situ(&["fs", "put", "-", "/file"], b"x");
    assert!(!said.err.contains("_COPYING_"), "the name aside is no business of the user's: {}", said.err);
    said.fails(1, &["/file", "datanode"]);
    let root = situ.cluster.layout().root().to_owned();
    let again = ["up", "--dir", root.to_str().unwrap()];
    run(SITU.as_ref(), None, &again, b"").fails(1, &["running already"]);
    let config = situ.cluster.layout().config("namenode");
    // At another port, for its own is taken, too.
    let second = ["namenode", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    run(SITU.as_ref(), None, &second, b"").fails(1, &["namenode", "another process"]);
    let stranger = situ.directory().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(stranger.join("letter"), "dear").unwrap();
    run(SITU.as_ref(), None, &["up", "--dir", stranger.to_str().unwrap()], b"").fails(1, &["letter"]);
    run(SITU.as_ref(), Some(&stranger), &["fs", "ls"], b"").fails(1, &["situ up"]);
    situ.stop().await;
}
