//! The handshake that opens every connection: the connector says [`Hello`], the listener answers [`HelloReply`] or refuses.

use serde::{Deserialize, Serialize};

use crate::error::RemoteError;
use crate::ids::ClusterId;

/// What every [`Hello`] starts with, so that another protocol shows at once.
pub const MAGIC: [u8; 4] = *b"SITU";

/// A version of the protocol. Its variants are the changelog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProtocolVersion(pub u16);

impl ProtocolVersion {
    /// The first: namespace, blocks, reports, jobs.
    pub const V1: Self = Self(1);
    /// What this build speaks.
    pub const CURRENT: Self = Self::V1;
}

/// The part that a process plays. A certificate says it; the handshake repeats it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Holds the namespace.
    Namenode,
    /// Holds replicas.
    Datanode,
    /// Holds jobs.
    Scheduler,
    /// Runs workers.
    Executor,
    /// A person's or a program's client.
    User,
}

impl Role {
    /// The role's name as it stands in certificates and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namenode => "namenode",
            Self::Datanode => "datanode",
            Self::Scheduler => "scheduler",
            Self::Executor => "executor",
            Self::User => "user",
        }
    }

    /// Several roles for people, as in `datanode and executor`.
    #[must_use]
    pub fn list(roles: &[Self]) -> String {
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        names.join(" and ")
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Namenode, Self::Datanode, Self::Scheduler, Self::Executor, Self::User]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The first message on a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// What the connector speaks.
    pub version: ProtocolVersion,
    /// The cluster that the connector belongs to.
    pub cluster: ClusterId,
    /// Which role the connector wants to reach.
    pub to: Role,
    /// The part that the connector plays; checked against its certificate where there is one.
    pub role: Role,
    /// The connector's name: a node's or a user's; checked likewise.
    pub name: String,
}

/// The answer to [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// The connection stands.
    Welcome {
        /// What the listener speaks: the same version.
        version: ProtocolVersion,
    },
    /// It does not; the listener closes it.
    Refused(RemoteError),
}
