//! Power cuts at random moments: what was acknowledged is there afterwards, once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::journal::{Journal, JournalError};
use situ_runtime::sim::SimWorld;
use situ_wire::block::BlockTokenKey;
use situ_wire::codec;
use situ_wire::ids::TxId;
use situ_wire::messages::namenode::{Request, Response};

use super::cluster::{Client, DIRECTORY, config, parse, start, without_images};
use crate::config::NamenodeConfig;
use crate::core::Namesystem;
use crate::server::directory::journal_path;
use crate::server::recovery::journal_options;

const WORKERS: u128 = 4;
const OPERATIONS: u32 = 40;

/// What one worker was promised: its names, and whether each is a directory.
type Model = BTreeMap<String, bool>;

/// Does random operations below a directory of its own, each until it is answered, and keeps account.
async fn work(mut client: Client, home: String, address: Rc<Cell<SocketAddr>>, mut random: u64) -> (String, Model) {
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mkdir = Request::Mkdir { path: parse(&home), parents: true, mode: 0o755, operation: client.operation() };
    client.call(|| address.get(), &mkdir).await.unwrap();
    let mut model = Model::new();
    for _ in 0..OPERATIONS {
        let names: Vec<_> = model.keys().cloned().collect();
        let fresh = format!("n{}", draw(12));
        let path = |name: &str| parse(&format!("{home}/{name}"));
        let operation = client.operation();
        let taken = names.contains(&fresh);
        let old = (!names.is_empty())
            .then(|| names[usize::try_from(draw(names.len() as u64)).expect("there are few names")].clone());
        let (request, succeeds) = match (draw(5), old) {
            (0, _) | (_, None) => {
                if !taken {
                    model.insert(fresh.clone(), true);
                }
                (Request::Mkdir { path: path(&fresh), parents: false, mode: 0o755, operation }, !taken)
            }
            (1 | 2, _) => {
                if !taken {
                    model.insert(fresh.clone(), false);
                }
                let request = Request::Create {
                    path: path(&fresh),
                    overwrite: false,
                    parents: false,
                    replication: 1,
                    block_len_bytes: 1 << 20,
                    mode: 0o644,
                    operation,
                };
                (request, !taken)
            }
            (3, Some(old)) => {
                let succeeds = !taken;
                if succeeds && let Some(directory) = model.remove(&old) {
                    model.insert(fresh.clone(), directory);
                }
                (Request::Rename { from: path(&old), to: path(&fresh), overwrite: false, operation }, succeeds)
            }
            (_, Some(old)) => {
                model.remove(&old);
                (Request::Delete { path: path(&old), recursive: true, operation }, true)
            }
        };
        let answer = client.call(|| address.get(), &request).await;
        assert_eq!(answer.is_ok(), succeeds, "{request:?}: {answer:?}");
    }
    (home, model)
}

/// What a worker's directory holds.
async fn listing(client: &Client, address: SocketAddr, home: &str) -> Model {
    let request = Request::List { path: parse(home), after: None, limit: 1000 };
    match client.call(|| address, &request).await {
        Ok(Response::Listing { entries, more: false }) => {
            entries.iter().map(|entry| (entry.path.name().to_owned(), entry.is_directory())).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Lets workers work while the power is cut again and again, then compares everything with what was promised.
fn survives_power_cuts(seed: u64, config: &NamenodeConfig, replays: bool) {
    SimWorld::run(seed, async |world| {
        let (mut runtime, mut namenode) = start(&world, config).await.unwrap();
        let client = Client::new(&world);
        let address = Rc::new(Cell::new(namenode.address()));
        let workers = (0..WORKERS).map(|worker| {
            let client = Client::with(client.connector.clone(), worker + 1);
            let seed = seed * 31 + u64::try_from(worker).expect("there are few workers");
            work(client, format!("/home/w{worker}"), Rc::clone(&address), seed)
        });
        let mut working = std::pin::pin!(futures_util::future::join_all(workers));
        let mut cuts = 0;
        let promised = loop {
            let rest = Duration::from_millis(5 + (seed * 7 + cuts * 13) % 60);
            tokio::select! {
                promised = &mut working => break promised,
                () = world.clock().sleep(rest) => {}
            }
            if cuts < 12 {
                cuts += 1;
                world.crash("nn");
                drop(namenode);
                (runtime, namenode) =
                    start(&world, config).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                address.set(namenode.address());
            }
        };
        // Everything was acknowledged: one more cut must not take any of it.
        let before = client.report(namenode.address()).await;
        world.crash("nn");
        drop((namenode, runtime));
        let (runtime, namenode) = start(&world, config).await.unwrap();
        let after = client.report(namenode.address()).await;
        assert_eq!((before.tx, before.digest), (after.tx, after.digest), "seed {seed}");
        for (home, model) in promised {
            assert_eq!(listing(&client, namenode.address(), &home).await, model, "seed {seed}: {home}");
        }
        namenode.shutdown().await.unwrap();
        if replays {
            assert_eq!(replayed(&runtime, &world, after.tx).digest().0, after.digest, "seed {seed}");
        }
    });
}

/// The namespace by replay of the whole log alone.
fn replayed<R: Runtime>(runtime: &R, world: &SimWorld, last: TxId) -> Namesystem {
    let config = config().core(world.cluster(), BlockTokenKey([0; 32]), 0);
    let mut namesystem = Namesystem::new(config);
    let path = journal_path(Path::new(DIRECTORY));
    let (journal, opened) =
        Journal::open(runtime.disk().clone(), &path, journal_options(world.cluster(), 1 << 20)).unwrap();
    assert_eq!((opened.first, opened.last), (1, last.0));
    journal
        .replay(1, |sequence, record| {
            let edit = codec::decode(record).unwrap();
            namesystem.apply(TxId(sequence), &edit).unwrap();
            Ok::<_, JournalError>(())
        })
        .unwrap();
    namesystem.check();
    namesystem
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    for seed in 0..40 {
        survives_power_cuts(seed, &config(), false);
    }
}

#[test]
fn the_log_alone_gives_the_same_namespace() {
    for seed in 100..120 {
        survives_power_cuts(seed, &without_images(), true);
    }
}
