//! What an action gives is what the data says, however much that is and whoever is killed.

use situ::quickstart::text::TextMaker;
use situ_tests::harness::TestCluster;
use situ_wire::messages::scheduler::{JobState, StageStatus};
use situ_wire::path::DfsPath;

use crate::SITU;
use crate::following::{follow, stored, until};

/// Each is a partition.
const FILES: u32 = 4;
const FILE_LEN_BYTES: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_text_is_what_was_put_in_though_executors_and_the_scheduler_are_killed() {
    let mut situ = TestCluster::start(SITU, 3, 1).await;
    let _ = situ.situ(&["fs", "mkdir", "/text"], b"").ok();
    let (mut maker, mut hasher) = (TextMaker::new(5), blake3::Hasher::new());
    for file in 0..FILES {
        let mut text = Vec::new();
        maker.write(FILE_LEN_BYTES, &mut text, |_| ()).unwrap();
        hasher.update(&text);
        let _ = situ.situ(&["fs", "put", "-", &format!("/text/{file}"), "--block-size", "32M"], &text).ok();
    }
    let hash = hasher.finalize().to_hex().to_string();
    let program = stored(&situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    let (half, rest) = (situ.directory().join("half"), situ.directory().join("rest"));
    let arguments = ["collected", "/text", &hash, half.to_str().unwrap(), rest.to_str().unwrap()];
    let arguments = arguments.map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    // Half of the text is there, in files; who has made some of it dies.
    let done = |tasks| move |stage: &StageStatus| stage.done >= tasks;
    let status = follow(&situ, job, |status| status.stages.iter().any(done(2))).await;
    assert_eq!(status.stages[0].tasks, FILES, "{status:?}");
    situ.cluster.nodes[0].executor.as_mut().unwrap().kill().await.unwrap();
    std::fs::write(&half, "").unwrap();
    follow(&situ, job, |status| status.stages.iter().any(done(FILES))).await;
    let jobs = DfsPath::parse("/.situ/jobs").unwrap();
    let own = situ.session.client.list_all(&jobs).await.unwrap();
    assert!(own.len() == 1 && own[0].mode == 0o700, "the job's own directory is closed to others: {own:?}");
    // All of it is. Those who come later get it from the files: a driver, if it was there, a worker, and the scheduler.
    situ.cluster.nodes[0].executor.as_mut().unwrap().restart().await.unwrap();
    situ.cluster.nodes[1].executor.take().unwrap().kill().await.unwrap();
    situ.cluster.scheduler.kill().await.unwrap();
    situ.cluster.scheduler.restart().await.unwrap();
    std::fs::write(&rest, "").unwrap();
    let status = follow(&situ, job, |status| status.summary.state.is_final()).await;
    assert_eq!(status.summary.state, JobState::Succeeded);
    // The files go with the job.
    let client = &situ.session.client;
    until("nothing is left of the job", async || client.list_all(&jobs).await.unwrap().is_empty().then_some(())).await;
    situ.stop().await;
}
