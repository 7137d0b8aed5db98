//! Why a datanode does not start, and why it stops.

use std::path::PathBuf;

use situ_runtime::disk::DiskError;
use situ_runtime::rpc::RpcError;
use situ_wire::ids::{ClusterId, DatanodeId};

use crate::storage::VersionError;

/// Why a datanode does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not make sense.
    #[error("the datanode's configuration: {0}")]
    Config(String),
    /// A volume's directory cannot be used.
    #[error("the volume {}: {error}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What its disk says.
        error: DiskError,
    },
    /// Where a volume should be there is nothing.
    #[error(
        "the volume {}: expected its VERSION file, found {found}: if its disk is not mounted, mount it; if the volume is new, \
         or lost for good, `situ datanode --config FILE --format` makes an empty one there, once (what a lost one held is \
         copied anew from other datanodes)",
        path.display()
    )]
    NoVolume {
        /// Where.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// A volume's `VERSION` file is damaged or from another release.
    #[error(
        "the volume {}: its VERSION file: {error}; bring it back from a copy, or, if what is there is to be given up, \
         empty the directory and start the datanode once with `--format`", path.display()
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: VersionError,
    },
    /// A volume belongs to another cluster.
    #[error(
        "the volume {} belongs to cluster {found}, this datanode to cluster {expected}; \
         name another directory, or empty this one if its replicas are not needed", path.display()
    )]
    WrongCluster {
        /// Which.
        path: PathBuf,
        /// This datanode's.
        expected: ClusterId,
        /// The volume's.
        found: ClusterId,
    },
    /// A volume belongs to another datanode than the volumes before it.
    #[error(
        "the volume {} belongs to datanode {found}, the ones before it to {expected}; \
         name only the directories of one datanode", path.display()
    )]
    WrongDatanode {
        /// Which.
        path: PathBuf,
        /// The one of the volumes before.
        expected: DatanodeId,
        /// The volume's.
        found: DatanodeId,
    },
    /// Two directories are copies of one volume.
    #[error("the volume {} has the same storage id as {}; one is a copy of the other: name only one", path.display(), other.display())]
    SameStorage {
        /// Which.
        path: PathBuf,
        /// The one before it.
        other: PathBuf,
    },
    /// A directory holds something, but not a volume.
    #[error(
        "the directory {} is not a volume: it has no VERSION file, but holds {found:?}; name another one, or bring that \
         file back", path.display()
    )]
    NotEmpty {
        /// Which.
        path: PathBuf,
        /// The first thing in it.
        found: String,
    },
}

/// Why a datanode stopped although nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatanodeError {
    /// The namenode serves another cluster, or refuses this datanode for good.
    #[error("the namenode refuses this datanode: {0}")]
    Refused(String),
    /// Every volume has failed.
    #[error("no volume is left that works; the last failure: {0}")]
    NoVolumes(String),
    /// It cannot hear anyone any more.
    #[error("the datanode cannot listen any more: {0}")]
    Listen(#[from] RpcError),
}
