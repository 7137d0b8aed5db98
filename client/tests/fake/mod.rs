//! A small cluster that the client is tested against: one namenode and some datanodes, which keep all in memory and fail
//! where a test wants them to.

mod datanode;
mod namenode;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use datanode::{Datanode, Kill};
pub(crate) use namenode::Namenode;
use situ_client::{Client, ClientConfig};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_wire::hello::Role;
use situ_wire::ids::NodeName;
use situ_wire::path::DfsPath;

/// A cluster of one namenode, three datanodes and a client on a host of its own.
pub(crate) struct Cluster {
    pub(crate) namenode: Namenode,
    pub(crate) datanodes: Vec<Datanode<SimRuntime>>,
    pub(crate) client: Client<SimRuntime>,
}

impl Cluster {
    pub(crate) async fn start(world: &SimWorld) -> Self {
        Self::start_with(world, |config| config).await
    }

    /// As `start`, with a configuration of the client that `change` makes.
    pub(crate) async fn start_with(world: &SimWorld, change: impl FnOnce(ClientConfig) -> ClientConfig) -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let namenode = Namenode::start(world.host("nn", &[Role::Namenode]), world.cluster(), any(7400)).await;
        let mut datanodes = Vec::new();
        for number in 1..=3 {
            let name = format!("dn{number}");
            let runtime = world.host(&name, &[Role::Datanode]);
            let there = world.clone();
            let kill = move || there.kill(&name);
            let datanode = Datanode::start(runtime, world.cluster(), any(7500), number, kill).await;
            namenode.state().datanodes.push(datanode.location.clone());
            datanodes.push(datanode);
        }
        let mut config = ClientConfig::new(world.cluster(), namenode.address);
        config.node = Some(NodeName("dn1".into()));
        config.block_len_bytes = 256 << 10;
        let config = change(config);
        let runtime = world.host("ann", &[Role::User]);
        let client = Client::new(runtime, config.clone(), config.user("ann"));
        Self { namenode, datanodes, client }
    }
}

pub(crate) fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

/// Bytes that differ from place to place.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}

fn lock<T>(mutex: &Arc<Mutex<T>>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
