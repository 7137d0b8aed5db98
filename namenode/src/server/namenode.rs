//! Starting a namenode, and the handle of one that runs.

use std::net::SocketAddr;
use std::sync::Arc;

use situ_runtime::clock::Clock;
use situ_runtime::disk::Disk;
use situ_runtime::rpc::{ServerIdentity, serve};
use situ_runtime::transport::{Listener, Transport};
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::block::BlockTokenKey;
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;
use tokio::sync::{mpsc, watch};

use super::directory;
use super::images::Images;
use super::log::Log;
use super::owner::{Control, Owner};
use super::recovery::{Recovered, recover};
use super::room::{Reserve, RoomWatch};
use super::service::Door;
use crate::config::NamenodeConfig;
use crate::error::{NamenodeError, StartError};
use crate::metrics::Metrics;

/// How a namenode ended, once it has.
type Stopped = Option<Result<(), NamenodeError>>;

/// The namenode.
#[derive(Debug)]
pub struct Namenode;

impl Namenode {
    /// Starts the namenode of `cluster` on the directory that `config` names, and answers calls that `listener` takes.
    /// When this returns, the namespace is back as it was.
    ///
    /// # Errors
    /// When the configuration contradicts itself; when the directory is not formatted, of another cluster, or in use;
    /// when its edit log is damaged or its images are; when its disk fails.
    pub async fn start<R: Runtime>(
        runtime: R,
        config: NamenodeConfig,
        cluster: ClusterId,
        listener: <R::Transport as Transport>::Listener,
    ) -> Result<NamenodeHandle, StartError> {
        config.check()?;
        let mut token_key = [0; 32];
        runtime.random(&mut token_key);
        let core = config.core(cluster, BlockTokenKey(token_key), runtime.random_u64());
        let (runtime_, config_) = (runtime.clone(), config.clone());
        let (lock, recovered) = runtime
            .blocking(move || -> Result<_, StartError> {
                directory::check(runtime_.disk(), &config_.directory, cluster)?;
                let lock = runtime_.disk().lock(&config_.directory)?;
                Ok((Arc::new(lock), recover(&runtime_, &config_, &core)?))
            })
            .await?;
        Ok(run(&runtime, &config, cluster, listener, lock, recovered))
    }
}

/// Starts the tasks.
fn run<R: Runtime>(
    runtime: &R,
    config: &NamenodeConfig,
    cluster: ClusterId,
    listener: <R::Transport as Transport>::Listener,
    lock: Arc<<R::Disk as Disk>::Lock>,
    recovered: Recovered<R::Disk>,
) -> NamenodeHandle {
    let Recovered { namesystem, journal, room, images } = recovered;
    let address = listener.address();
    let metrics = Arc::new(Metrics::default());
    let (calls_in, calls) = mpsc::channel(config.queue_calls);
    let (control_in, control) = mpsc::channel(4);
    let every = (config.checkpoint_edits, config.checkpoint_interval_ms);
    let (reserve, now) = (Reserve(config.log_reserve_bytes), runtime.clock().now());
    let owner = Owner {
        runtime: runtime.clone(),
        log: Log::start(runtime, journal, namesystem.last_tx(), lock),
        room: RoomWatch::new(reserve, room, now),
        images: Images::new(images, cluster, every, reserve, now, Arc::clone(&metrics)),
        namesystem,
        calls,
        control,
        metrics: Arc::clone(&metrics),
        unsynced_limit: (config.unsynced_edits, config.unsynced_bytes),
    };
    let (stopped_in, stopped) = watch::channel(None);
    let owner = runtime.spawn("namenode", async move {
        let outcome = owner.run().await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "the namenode ends");
        }
        stopped_in.send_replace(Some(outcome));
    });
    let door = Door::new(calls_in, Arc::clone(&metrics));
    let identity = ServerIdentity { cluster, role: Role::Namenode };
    let (runtime_, failures) = (runtime.clone(), control_in.clone());
    let listening = runtime.spawn("namenode-listener", async move {
        let error = serve(runtime_, listener, identity, door).await;
        // The owner may have ended by itself.
        let _ = failures.send(Control::ListenerFailed(error)).await;
    });
    NamenodeHandle {
        address,
        control: control_in,
        stopped,
        metrics,
        _owner: owner.abort_on_drop(),
        _listening: listening.abort_on_drop(),
    }
}

/// A namenode that runs. Dropping it ends the namenode at once, as a crash would: nothing acknowledged is lost, but the
/// next start has more to replay than after [`NamenodeHandle::shutdown`].
#[derive(Debug)]
pub struct NamenodeHandle {
    address: SocketAddr,
    control: mpsc::Sender<Control>,
    stopped: watch::Receiver<Stopped>,
    metrics: Arc<Metrics>,
    _owner: AbortOnDrop<()>,
    _listening: AbortOnDrop<()>,
}

impl NamenodeHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted since it started.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends it cleanly: no new calls, what was taken is answered, everything is on the disk, an image is brought forward,
    /// the directory is free.
    ///
    /// # Errors
    /// When it had to end before, or on the way.
    pub async fn shutdown(&self) -> Result<(), NamenodeError> {
        // It may have ended already.
        let _ = self.control.send(Control::Shutdown).await;
        self.stopped().await
    }

    /// Waits until it has ended, by [`NamenodeHandle::shutdown`] or because it must.
    ///
    /// # Errors
    /// Why it had to end. It must not be started again in the same process without someone looking at its disk.
    pub async fn stopped(&self) -> Result<(), NamenodeError> {
        let mut stopped = self.stopped.clone();
        let lost = NamenodeError::TaskEnded { task: "owner task" };
        match stopped.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(lost)),
            Err(_) => Err(lost),
        }
    }
}
