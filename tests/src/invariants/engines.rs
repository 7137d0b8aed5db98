//! Work that travels with its plan is computed as one thread would, also when a node dies in the middle.

use std::collections::BTreeMap;
use std::time::Duration;

use situ::quickstart::text::TextMaker;
use situ_tests::harness::TestCluster;
use situ_wire::messages::scheduler::JobState;

use crate::SITU;

const FILES: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_counts_words_as_one_thread_does_while_a_node_dies() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    let executable = env!("CARGO_BIN_EXE_engine_words");
    situ.situ(&["job", "submit", executable], b"").fails(1, &["usage: engine_words"]);
    let scheduler = situ.session.client.scheduler();
    let program = scheduler.list().await.unwrap()[0].program.clone();
    let _ = situ.situ(&["fs", "mkdir", "/books"], b"").ok();
    let (mut maker, mut counts, mut all) = (TextMaker::new(7), BTreeMap::<String, u64>::new(), 0_u64);
    for number in 0..FILES {
        let mut text = Vec::new();
        maker.write(if number == 0 { 0 } else { 400_000 }, &mut text, |_| ()).unwrap();
        for word in String::from_utf8(text.clone()).unwrap().split_ascii_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
            all += 1;
        }
        situ.put(&format!("/books/{number:02}"), &text).await;
    }
    let job = scheduler.submit(program, vec!["/books".to_owned(), "/counts".to_owned()]).await.unwrap();
    let (mut revision, mut killed) = (0, false);
    let status = loop {
        let status = scheduler.changed_status(job, revision, Duration::from_secs(10)).await.unwrap();
        revision = status.revision;
        let is_begun = status.stages.iter().any(|stage| stage.name.starts_with("split") && stage.done > 0);
        if is_begun && !killed && !status.summary.state.is_final() {
            killed = true;
            let node = &mut situ.cluster.nodes[1];
            node.executor.take().unwrap().kill().await.unwrap();
            node.datanode.take().unwrap().kill().await.unwrap();
        }
        if status.summary.state.is_final() {
            break status;
        }
    };
    assert_eq!(status.summary.state, JobState::Succeeded);
    assert!(killed, "the job was under way when the node died");
    let mut expected: Vec<String> = counts.iter().map(|(word, count)| format!("{word}\t{count}\n")).collect();
    expected.push(format!("all\t{all}\n"));
    expected.sort();
    assert_eq!(String::from_utf8(situ.read("/counts/part-*").await.unwrap()).unwrap(), expected.concat());
}
