//! Newtypes for every id, so that mix-ups do not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Declares an id over a 64-bit or smaller number, shown with its prefix.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix).unwrap_or(text).parse().map(Self).map_err(|_| ParseIdError {
                    kind: stringify!($name),
                    found: text.to_owned(),
                })
            }
        }
    };
}

/// Declares an id that counts within a scope, shown with its prefix and, but for the root, its scope.
macro_rules! scoped_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub ScopeId, pub u32);

        impl $name {
            /// All of a scope.
            #[must_use]
            pub const fn all_of(scope: ScopeId) -> std::ops::RangeInclusive<Self> {
                Self(scope, 0)..=Self(scope, u32::MAX)
            }

            /// Its scope and its number, for digests and files.
            #[must_use]
            pub fn to_le_bytes(self) -> [u8; 12] {
                let mut bytes = [0; 12];
                bytes[..8].copy_from_slice(&self.0.0.to_le_bytes());
                bytes[8..].copy_from_slice(&self.1.to_le_bytes());
                bytes
            }

            /// The other way.
            #[must_use]
            pub fn from_le_bytes(bytes: [u8; 12]) -> Self {
                let (scope, number) = bytes.split_at(8);
                let scope = scope.try_into().map_or(0, u64::from_le_bytes);
                Self(ScopeId(scope), number.try_into().map_or(0, u32::from_le_bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    ScopeId::ROOT => write!(f, concat!($prefix, "{}"), self.1),
                    ScopeId(scope) => write!(f, concat!($prefix, "{:016x}-{}"), scope, self.1),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let name = text.strip_prefix($prefix).unwrap_or(text);
                let parsed = match name.split_once('-') {
                    None => name.parse().ok().map(|number| Self(ScopeId::ROOT, number)),
                    Some((scope, number)) => u64::from_str_radix(scope, 16)
                        .ok()
                        .zip(number.parse().ok())
                        .map(|(scope, number)| Self(ScopeId(scope), number)),
                };
                parsed.ok_or_else(|| ParseIdError { kind: stringify!($name), found: text.to_owned() })
            }
        }
    };
}

/// Declares a 128-bit random id, shown as 32 hexadecimal digits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                u128::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError {
                    kind: stringify!($name),
                    found: text.to_owned(),
                })
            }
        }
    };
}

/// A text that should have been an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a {kind}")]
pub struct ParseIdError {
    /// The id type that was expected.
    pub kind: &'static str,
    /// What was given.
    pub found: String,
}

random_id!(
    /// A cluster, made once when its namenode is formatted.
    ClusterId
);
random_id!(
    /// A datanode, made once when its first volume is formatted.
    DatanodeId
);
random_id!(
    /// One volume (directory) of a datanode.
    StorageId
);
random_id!(
    /// One run of a client process: the holder of leases and the first half of every operation id.
    ClientId
);
random_id!(
    /// One run of an executor process.
    ExecutorId
);

number_id!(
    /// A file or directory of the namespace. Never reused.
    INodeId(u64), "inode-"
);
number_id!(
    /// A block of a file. Never reused.
    BlockId(u64), "blk_"
);
number_id!(
    /// Orders the lives of a block: it rises with every change of its pipeline, and older ones are stale.
    GenerationStamp(u64), "gs"
);
number_id!(
    /// The position of a record in the namenode's edit log. The first is 1; 0 means none yet.
    TxId(u64), "tx"
);
number_id!(
    /// A job. The first is 1.
    JobId(u64), "job-"
);
/// A part of a job's program whose datasets and actions are counted by themselves: its name within the part around it says
/// which, so that every run of the program finds the same id, whatever its threads do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ScopeId(pub u64);

impl ScopeId {
    /// The whole program.
    pub const ROOT: Self = Self(0);
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scope-{:016x}", self.0)
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

scoped_id!(
    /// A dataset of a job's lineage graph, by its order of creation within its scope.
    DatasetId, "dataset-"
);
scoped_id!(
    /// A shuffle of a job: the id of the dataset that reads it.
    ShuffleId, "shuffle-"
);
scoped_id!(
    /// A stage of a job: the id of the last dataset that its tasks compute.
    StageId, "stage-"
);
scoped_id!(
    /// An action of a job, by the order in which its driver runs those of a scope.
    ActionId, "action-"
);
number_id!(
    /// A partition of a dataset.
    PartitionId(u32), "partition-"
);

impl TxId {
    /// The transaction after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names one operation of one client, so that a retry is applied once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OperationId {
    /// Who asks.
    pub client: ClientId,
    /// The client's own count of its operations.
    pub sequence: u64,
}

/// A node of the cluster (a host, in effect): what locality is about. A datanode and an executor with the same node
/// name share their disks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rack, as in `/rack-1`: the unit that fails together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RackName(pub String);

impl fmt::Display for RackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt at one task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskAttemptId {
    /// Of which job.
    pub job: JobId,
    /// Of which stage.
    pub stage: StageId,
    /// Which partition it computes.
    pub partition: PartitionId,
    /// The how manieth attempt, from 0; never reused within a job's stage and partition.
    pub attempt: u32,
}

impl fmt::Display for TaskAttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/attempt-{}", self.job, self.stage, self.partition, self.attempt)
    }
}
