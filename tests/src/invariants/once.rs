//! What a job computes is the same however often it is computed, and what it publishes is published once.

use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobState;
use situ_wire::path::DfsPath;

use crate::SITU;
use crate::following::{follow, stored, until};

/// Submits a program of two outputs and waits until it has published the first.
async fn first_is_published(situ: &TestCluster, case: &[&str], first: &str) -> JobId {
    let program = stored(situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    let arguments = case.iter().map(|argument| (*argument).to_owned()).collect();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    let success = DfsPath::parse(&format!("{first}/_SUCCESS")).unwrap();
    let client = &situ.session.client;
    until("the first output is published", async || client.exists(&success).await.unwrap().then_some(())).await;
    job
}

async fn succeeds(situ: &TestCluster, job: JobId) {
    let status = follow(situ, job, |status| status.summary.state.is_final()).await;
    assert_eq!(status.summary.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_is_published_once_though_the_scheduler_is_killed_and_the_output_moved_away() {
    let mut situ = TestCluster::start(SITU, 2, 1).await;
    for (moves, first, second) in [(false, "/first", "/second"), (true, "/third", "/fourth")] {
        let go = situ.directory().join(second.trim_start_matches('/'));
        let job = first_is_published(&situ, &["two-outputs", first, second, go.to_str().unwrap()], first).await;
        if moves {
            let _ = situ.situ(&["fs", "mv", first, "/moved"], b"").ok();
        }
        situ.cluster.scheduler.kill().await.unwrap();
        situ.cluster.scheduler.restart().await.unwrap();
        std::fs::write(go, "").unwrap();
        succeeds(&situ, job).await;
        let numbers: String = (0..100).map(|number| format!("{number}\n")).collect();
        for output in [if moves { "/moved" } else { first }, second] {
            assert_eq!(situ.read(&format!("{output}/part-*")).await.unwrap(), numbers.as_bytes(), "{output}");
            let success = situ.situ(&["fs", "cat", &format!("{output}/_SUCCESS")], b"").ok().text();
            assert_eq!(success, format!("{job}\n"), "{output}");
        }
        let there = situ.session.client.exists(&DfsPath::parse(first).unwrap()).await.unwrap();
        assert_eq!(there, !moves, "{first} is published once");
    }
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_says_whose_it_is() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    for (name, text) in [("/text", "a b a\n"), ("/empty", "")] {
        situ.put(name, text.as_bytes()).await;
        let output = format!("{name}-out");
        let _ = situ.situ(&["job", "run", "grep", "a", name, &output], b"").ok();
        // The newest comes first.
        let listed = situ.situ(&["--json", "job", "list"], b"").ok().text();
        let newest: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        let job = JobId(newest["job"].as_u64().unwrap());
        let success = situ.situ(&["fs", "cat", &format!("{output}/_SUCCESS")], b"").ok().text();
        assert_eq!(success, format!("{job}\n"), "{name}");
        // Another job that would write there is told so.
        let told = format!("{output}: the output directory exists already, as the output of {job}; delete it");
        situ.situ(&["job", "run", "grep", "a", name, &output], b"").fails(1, &[&told]);
        assert_eq!(situ.situ(&["fs", "cat", &format!("{output}/_SUCCESS")], b"").ok().text(), success);
    }
    situ.stop().await;
}

/// Each number of an output with what stands behind it.
async fn numbered(situ: &TestCluster, output: &str) -> Vec<(u64, String)> {
    let text = String::from_utf8(situ.read(&format!("{output}/part-*")).await.unwrap()).unwrap();
    let cut = |line: &str| line.split_once('\t').map(|(number, rest)| (number.parse().unwrap(), rest.to_owned()));
    text.lines().map(|line| cut(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_computed_again_come_in_the_same_order() {
    let mut situ = TestCluster::start(SITU, 3, 1).await;
    let _ = situ.situ(&["fs", "mkdir", "/words"], b"").ok();
    // Of very different lengths, so that what a worker has met before differs, too.
    for (file, words) in [30_000_u32, 10, 3_000, 60_000, 1, 500, 15_000, 100].into_iter().enumerate() {
        let text: String = (0..words).map(|word| format!("word-{}\n", word * 7919 % 50_021)).collect();
        situ.put(&format!("/words/{file}"), text.as_bytes()).await;
    }
    let go = situ.directory().join("go");
    let case = ["numbered", "/words", "/names", "/lens", go.to_str().unwrap()];
    let job = first_is_published(&situ, &case, "/names").await;
    // What it has shuffled is gone with it.
    situ.cluster.nodes[1].executor.take().unwrap().kill().await.unwrap();
    std::fs::write(go, "").unwrap();
    succeeds(&situ, job).await;
    let (names, lens) = (numbered(&situ, "/names").await, numbered(&situ, "/lens").await);
    assert_eq!(names.len(), lens.len());
    let of = |word: &str| format!("{}\t{}", word.len(), word.bytes().map(u64::from).sum::<u64>());
    let differ = names.iter().zip(&lens).filter(|(name, len)| name.0 != len.0 || of(&name.1) != len.1).count();
    assert_eq!(differ, 0, "of {} words so many have another's number", names.len());
}
