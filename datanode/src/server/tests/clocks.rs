use std::time::Duration;

use situ_runtime::clock::Clock;
use situ_runtime::sim::SimWorld;
use situ_wire::block::TokenMode;
use situ_wire::error::ErrorCode;
use situ_wire::ids::ClientId;
use situ_wire::messages::datanode::{ReadBlock, WriteAck, WriteStage};
use situ_wire::time::TimeMs;

use super::harness::{Cluster, KEY, block, content, whole};
use crate::core::tokens::TOKEN_SLACK;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// Asserts that a datanode takes what is good by the namenode's clock, which is the world's, and nothing else.
async fn judges_rightly(cluster: &Cluster, id: u64, what: &str) {
    let bytes = content(1, 1000);
    let now = cluster.world.clock().now();
    let good = now + Duration::from_secs(1);
    let over = TimeMs(now.0 - u64::try_from(TOKEN_SLACK.as_millis()).unwrap() - 1);
    let read = async |expires| {
        let token = KEY.issue(block(1, 1), TokenMode::Read, ClientId(1), expires);
        cluster.read_with(0, ReadBlock { block: block(1, 1), offset: 0, len_bytes: 1000, leaves: true, token }).await
    };
    assert_eq!(read(good).await, whole(&bytes), "{what}");
    assert_eq!(read(over).await.unwrap_err().code, ErrorCode::BadToken, "{what}");
    let mut open = cluster.open(block(id, 1), WriteStage::Create, &[0, 1]);
    open.token = KEY.issue(block(id, 1), TokenMode::Write, ClientId(1), good);
    let Ok(mut stream) = cluster.write(open, 0).await else { panic!("{what}: refused") };
    stream.send(&bytes).await;
    assert!(matches!(stream.finish(&bytes).await, WriteAck::Finished { .. }), "{what}");
}

#[test]
fn tokens_are_judged_by_the_namenodes_time_whatever_the_clock_of_the_datanode_says() {
    for (seed, ahead_ms) in [HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS].into_iter().enumerate() {
        SimWorld::run(seed as u64, async |world| {
            let mut cluster = Cluster::start(world.clone(), 2).await;
            let bytes = content(1, 1000);
            cluster.put(block(1, 1), &bytes, &[0, 1]).await;
            world.set_wall_clock("dn0", ahead_ms);
            judges_rightly(&cluster, 2, "after the step").await;
            let reports = cluster.told.borrow().reports;
            cluster.restart(0, false).await;
            cluster.wait(|told| told.reports > reports).await;
            judges_rightly(&cluster, 3, "after the start").await;
            let clock = cluster.told.borrow().registered[&cluster.id(0)].clock;
            let wall = world.clock().wall();
            assert!(clock.ahead_of_ms(wall).abs_diff(ahead_ms) < 1_000, "{clock:?} at {wall:?}");
            world.clock().sleep(Duration::from_secs(30)).await;
            judges_rightly(&cluster, 4, "after a while").await;
        });
    }
}
