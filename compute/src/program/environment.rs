//! What an executor tells a process of a job by environment variables, or `situ job submit --client` the driver that it
//! becomes. Everything else comes through calls.
//!
//! Standard input of what an executor starts is empty. Its shim holds the other end of a pipe ([`SHIM`]): when that closes, the
//! process ends itself, so that none is left behind by an executor that was killed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use situ_wire::ids::{ClusterId, JobId, NodeName};
use situ_wire::messages::executor::{JobSecret, ProcessLife};

/// `driver` or `worker`. A process without it was started by hand.
pub const ROLE: &str = "SITU_ROLE";
/// The job's id, as in `job-7`.
pub const JOB: &str = "SITU_JOB";
/// The job's secret, 32 hexadecimal digits.
pub const JOB_SECRET: &str = "SITU_JOB_SECRET";
/// Which attempt at the driver this is, from 0. Drivers only.
pub const ATTEMPT: &str = "SITU_ATTEMPT";
/// Who submitted the job.
pub const USER: &str = "SITU_USER";
/// Where the scheduler listens.
pub const SCHEDULER: &str = "SITU_SCHEDULER";
/// Where the executor that started the process listens. Workers only.
pub const EXECUTOR: &str = "SITU_EXECUTOR";
/// Where the namenode listens.
pub const NAMENODE: &str = "SITU_NAMENODE";
/// The cluster's id, 32 hexadecimal digits.
pub const CLUSTER_ID: &str = "SITU_CLUSTER_ID";
/// The name of the node that the process runs on. Missing where it is none of the cluster's.
pub const NODE: &str = "SITU_NODE";
/// The directory of the certificate that the process connects with. May be missing.
pub const CREDENTIALS: &str = "SITU_CREDENTIALS";
/// The directory for shuffle output and spills. Workers only.
pub const WORK_DIR: &str = "SITU_WORK_DIR";
/// How many tasks run at once. Workers only.
pub const SLOTS: &str = "SITU_SLOTS";
/// Which life of the job's worker this is, as its executor counts. Workers only.
pub const LIFE: &str = "SITU_LIFE";
/// How much memory the process may use, in bytes. Workers only.
pub const WORKER_MEMORY_BYTES: &str = "SITU_WORKER_MEMORY_BYTES";

/// `1` when a worker shall run the program twice and compare. May be missing.
pub const CHECK_REPLAY: &str = "SITU_CHECK_REPLAY";
/// Of a built-in program, the BLAKE3 hash of the executable that holds it, 64 hexadecimal digits. Missing for others.
pub const BUILD: &str = "SITU_BUILD";

/// Which process this is, 32 hexadecimal digits: what it starts has it too, so that an executor can find all of it.
pub const PROCESS: &str = "SITU_PROCESS";

/// Where the read end of a pipe is whose other end the process's shim holds to its own end. The shim says it, not the
/// executor.
pub const SHIM: &str = "SITU_SHIM";

/// All of these variables: whoever starts a process of a job passes on none of its own.
pub const ALL: [&str; 19] = [
    ROLE,
    JOB,
    JOB_SECRET,
    ATTEMPT,
    USER,
    SCHEDULER,
    EXECUTOR,
    NAMENODE,
    CLUSTER_ID,
    NODE,
    CREDENTIALS,
    WORK_DIR,
    SLOTS,
    LIFE,
    WORKER_MEMORY_BYTES,
    CHECK_REPLAY,
    BUILD,
    PROCESS,
    SHIM,
];

/// Everything that the variables say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The part that the process plays.
    pub role: ProcessRole,
    /// The job.
    pub job: JobId,
    /// What the process shows with every call.
    pub secret: JobSecret,
    /// Who submitted the job: the name under which files are read and written.
    pub user: String,
    /// Where the scheduler listens.
    pub scheduler: SocketAddr,
    /// Where the namenode listens.
    pub namenode: SocketAddr,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that the process runs on, if it is one of the cluster's.
    pub node: Option<NodeName>,
    /// The directory of the certificate that the process connects with.
    pub credentials: Option<PathBuf>,
    /// Whether a worker shall run the program twice and compare what both runs compute.
    pub check_replay: bool,
    /// Of a built-in program, the hash of the executable that holds it.
    pub build: Option<[u8; 32]>,
}

/// The part that a process of a job plays, and what only that part has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessRole {
    /// It runs the program from the start to its end.
    Driver {
        /// Which attempt, from 0.
        attempt: u32,
    },
    /// It runs tasks.
    Worker {
        /// Where the executor that started it listens.
        executor: SocketAddr,
        /// The directory for shuffle output and spills.
        work_dir: PathBuf,
        /// How many tasks run at once; at least 1.
        slots: u32,
        /// How much memory it may use.
        memory_bytes: u64,
        /// Which life of the job's worker this is.
        life: ProcessLife,
    },
}

/// A variable that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It is not set.
    #[error("the environment variable {name} is not set; programs are started with `situ job submit`, not by hand")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// It does not say what it should.
    #[error("the environment variable {name} is {found:?}; expected {expected}")]
    Invalid {
        /// Which.
        name: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
}

/// The exit code of a driver that lost its way to the scheduler, as sysexits(3) has it for what may be otherwise next time:
/// nothing is wrong with the program, and another attempt goes on.
pub(crate) const CUT_OFF: u8 = 75;

impl Environment {
    /// Whether the replay of the program is checked: the programs of the executor itself are known.
    pub(super) fn is_checked(&self) -> bool {
        self.build.is_none() && (self.check_replay || cfg!(debug_assertions))
    }

    /// The variables that say this, for a process to be started with.
    #[must_use]
    pub fn to_variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&'static str, OsString)> = vec![
            (JOB, self.job.to_string().into()),
            (JOB_SECRET, format!("{:032x}", u128::from_be_bytes(self.secret.0)).into()),
            (USER, self.user.clone().into()),
            (SCHEDULER, self.scheduler.to_string().into()),
            (NAMENODE, self.namenode.to_string().into()),
            (CLUSTER_ID, self.cluster.to_string().into()),
        ];
        if let Some(node) = &self.node {
            variables.push((NODE, node.to_string().into()));
        }
        if let Some(directory) = &self.credentials {
            variables.push((CREDENTIALS, directory.into()));
        }
        if self.check_replay {
            variables.push((CHECK_REPLAY, "1".into()));
        }
        if let Some(build) = self.build {
            variables.push((BUILD, blake3::Hash::from_bytes(build).to_hex().as_str().into()));
        }
        match &self.role {
            ProcessRole::Driver { attempt } => {
                variables.push((ROLE, "driver".into()));
                variables.push((ATTEMPT, attempt.to_string().into()));
            }
            ProcessRole::Worker { executor, work_dir, slots, memory_bytes, life } => {
                variables.push((ROLE, "worker".into()));
                variables.push((EXECUTOR, executor.to_string().into()));
                variables.push((WORK_DIR, work_dir.into()));
                variables.push((SLOTS, slots.to_string().into()));
                variables.push((WORKER_MEMORY_BYTES, memory_bytes.to_string().into()));
                variables.push((LIFE, life.0.to_string().into()));
            }
        }
        variables
    }

    /// Reads the variables through `lookup`; none if [`ROLE`] is not set, which means that no executor started this
    /// process.
    ///
    /// # Errors
    /// When a variable is missing or does not say what it should.
    pub fn from_variables(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Option<Self>, EnvironmentError> {
        let variables = Variables(lookup);
        let Some(role) = variables.optional(ROLE) else { return Ok(None) };
        let role = match role.to_str() {
            Some("driver") => ProcessRole::Driver { attempt: variables.parsed(ATTEMPT, "a number")? },
            Some("worker") => ProcessRole::Worker {
                executor: variables.parsed(EXECUTOR, "an address such as 127.0.0.1:7000")?,
                work_dir: variables.required(WORK_DIR)?.into(),
                slots: variables.parsed::<std::num::NonZeroU32>(SLOTS, "a number of at least 1")?.get(),
                memory_bytes: variables.parsed(WORKER_MEMORY_BYTES, "a number of bytes")?,
                life: ProcessLife(variables.parsed(LIFE, "a number")?),
            },
            _ => {
                let found = role.to_string_lossy().into_owned();
                return Err(EnvironmentError::Invalid { name: ROLE, found, expected: "\"driver\" or \"worker\"" });
            }
        };
        let secret = variables.text(JOB_SECRET, "32 hexadecimal digits")?;
        let secret = match u128::from_str_radix(&secret, 16) {
            Ok(number) if secret.len() == 32 => JobSecret(number.to_be_bytes()),
            _ => {
                // A secret is not repeated where it may be read.
                let found = format!("a text of {} characters", secret.chars().count());
                return Err(EnvironmentError::Invalid { name: JOB_SECRET, found, expected: "32 hexadecimal digits" });
            }
        };
        Ok(Some(Self {
            role,
            job: variables.parsed(JOB, "a job id such as job-7")?,
            secret,
            user: variables.text(USER, "a user's name")?,
            scheduler: variables.parsed(SCHEDULER, "an address such as 127.0.0.1:7000")?,
            namenode: variables.parsed(NAMENODE, "an address such as 127.0.0.1:7000")?,
            cluster: variables.parsed(CLUSTER_ID, "32 hexadecimal digits")?,
            node: match variables.optional(NODE) {
                Some(_) => Some(NodeName(variables.text(NODE, "a node's name")?)),
                None => None,
            },
            credentials: variables.optional(CREDENTIALS).map(PathBuf::from),
            check_replay: variables.optional(CHECK_REPLAY).is_some_and(|value| value == "1"),
            build: match variables.optional(BUILD) {
                Some(_) => Some(*variables.parsed::<blake3::Hash>(BUILD, "64 hexadecimal digits")?.as_bytes()),
                None => None,
            },
        }))
    }
}

/// Reads variables one by one.
struct Variables<F>(F);

impl<F: Fn(&'static str) -> Option<OsString>> Variables<F> {
    fn optional(&self, name: &'static str) -> Option<OsString> {
        (self.0)(name)
    }

    fn required(&self, name: &'static str) -> Result<OsString, EnvironmentError> {
        self.optional(name).ok_or(EnvironmentError::Missing { name })
    }

    fn text(&self, name: &'static str, expected: &'static str) -> Result<String, EnvironmentError> {
        self.required(name)?.into_string().map_err(|found| EnvironmentError::Invalid {
            name,
            found: found.to_string_lossy().into_owned(),
            expected,
        })
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str, expected: &'static str) -> Result<T, EnvironmentError> {
        let text = self.text(name, expected)?;
        text.parse().map_err(|_| EnvironmentError::Invalid { name, found: text, expected })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn environment(role: ProcessRole) -> Environment {
        Environment {
            role,
            job: JobId(7),
            secret: JobSecret([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]),
            user: "ann".to_owned(),
            scheduler: "127.0.0.1:1".parse().unwrap(),
            namenode: "127.0.0.1:3".parse().unwrap(),
            cluster: ClusterId(0xabc),
            node: Some(NodeName("node-1".to_owned())),
            credentials: None,
            check_replay: false,
            build: None,
        }
    }

    fn read(variables: &HashMap<&'static str, OsString>) -> Result<Option<Environment>, EnvironmentError> {
        Environment::from_variables(|name| variables.get(name).cloned())
    }

    #[test]
    fn what_is_written_is_read() {
        let worker = ProcessRole::Worker {
            executor: "[::1]:2".parse().unwrap(),
            work_dir: "/w d".into(),
            slots: 2,
            memory_bytes: 1 << 30,
            life: ProcessLife(4),
        };
        let mut environments = vec![environment(ProcessRole::Driver { attempt: 3 }), environment(worker)];
        environments[1].credentials = Some("/c".into());
        environments[1].check_replay = true;
        environments[1].build = Some([0xb7; 32]);
        environments[0].node = None;
        for environment in environments {
            let variables: HashMap<_, _> = environment.to_variables().into_iter().collect();
            assert!(variables.keys().all(|name| ALL.contains(name)), "all are listed: {variables:?}");
            assert_eq!(read(&variables), Ok(Some(environment)));
        }
    }

    #[test]
    fn without_a_role_there_is_none_and_what_is_wrong_is_named() {
        assert_eq!(read(&HashMap::new()), Ok(None));
        let mut variables: HashMap<_, _> =
            environment(ProcessRole::Driver { attempt: 0 }).to_variables().into_iter().collect();
        variables.insert(NAMENODE, "nowhere".into());
        assert!(matches!(read(&variables), Err(EnvironmentError::Invalid { name: NAMENODE, .. })));
        variables.remove(NAMENODE);
        assert_eq!(read(&variables), Err(EnvironmentError::Missing { name: NAMENODE }));
    }
}
