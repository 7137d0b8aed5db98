//! A job's output equals what one machine would compute, and is published once or not at all; and nothing else of a job
//! outlives it.

use std::path::Path;
use std::time::{Duration, Instant};

use situ::chaos::{Part, of_jobs};
use situ::quickstart::count::WordCount;
use situ::quickstart::text::TextMaker;
use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobState, Lost};
use situ_wire::path::DfsPath;

use crate::SITU;
use crate::following::{follow, stored, until};

fn text(seed: u64, len: u64) -> Vec<u8> {
    let mut text = Vec::new();
    TextMaker::new(seed).write(len, &mut text, |_| ()).unwrap();
    text
}

/// The lines of a job's parts, sorted over all.
fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(lines.pop(), Some(Vec::new()), "every line ends");
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn word_counts_equal_a_count_in_one_thread_whatever_the_input() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let long_line = [b"x".repeat(700_000), b" y z\n".to_vec(), b"z".repeat(300_000)].concat();
    let inputs: [(&str, Vec<u8>); 6] = [
        ("text", text(1, 2 << 20)),
        ("empty", Vec::new()),
        ("no newline", b"one two one".to_vec()),
        ("invalid", b"\xff\xfe a\x00b \xff\xfe\n\x80".to_vec()),
        ("long line", long_line),
        ("blank", b" \n\t\r\n  ".to_vec()),
    ];
    for (job, (name, input)) in (1..).zip(inputs) {
        situ.put(&format!("/{name}"), &input).await;
        let output = format!("/out of {name}");
        let _ = situ.situ(&["job", "run", "wordcount", &format!("/{name}"), &output, "--reducers", "3"], b"").ok();
        let expected = WordCount::of(&input[..], |_| ()).unwrap().lines();
        assert!(lines(&situ.read(&format!("{output}/part-*")).await.unwrap()) == expected, "{name}");
        assert_eq!(situ.read(&format!("{output}/_SUCCESS")).await.unwrap(), format!("job-{job}\n").as_bytes());
        let listed = situ.situ(&["--json", "fs", "ls", &output], b"").ok().text();
        assert_eq!(listed.lines().count(), 4, "three parts and _SUCCESS, nothing else: {listed}");
    }
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grep_gives_the_lines_that_match() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let input = text(2, 1 << 20);
    situ.put("/text", &input).await;
    let _ = situ.situ(&["job", "run", "grep", "th[aei]", "/text", "/lines"], b"").ok();
    let expected: Vec<u8> = input
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.windows(3).any(|word| word.starts_with(b"th") && b"aei".contains(&word[2])))
        .flatten()
        .copied()
        .collect();
    assert!(!expected.is_empty());
    assert!(situ.read("/lines/part-*").await.unwrap() == expected);
    situ.situ(&["job", "run", "grep", "(", "/text", "/none"], b"").fails(2, &["("]);
    assert!(situ.read("/none/part-*").await.is_err());
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_the_middle_changes_nothing_in_the_result() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    let input = text(3, 8 << 20);
    situ.put("/text", &input).await;
    let scheduler = situ.session.client.scheduler();
    let arguments = vec!["/text".to_owned(), "/out".to_owned(), "--reducers".to_owned(), "2".to_owned()];
    let program = situ_wire::messages::scheduler::Program::BuiltIn { name: "wordcount".to_owned() };
    let job = scheduler.submit(program, arguments).await.unwrap();
    let mut revision = 0;
    let mut killed = false;
    let status = loop {
        let status = scheduler.changed_status(job, revision, std::time::Duration::from_secs(10)).await.unwrap();
        revision = status.revision;
        let under_way = status.stages.iter().any(|stage| stage.done >= 4 && stage.running > 0);
        if under_way && !killed {
            killed = true;
            let node = &mut situ.cluster.nodes[1];
            node.executor.take().unwrap().kill().await.unwrap();
            node.datanode.take().unwrap().kill().await.unwrap();
        }
        if status.summary.state.is_final() {
            break status;
        }
    };
    assert_eq!(status.summary.state, situ_wire::messages::scheduler::JobState::Succeeded);
    assert!(killed, "the job was under way when the node died");
    let expected = WordCount::of(&input[..], |_| ()).unwrap().lines();
    assert!(lines(&situ.read("/out/part-*").await.unwrap()) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_jobs_are_remembered_through_the_death_of_everything() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    situ.put("/text", b"a b a\n").await;
    let _ = situ.situ(&["job", "run", "wordcount", "/text", "/out", "--reducers", "1"], b"").ok();
    let situ = situ.kill_all_and_restart().await;
    let jobs = situ.situ(&["--json", "job", "list"], b"").ok().text();
    let job: serde_json::Value = serde_json::from_str(jobs.lines().next().unwrap()).unwrap();
    assert_eq!((job["job"].as_u64(), job["state"].as_str()), (Some(1), Some("succeeded")));
    situ.wait_for("safe mode ends", |report| report.safe_mode.is_none()).await;
    assert_eq!(situ.read("/out/part-00000").await.unwrap(), b"a\t2\nb\t1\n");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_killed_leaves_nothing_of_what_it_wrote_aside() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let program = stored(&situ, env!("CARGO_BIN_EXE_misbehaving"), &["error"]).await;
    situ.put("/text", b"a b a\n").await;
    let _ = situ.situ(&["job", "run", "wordcount", "/text", "/whole", "--reducers", "1"], b"").ok();
    let (client, scheduler) = (&situ.session.client, situ.session.client.scheduler());
    let output = DfsPath::parse("/out/of/it").unwrap();
    let job = scheduler.submit(program, vec!["save".to_owned(), output.to_string()]).await.unwrap();
    follow(&situ, job, |status| status.stages.iter().any(|stage| stage.done == 1 && stage.running == 1)).await;
    let written = output.join("_temporary").unwrap().join(&job.to_string()).unwrap();
    assert!(client.exists(&written).await.unwrap(), "it writes aside");
    // Its driver cannot take it away any more.
    for driver in of_jobs(situ.cluster.scheduler.address(), Part::Driver, Some(job)) {
        driver.kill().unwrap();
    }
    let _ = situ.situ(&["job", "kill", &job.to_string()], b"").ok();
    until("what it wrote aside is taken away", async || (!client.exists(&output).await.unwrap()).then_some(())).await;
    assert!(client.exists(&DfsPath::parse("/out/of").unwrap()).await.unwrap(), "what it only passed through stays");
    assert_eq!(situ.read("/whole/part-00000").await.unwrap(), b"a\t2\nb\t1\n");
    // So it is when nobody is there to do it until everything is started again.
    let program = scheduler.status(job).await.unwrap().summary.program;
    let job = scheduler.submit(program, vec!["save".to_owned(), output.to_string()]).await.unwrap();
    follow(&situ, job, |status| status.stages.iter().any(|stage| stage.done == 1 && stage.running == 1)).await;
    let mut situ = situ;
    for node in &mut situ.cluster.nodes {
        node.executor.take().unwrap().kill().await.unwrap();
    }
    let _ = situ.situ(&["job", "kill", &job.to_string()], b"").ok();
    assert!(situ.session.client.exists(&output).await.unwrap());
    let situ = situ.kill_all_and_restart().await;
    situ.wait_for("safe mode ends", |report| report.safe_mode.is_none()).await;
    let client = &situ.session.client;
    until("what it wrote aside is taken away", async || (!client.exists(&output).await.unwrap()).then_some(())).await;
    situ.stop().await;
}

/// Whether a process is gone. Whoever must reap it does so when it likes: until then it is a zombie.
fn is_gone(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z") || state.contains(") X")
}

/// Waits until a script has written a process's number to a file.
async fn pid_in(path: &Path) -> String {
    until("a process says who it is", async || {
        let text = std::fs::read_to_string(path).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_job_started_ends_with_it_and_with_its_executor() {
    let mut situ = TestCluster::start(SITU, 2, 1).await;
    // Neither the shell nor what it starts in a session of its own knows of any cluster.
    let program = stored(&situ, "/bin/sh", &["-c", "exit 3"]).await;
    let scheduler = situ.session.client.scheduler();
    let start = async |name: &str| {
        let directory = situ.directory().join(name);
        std::fs::create_dir(&directory).unwrap();
        let script = format!(
            "cd '{}'; sh -c 'setsid sleep 1000 & echo $! > inner'; echo $$ > outer; while :; do sleep 1000; done",
            directory.display()
        );
        let job = scheduler.submit(program.clone(), vec!["-c".to_owned(), script]).await.unwrap();
        (job, [pid_in(&directory.join("inner")).await, pid_in(&directory.join("outer")).await])
    };
    let (job, pids) = start("killed job").await;
    assert!(!pids.iter().any(|pid| is_gone(pid)));
    let _ = situ.situ(&["job", "kill", &job.to_string()], b"").ok();
    until("its processes are gone", async || pids.iter().all(|pid| is_gone(pid)).then_some(())).await;
    let status = scheduler.status(job).await.unwrap();
    assert!(matches!(status.summary.state, JobState::Killed { .. }), "{status:?}");

    let (_, pids) = start("killed executor").await;
    assert!(!pids.iter().any(|pid| is_gone(pid)));
    for node in &mut situ.cluster.nodes {
        node.executor.take().unwrap().kill().await.unwrap();
    }
    until("its processes are gone", async || pids.iter().all(|pid| is_gone(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_worker_is_stopped_runs_again_and_counts_as_nobodys_failure() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let mark = situ.directory().join("mark").display().to_string();
    let begun = Instant::now();
    let _ = situ.situ(&["job", "submit", env!("CARGO_BIN_EXE_misbehaving"), "stop", &mark], b"").ok();
    assert!(begun.elapsed() < Duration::from_secs(35), "it took {:?}", begun.elapsed());
    let status = situ.session.client.scheduler().status(JobId(1)).await.unwrap();
    let [recovery] = &status.recoveries[..] else { panic!("one task is lost, once: {status:?}") };
    assert_eq!(recovery.lost, Lost::RunningTask);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_its_standard_input_finds_nothing_there() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = situ.situ(&["job", "submit", env!("CARGO_BIN_EXE_misbehaving"), "read"], b"").ok();
    situ.stop().await;
}
