use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_runtime::rpc::{Connector, Identity, ServerIdentity, serve};
use situ_runtime::store::StoreError;
use situ_runtime::transport::{Listener, Transport};
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClusterId, DatanodeId, NodeName, RackName, StorageId};
use situ_wire::limits::REPORT_SLICE_BLOCKS;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::files::{do_chores, take_notes};
use super::namenode::Namenode;
use super::node::{Limits, Node};
use super::owner::{Companions, OpenVolume, Owner};
use crate::config::DatanodeConfig;
use crate::core::{Core, CoreConfig, Me, VolumeAtStart};
use crate::error::{DatanodeError, StartError};
use crate::storage::{
    FailedVolume, Health, IndexedReplica, OpenVolumes, ReplicaIndex, ScannedReplica, Volume, open_volumes,
};

/// A datanode.
#[derive(Debug)]
pub struct Datanode;

/// A running datanode. Dropping it lets the datanode run on.
#[derive(Clone, Debug)]
pub struct DatanodeHandle {
    id: DatanodeId,
    address: SocketAddr,
    shutdown: Arc<Notify>,
    stopped: watch::Receiver<Option<Result<(), DatanodeError>>>,
}

impl Datanode {
    /// Opens the volumes, finds their replicas, and serves at `listener` as a datanode of `cluster`; registers with the
    /// namenode as soon as that can be reached, and again whenever it has forgotten this datanode.
    ///
    /// # Errors
    /// When the configuration does not make sense or no volume can be used; see [`StartError`]. Volumes are made by
    /// [`format`](crate::format) alone.
    pub async fn start<R: Runtime>(
        runtime: R,
        config: DatanodeConfig,
        cluster: ClusterId,
        listener: <R::Transport as Transport>::Listener,
    ) -> Result<DatanodeHandle, StartError> {
        config.check().map_err(StartError::Config)?;
        let opening = (runtime.clone(), config.volumes.clone());
        let Opened { id, volumes, found, failed } =
            runtime.blocking(move || open(&opening.0, &opening.1, cluster)).await?;
        let config = Arc::new(config);
        let address = config.advertise.unwrap_or_else(|| listener.address());
        let identity = Identity { cluster, role: Role::Datanode, name: config.node.clone() };
        let connector = Connector::new(runtime.clone(), identity);
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let (judge, known_judge) = watch::channel(None);
        let limits = Limits { writes: Semaphore::new(config.writes), reads: Semaphore::new(config.reads) };
        let node = Node {
            runtime: runtime.clone(),
            connector: connector.clone(),
            id,
            config: Arc::clone(&config),
            limits: Arc::new(limits),
            mailbox: mailbox.clone(),
            judge: known_judge,
        };
        let me = Me { id, cluster, node: NodeName(config.node.clone()), rack: RackName(config.rack.clone()), address };
        let core = Core::new(me, core_config(&config), found, runtime.clock().now()).without(failed);
        let companions = spawn_companions(&node, cluster, listener);
        let namenode = Namenode::new(connector, config.namenode);
        let owner = Owner::new(core, node, namenode, volumes, judge, companions);
        let shutdown = Arc::new(Notify::new());
        let (ended, stopped) = watch::channel(None);
        let told = Arc::clone(&shutdown);
        runtime.spawn("datanode", async move {
            let outcome = owner.run(inbox, told).await;
            if let Err(error) = &outcome {
                tracing::error!(%error, "the datanode stops");
            }
            ended.send_replace(Some(outcome));
        });
        Ok(DatanodeHandle { id, address, shutdown, stopped })
    }
}

impl DatanodeHandle {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> DatanodeId {
        self.id
    }

    /// Where others reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to stop: its streams end, its volumes become free.
    pub fn shutdown(&self) {
        self.shutdown.notify_one();
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to.
    pub async fn stopped(&self) -> Result<(), DatanodeError> {
        let mut stopped = self.stopped.clone();
        // A task that is gone without a word was ended from outside.
        stopped.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()).unwrap_or(Ok(()))
    }
}

fn core_config(config: &DatanodeConfig) -> CoreConfig {
    CoreConfig {
        capacity_limit_bytes: config.capacity_bytes,
        reserved_bytes: config.reserved_bytes,
        keep_abandoned: Duration::from_secs(config.abandoned_s),
        scrub_period: Duration::from_secs(config.scrub_period_s),
        scrub_rate_bytes: config.scrub_rate_bytes,
        replications: config.replications,
        report_slice_blocks: REPORT_SLICE_BLOCKS,
    }
}

fn spawn_companions<R: Runtime>(
    node: &Node<R>,
    cluster: ClusterId,
    listener: <R::Transport as Transport>::Listener,
) -> Companions<R> {
    let runtime = &node.runtime;
    let (chores, waiting_chores) = mpsc::unbounded_channel();
    runtime.spawn("chores", do_chores(runtime.clone(), waiting_chores, node.mailbox.clone()));
    let (notes, waiting_notes) = mpsc::unbounded_channel();
    let note_taker = runtime.spawn("notes", take_notes(runtime.clone(), waiting_notes));
    let (deafened, deaf) = oneshot::channel();
    let identity = ServerIdentity { cluster, role: Role::Datanode };
    let serving = serve(runtime.clone(), listener, identity, node.clone());
    let serve = runtime.spawn("serve", async move {
        let error = serving.await;
        // The owner may be gone already.
        let _ = deafened.send(error);
    });
    Companions { serve, deaf, chores, notes, note_taker }
}

/// What a datanode begins with.
struct Opened<D: Disk> {
    id: DatanodeId,
    volumes: BTreeMap<StorageId, OpenVolume<D>>,
    found: Vec<VolumeAtStart>,
    /// The volumes that cannot be used, and why.
    failed: Vec<(StorageId, String)>,
}

/// Opens the volumes and finds their replicas. Blocks.
fn open<R: Runtime>(
    runtime: &R,
    roots: &[std::path::PathBuf],
    cluster: ClusterId,
) -> Result<Opened<R::Disk>, StartError> {
    let OpenVolumes { datanode: id, volumes, mut failed } = open_volumes(runtime.disk(), roots, cluster)?;
    let (mut opened, mut found) = (BTreeMap::new(), Vec::new());
    for volume in volumes {
        let (index, known, scrubbed) = open_index(runtime, &volume);
        let storage = volume.storage();
        match look(&volume, &known) {
            Ok((space, replicas)) => {
                if let Some(index) = &index {
                    mend(index, &known, &replicas);
                }
                found.push(VolumeAtStart { storage, space, replicas, scrubbed });
                opened.insert(storage, OpenVolume { volume: Arc::new(volume), index: index.map(Arc::new) });
            }
            // Left out, it would stay out until the next start: too much for what may pass.
            Err(error @ DiskError { kind: DiskErrorKind::Exhausted(_), .. }) => {
                return Err(StartError::Disk { path: volume.root().to_owned(), error });
            }
            Err(error) => {
                let error = StartError::Disk { path: volume.root().to_owned(), error };
                failed.push(FailedVolume { storage, error });
            }
        }
    }
    if opened.is_empty()
        && let Some(first) = failed.pop()
    {
        return Err(first.error);
    }
    for volume in &failed {
        tracing::error!(error = %volume.error, "going on without a volume");
    }
    let failed = failed.into_iter().map(|volume| (volume.storage, volume.error.to_string())).collect();
    Ok(Opened { id, volumes: opened, found, failed })
}

fn look<D: Disk>(
    volume: &Volume<D>,
    known: &BTreeMap<BlockId, IndexedReplica>,
) -> Result<(situ_runtime::disk::Space, Vec<ScannedReplica>), DiskError> {
    Ok((volume.space()?, volume.scan(known)?))
}

/// Opens the index of a volume, anew if it is damaged; without one the datanode only starts more slowly the next time.
fn open_index<R: Runtime>(
    runtime: &R,
    volume: &Volume<R::Disk>,
) -> (Option<ReplicaIndex>, BTreeMap<BlockId, IndexedReplica>, Option<BlockId>) {
    let path = volume.index_path();
    let attempt = || -> Result<_, StoreError> {
        let index = ReplicaIndex::new(runtime.open_store(&path)?);
        let (known, scrubbed) = (index.load()?, index.scrubbed()?);
        Ok((Some(index), known, scrubbed))
    };
    let again = |error: StoreError| {
        tracing::warn!(index = %path.display(), %error, "the index of a volume is made anew");
        if let Err(error) = runtime.disk().remove_directory(&path) {
            tracing::warn!(index = %path.display(), %error, "the old index cannot be removed");
        }
        attempt()
    };
    attempt().or_else(again).unwrap_or_else(|error| {
        tracing::error!(index = %path.display(), %error, "going on without the index of a volume");
        (None, BTreeMap::new(), None)
    })
}

/// Makes the index say what the listing says.
fn mend(index: &ReplicaIndex, known: &BTreeMap<BlockId, IndexedReplica>, replicas: &[ScannedReplica]) {
    let is_final = |scanned: &&ScannedReplica| scanned.health == Health::Final;
    let there: BTreeMap<_, _> = replicas
        .iter()
        .filter(is_final)
        .map(|scanned| {
            let replica = IndexedReplica { generation: scanned.block.generation, len_bytes: scanned.len_bytes };
            (scanned.block.id, replica)
        })
        .collect();
    let gone = known.keys().filter(|id| !there.contains_key(id)).map(|id| (*id, None));
    let new = there.iter().filter(|(id, replica)| known.get(id) != Some(*replica));
    let changes: Vec<_> = gone.chain(new.map(|(id, replica)| (*id, Some(*replica)))).collect();
    for batch in changes.chunks(MEND_BATCH) {
        if let Err(error) = index.write(batch) {
            tracing::warn!(%error, "the index of a volume takes no notes; it is mended at the next start");
            return;
        }
    }
}

/// How many changes of an index are written at once.
const MEND_BATCH: usize = 10_000;
