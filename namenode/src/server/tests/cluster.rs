//! A namenode on a simulated host and a client on another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Caller, Connector, Identity, RpcError};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_runtime::transport::Transport;
use situ_wire::error::{RemoteError, Retry};
use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, OperationId};
use situ_wire::messages::namenode::{ClusterReport, FileStatus, Request, Response};
use situ_wire::path::DfsPath;

use crate::config::NamenodeConfig;
use crate::error::StartError;
use crate::server::directory::images_path;
use crate::server::images::{image_numbers, image_path};
use crate::server::{Namenode, NamenodeHandle, format, formatted_cluster};

pub(super) const DIRECTORY: &str = "/data/nn";
/// The client's host has the superuser's name.
pub(super) const SUPERUSER: &str = "situ";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration of most tests: an image now and then.
pub(super) fn config() -> NamenodeConfig {
    NamenodeConfig {
        checkpoint_edits: 40,
        segment_len_bytes: 4096,
        safe_mode_extension_ms: 1,
        ..NamenodeConfig::new(PathBuf::from(DIRECTORY))
    }
}

/// A configuration that makes images at a clean end only.
pub(super) fn without_images() -> NamenodeConfig {
    NamenodeConfig { checkpoint_edits: u64::MAX, checkpoint_interval_ms: u64::MAX, ..config() }
}

/// Starts the namenode's host and the namenode on it; the directory is formatted if it is not.
pub(super) async fn start(
    world: &SimWorld,
    config: &NamenodeConfig,
) -> Result<(SimRuntime, NamenodeHandle), StartError> {
    let runtime = world.host("nn", &[Role::Namenode]);
    if formatted_cluster(runtime.disk(), Path::new(DIRECTORY))?.is_none() {
        format(runtime.disk(), Path::new(DIRECTORY), world.cluster()).expect("the directory is new");
    }
    let handle = start_on(&runtime, world, config).await?;
    Ok((runtime, handle))
}

/// Starts a namenode on a host that runs.
pub(super) async fn start_on<R: Runtime>(
    runtime: &R,
    world: &SimWorld,
    config: &NamenodeConfig,
) -> Result<NamenodeHandle, StartError> {
    let ip = world.ip("nn").expect("its host runs");
    let listener = runtime.transport().listen(SocketAddr::new(ip, 0)).await.unwrap();
    Namenode::start(runtime.clone(), config.clone(), world.cluster(), listener).await
}

/// A client process. Its operations are numbered.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) connector: Connector<SimRuntime>,
    id: ClientId,
    next: u64,
}

impl Client {
    pub(super) fn new(world: &SimWorld) -> Self {
        let runtime = world.host(SUPERUSER, &[Role::User]);
        let identity = Identity { cluster: world.cluster(), role: Role::User, name: SUPERUSER.to_owned() };
        Self::with(Connector::new(runtime, identity), 1)
    }

    /// Another client in the same process.
    pub(super) fn with(connector: Connector<SimRuntime>, id: u128) -> Self {
        Self { connector, id: ClientId(id), next: 0 }
    }

    /// A number for the next operation.
    pub(super) fn operation(&mut self) -> OperationId {
        self.next += 1;
        OperationId { client: self.id, sequence: self.next }
    }

    /// Makes one call, once.
    pub(super) async fn once(&self, address: SocketAddr, request: &Request) -> Result<Response, RpcError> {
        let caller: Caller<_, Request, Response> = self.connector.caller(address, Role::Namenode).await?;
        caller.call(request, TIMEOUT).await
    }

    /// Makes a call until it is answered with more than that it may be tried again. `address` says where the namenode is
    /// by now.
    pub(super) async fn call(
        &self,
        mut address: impl FnMut() -> SocketAddr,
        request: &Request,
    ) -> Result<Response, RemoteError> {
        loop {
            let address = address();
            match self.once(address, request).await {
                Ok(response) => return Ok(response),
                Err(RpcError::Remote(error)) if error.retry() == Retry::Never => return Err(error),
                Err(error) => assert_eq!(error.retry(), Retry::Later, "{error}"),
            }
            self.connector.disconnect(address, Role::Namenode).await;
            self.connector.runtime().clock().sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes a directory.
    pub(super) async fn mkdir(&mut self, address: SocketAddr, path: &str) -> Result<Response, RemoteError> {
        let request = Request::Mkdir { path: parse(path), parents: false, mode: 0o755, operation: self.operation() };
        self.call(|| address, &request).await
    }

    /// What is at `path`.
    pub(super) async fn stat(&self, address: SocketAddr, path: &str) -> Option<FileStatus> {
        match self.call(|| address, &Request::Stat { path: parse(path) }).await {
            Ok(Response::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// The state of the cluster.
    pub(super) async fn report(&self, address: SocketAddr) -> ClusterReport {
        match self.call(|| address, &Request::Report).await {
            Ok(Response::Report(report)) => *report,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn parse(path: &str) -> DfsPath {
    DfsPath::parse(path).expect("the tests' paths are good")
}

/// Where images are, good or not.
pub(super) fn image_directories<R: Runtime>(runtime: &R) -> Vec<PathBuf> {
    let directory = images_path(Path::new(DIRECTORY));
    let numbers = image_numbers(runtime.disk(), &directory).unwrap();
    numbers.into_iter().map(|number| image_path(&directory, number)).collect()
}
