use std::collections::BTreeMap;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::sim::SimWorld;
use situ_wire::messages::datanode::{PacketHeader, WriteAck, WriteStage};
use situ_wire::tree::TreeBuilder;

use super::harness::{Cluster, WriteStream, block, content, whole};

/// Writes blocks until the power is cut at a moment that the seed draws; whatever was acknowledged is there afterwards,
/// and whatever is there verifies.
#[test]
fn what_was_acknowledged_survives_a_power_cut_of_all_datanodes() {
    let (mut acknowledged, mut unfinished) = (0, 0);
    for seed in 0..60 {
        let (finals, all) = SimWorld::run(seed, async |world| {
            let mut cluster = Cluster::start(world, 3).await;
            let cut_ms = cluster.nodes[0].runtime.random_u64() % 200;
            let mut finals = BTreeMap::new();
            let mut begun = 0;
            let writes = async {
                for id in 1.. {
                    begun = id;
                    let bytes = content(id, usize::try_from(id * 77_777 % 400_000).unwrap());
                    let first = usize::try_from(id % 3).unwrap();
                    let members = [first, (first + 1) % 3, (first + 2) % 3];
                    let Ok(mut stream) =
                        cluster.write(cluster.open(block(id, 1), WriteStage::Create, &members), first).await
                    else {
                        return;
                    };
                    stream.send(&bytes).await;
                    match try_finish(stream, &bytes).await {
                        Some(WriteAck::Finished { replicas }) if replicas.len() == 3 => finals.insert(id, bytes),
                        _ => return,
                    };
                }
            };
            cluster.world.clock().timeout(Duration::from_millis(cut_ms), writes).await;
            for at in 0..3 {
                cluster.world.crash(&format!("dn{at}"));
            }
            cluster.start_namenode().await;
            for at in 0..3 {
                cluster.restart(at, true).await;
            }
            cluster.wait(|told| told.reports >= 3).await;
            for (id, bytes) in &finals {
                for at in 0..3 {
                    let read = cluster.read(at, block(*id, 1), 0, u64::MAX).await;
                    assert_eq!(read, whole(bytes), "seed {seed}: block {id} was acknowledged");
                }
            }
            // Nothing half done is served: what is reported reads whole, and verifies in the reading.
            let reported: Vec<_> = cluster.told.borrow().replicas.keys().copied().collect();
            for (holder, id) in reported {
                let at = (0..3).find(|at| cluster.id(*at) == holder).unwrap();
                let (_, bytes) = cluster.read(at, block(id.0, 1), 0, u64::MAX).await.unwrap();
                assert!(bytes.0 == content(id.0, bytes.0.len()), "seed {seed}");
            }
            (finals.len(), begun)
        });
        acknowledged += finals;
        unfinished += usize::try_from(all).unwrap() - finals;
    }
    assert!(acknowledged > 60 && unfinished > 30, "{acknowledged} and {unfinished} show little");
}

/// As [`WriteStream::finish`]; none if the stream is gone.
async fn try_finish(mut stream: WriteStream, all: &bytes::Bytes) -> Option<WriteAck> {
    let mut tree = TreeBuilder::new();
    tree.update(all);
    let tree = tree.finish();
    let finish = PacketHeader::Finish { len_bytes: tree.len_bytes, root: tree.root, leaves: tree.leaves };
    stream.send.message(&finish).await.ok()?;
    loop {
        match stream.receive.expect("the end").await.ok()? {
            WriteAck::Received { .. } => {}
            end => return Some(end),
        }
    }
}
