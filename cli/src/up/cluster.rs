//! A cluster on one machine: made, started in order, stopped in order.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;
use situ_client::ClientConfig;
use situ_compute::executor::{ExecutorConfig, SLOT_MEMORY_MIN_BYTES, default_memory_bytes};
use situ_compute::scheduler::SchedulerConfig;
use situ_datanode::DatanodeConfig;
use situ_namenode::NamenodeConfig;
use situ_runtime::disk::fs::FsDisk;
use situ_runtime::security::{Authority, Credentials};
use situ_wire::hello::Role;
use situ_wire::ids::{ClusterId, NodeName, RackName};

use super::Layout;
use super::layout::{Shape, fill_atomically};
use super::process::{self, Launch, RoleProcess};
use super::running::{Running, former_roles_ended};
use super::settings::{self, Settings};
use crate::error::{CliError, CliResult};
use crate::roles::RoleFile;
use crate::{show, world};

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The `situ` executable.
    pub program: PathBuf,
    /// Where the cluster lives.
    pub dir: PathBuf,
    /// How many datanodes, each with an executor; none for as many as there were, or 3.
    pub datanodes: Option<u16>,
    /// Among how many racks; none for as many as there were, or 1.
    pub racks: Option<u16>,
    /// How many tasks each executor runs at once; none for as many as its configuration says, or 1.
    pub slots: Option<u32>,
    /// How quickly losses are noticed.
    pub timings: Timings,
    /// The block size of new files when nobody says otherwise.
    pub block_len_bytes: Option<u64>,
}

/// How quickly losses are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timings {
    /// As on real machines: dead after 15 s.
    Usual,
    /// For demonstrations and tests on one machine: dead after some seconds.
    Quick,
}

/// A node: a datanode and the executor beside it.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its rack.
    pub rack: String,
    /// Its datanode; none once it was killed for good.
    pub datanode: Option<RoleProcess>,
    /// Its executor; likewise.
    pub executor: Option<RoleProcess>,
}

/// One process of a cluster; nodes count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The namenode.
    Namenode,
    /// The scheduler.
    Scheduler,
    /// The datanode of a node.
    Datanode(usize),
    /// The executor of a node.
    Executor(usize),
}

/// A cluster that runs. Dropping it kills all of its processes; [`Cluster::stop`] ends them in order.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    options: ClusterOptions,
    cluster: ClusterId,
    /// Its namenode.
    pub namenode: RoleProcess,
    /// Its scheduler.
    pub scheduler: RoleProcess,
    /// Its nodes.
    pub nodes: Vec<Node>,
    _running: Running,
}

impl Cluster {
    /// Starts the cluster in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory holds something else or is in use; when the namenode or the scheduler does not start, or a role
    /// of a new node. One of a node that was there before may be started later.
    pub async fn start(options: ClusterOptions) -> CliResult<Self> {
        let layout = Layout::new(&options.dir)?;
        refuse_strangers(layout.root())?;
        layout.create()?;
        let running = Running::enter(&layout).await?;
        former_roles_ended(&layout).await?;
        let before = layout.load_shape()?;
        let (cluster, datanodes, racks) = shape(&layout, &options, before.as_ref())?;
        let made = before.map(|shape| shape.datanodes);
        make(&layout, cluster, made, datanodes)?;
        // From now on whatever is not there is lost or not mounted, and made by nobody.
        layout.save_shape(cluster, datanodes, racks)?;
        let credentials = Issuer { layout: &layout, cluster };
        for (name, roles) in [("namenode", Role::Namenode), ("scheduler", Role::Scheduler)] {
            credentials.ensure(name, &[roles], name)?;
        }
        credentials.ensure("client", &[Role::User], &world::user_name())?;

        let namenode_config = namenode_config(&layout, options.timings);
        let at = RoleStart { layout: &layout, options: &options, role: "namenode", process: "namenode", must: true };
        let namenode = at.start(&namenode_config, &["directory", "superuser"]).await?;
        let scheduler_config = scheduler_config(&layout, options.timings);
        let at = RoleStart { layout: &layout, options: &options, role: "scheduler", process: "scheduler", must: true };
        let scheduler = at.start(&scheduler_config, &["directory"]).await?;
        write_client_config(&layout, cluster, &options, namenode.address(), scheduler.address())?;

        let mut nodes = Vec::new();
        for index in 1..=datanodes {
            let name = node_name(index);
            let rack = format!("/rack-{}", (index - 1) % racks + 1);
            let roles = [Role::Datanode, Role::Executor];
            credentials.ensure(&name, &roles, &name)?;
            let is_new = made.is_none_or(|made| index > made);
            let at = NodeStart {
                layout: &layout,
                options: &options,
                nodes: datanodes,
                nodes_before: made,
                name: &name,
                rack: &rack,
                is_new,
            };
            let datanode = at.datanode(namenode.address()).await?;
            let executor = at.executor(namenode.address(), scheduler.address()).await?;
            nodes.push(Node { name, rack, datanode: Some(datanode), executor: Some(executor) });
        }
        Ok(Self { layout, options, cluster, namenode, scheduler, nodes, _running: running })
    }

    /// Which cluster it is.
    pub fn id(&self) -> ClusterId {
        self.cluster
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it was started.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// One of its processes, if it has that.
    pub fn process(&mut self, member: Member) -> Option<&mut RoleProcess> {
        match member {
            Member::Namenode => Some(&mut self.namenode),
            Member::Scheduler => Some(&mut self.scheduler),
            Member::Datanode(index) => self.nodes.get_mut(index)?.datanode.as_mut(),
            Member::Executor(index) => self.nodes.get_mut(index)?.executor.as_mut(),
        }
    }

    /// Every process that runs.
    pub fn processes(&self) -> impl Iterator<Item = &RoleProcess> {
        let nodes = self.nodes.iter().flat_map(|node| node.datanode.iter().chain(&node.executor));
        [&self.namenode, &self.scheduler].into_iter().chain(nodes)
    }

    /// Ends everything in order: those who ask before those who answer. Says what did not end well.
    ///
    /// # Errors
    /// Names every process that had to be killed or ended with an error.
    pub async fn stop(self) -> CliResult {
        let mut failures = Vec::new();
        let mut datanodes = Vec::new();
        for node in self.nodes {
            if let Some(executor) = node.executor {
                failures.extend(executor.stop().await.err());
            }
            datanodes.extend(node.datanode);
        }
        failures.extend(self.scheduler.stop().await.err());
        for datanode in datanodes {
            failures.extend(datanode.stop().await.err());
        }
        failures.extend(self.namenode.stop().await.err());
        if failures.is_empty() { Ok(()) } else { Err(CliError::failed(failures.join("\n"))) }
    }
}

/// A directory that holds something, but no cluster, is left alone.
fn refuse_strangers(root: &Path) -> CliResult {
    let Ok(mut entries) = std::fs::read_dir(root) else { return Ok(()) };
    // Also what a start that was cut off has left aside.
    let ours = ["cluster.json", "cluster.new", "up.lock", "config", "logs", "credentials", "ca", "ca.new"];
    if root.join("cluster.json").exists() {
        return Ok(());
    }
    let is_begun = root.join("ca/ca.pem").exists();
    let data = |name: &OsStr| ["namenode", "scheduler"].iter().any(|role| name == *role) || is_node(name);
    let stranger = entries.find_map(|entry| {
        let name = entry.ok()?.file_name();
        let known = ours.iter().any(|known| name == *known) || (is_begun && data(&name));
        (!known).then_some(name)
    });
    match stranger {
        None => Ok(()),
        Some(name) => Err(CliError::failed(format!(
            "{}: holds {} but no cluster: name an empty directory or one of an earlier `situ up`",
            root.display(),
            name.to_string_lossy()
        ))),
    }
}

fn is_node(name: &OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_prefix("node-")).is_some_and(|number| number.parse::<u16>().is_ok())
}

/// Makes the directories of a new cluster, or of its new nodes, when it was `made` with so many. What an attempt that was
/// cut off has made is left as it is.
fn make(layout: &Layout, cluster: ClusterId, made: Option<u16>, datanodes: u16) -> CliResult {
    if made.is_none() {
        let namenode = layout.data("namenode");
        if situ_namenode::formatted_cluster(&FsDisk, &namenode)?.is_none() {
            situ_namenode::format(&FsDisk, &namenode, cluster)?;
        }
        situ_compute::scheduler::format(&FsDisk, &layout.data("scheduler"), cluster)?;
    }
    for name in (made.unwrap_or(0) + 1..=datanodes).map(node_name) {
        situ_datanode::format(&FsDisk, &[layout.volume(&name)], cluster, || fastrand::u128(..))?;
        situ_compute::executor::format(&FsDisk, &layout.executor(&name), cluster)?;
    }
    Ok(())
}

fn node_name(number: u16) -> String {
    format!("node-{number}")
}

/// The cluster and its shape: as it was, or as is asked for now.
fn shape(layout: &Layout, options: &ClusterOptions, before: Option<&Shape>) -> CliResult<(ClusterId, u16, u16)> {
    let cluster = match before {
        Some(shape) => shape
            .cluster
            .parse()
            .map_err(|error| CliError::failed(format!("{}: cluster.json: {error}", layout.root().display())))?,
        None => {
            let ca = layout.ca();
            // A start that was cut off before cluster.json was written has left its authority: it goes on with it.
            if ca.join("ca.pem").exists() {
                Authority::load(&ca)?.cluster()
            } else {
                let authority = Authority::create(ClusterId(fastrand::u128(1..)))?;
                fill_atomically(&ca, |aside| authority.save(aside))?;
                authority.cluster()
            }
        }
    };
    let datanodes = options.datanodes.or(before.map(|shape| shape.datanodes)).unwrap_or(3);
    let left_out = layout.data(&format!("node-{}", u32::from(datanodes) + 1));
    // Also where its disk is not mounted.
    if before.is_some_and(|before| datanodes < before.datanodes) || left_out.exists() {
        return Err(CliError::failed(format!(
            "--datanodes {datanodes}: {} would be left out, and the replicas that it holds; name at least as many as there \
             were{}",
            left_out.display(),
            before.map_or_else(String::new, |shape| format!(", {}", shape.datanodes)),
        )));
    }
    let racks = options.racks.or(before.map(|shape| shape.racks)).unwrap_or(1);
    Ok((cluster, datanodes, racks))
}

/// Makes sure that every process has its certificate.
struct Issuer<'a> {
    layout: &'a Layout,
    cluster: ClusterId,
}

impl Issuer<'_> {
    fn ensure(&self, process: &str, roles: &[Role], name: &str) -> CliResult {
        let directory = self.layout.credentials(process);
        if directory.join("node.pem").exists() {
            let credentials = Credentials::load(&directory)?;
            if credentials.cluster() == self.cluster {
                return Ok(());
            }
            return Err(CliError::failed(format!(
                "{}: a certificate of cluster {}, expected one of {}",
                directory.display(),
                credentials.cluster(),
                self.cluster
            )));
        }
        let credentials = Authority::load(&self.layout.ca())?.issue(roles, name)?;
        fill_atomically(&directory, |aside| credentials.save(aside))
    }
}

/// Any free port of this host's own interface.
fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn namenode_config(layout: &Layout, timings: Timings) -> NamenodeConfig {
    let mut config = NamenodeConfig::new(layout.data("namenode"));
    config.listen = loopback();
    config.superuser = world::user_name();
    // Its datanodes start with it: there are no others to wait for.
    config.safe_mode_extension_ms = 2_000;
    if timings == Timings::Quick {
        (config.heartbeat_ms, config.suspect_after_ms, config.dead_after_ms) = (300, 1_500, 4_000);
        config.safe_mode_extension_ms = 0;
    }
    config
}

fn scheduler_config(layout: &Layout, timings: Timings) -> SchedulerConfig {
    let mut config = SchedulerConfig::new(layout.data("scheduler"));
    config.listen = loopback();
    if timings == Timings::Quick {
        config.scheduling.poll_hold_ms = 500;
        (config.scheduling.suspect_ms, config.scheduling.dead_ms) = (1_500, 4_000);
        config.scheduling.session_ms = 4_000;
    }
    config
}

fn write_client_config(
    layout: &Layout,
    cluster: ClusterId,
    options: &ClusterOptions,
    namenode: SocketAddr,
    scheduler: SocketAddr,
) -> CliResult {
    let mut config = ClientConfig::new(cluster, namenode);
    config.scheduler = Some(scheduler);
    config.credentials = Some(layout.credentials("client"));
    config.block_len_bytes = options.block_len_bytes.unwrap_or(config.block_len_bytes);
    let mut anew = vec!["cluster", "namenode", "scheduler", "credentials"];
    anew.extend(options.block_len_bytes.map(|_| "block_len_bytes"));
    let anew = anew.into_iter().map(|key| (None, key)).collect();
    Settings { fresh: toml::Table::try_from(config)?, anew }.write(&layout.client_config())
}

/// A role that is being started.
struct RoleStart<'a> {
    layout: &'a Layout,
    options: &'a ClusterOptions,
    role: &'static str,
    /// As in `datanode@node-1`.
    process: &'a str,
    /// Whether it is an error if it does not start. If it is none, it is said, and tried again with all that ends.
    must: bool,
}

impl RoleStart<'_> {
    /// Brings the role's configuration up to date, where `anew` says what must be as in `config`, and starts it: at the
    /// address that it had, if that is still free.
    async fn start<T: Serialize>(&self, config: &T, anew: &[&'static str]) -> CliResult<RoleProcess> {
        let Self { layout, options, role, process, must } = *self;
        let certificate = process.rsplit_once('@').map_or(process, |(_, node)| node);
        let name = process.replace('@', "-");
        let path = layout.config(&name);
        let keys = anew.iter().map(|key| (Some(role), *key));
        let settings = Settings {
            fresh: RoleFile::to_table(role, &layout.credentials(certificate), config)?,
            anew: std::iter::once((None, "credentials")).chain(keys).collect(),
        };
        settings.write(&path)?;
        let before = settings::found(&path, role, "listen").and_then(|listen| listen.as_str()?.parse().ok());
        let before = before.unwrap_or_else(loopback);
        let (program, config) = (options.program.clone(), path.clone());
        let launch = Launch { program, role, log: layout.log(&name), name, config, listen: Some(before) };
        let started = match RoleProcess::start(launch.clone()).await {
            Err(error) if before.port() != 0 && process::is_address_taken(&error) => {
                show::note(format!("{}: {before} is taken by somebody else: it takes another port", launch.name));
                RoleProcess::start(Launch { listen: Some(SocketAddr::new(before.ip(), 0)), ..launch.clone() }).await
            }
            started => started,
        };
        let started = match started {
            Err(error) if !must => {
                show::note(error.message);
                return Ok(RoleProcess::to_be_started(launch));
            }
            started => started?,
        };
        if started.address() != before {
            settings::remember(&path, role, started.address())?;
        }
        Ok(started)
    }
}

/// A node that is being started.
struct NodeStart<'a> {
    layout: &'a Layout,
    options: &'a ClusterOptions,
    /// Among how many it shares this machine.
    nodes: u16,
    /// Among how many it did before, if it was there.
    nodes_before: Option<u16>,
    name: &'a str,
    rack: &'a str,
    /// Whether it is part of the cluster for the first time: then it must start.
    is_new: bool,
}

impl NodeStart<'_> {
    async fn datanode(&self, namenode: SocketAddr) -> CliResult<RoleProcess> {
        let volume = self.layout.volume(self.name);
        let mut config = DatanodeConfig::new(self.name, namenode, vec![volume]);
        config.listen = loopback();
        self.rack.clone_into(&mut config.rack);
        let process = &format!("datanode@{}", self.name);
        let at = RoleStart { layout: self.layout, options: self.options, role: "datanode", process, must: self.is_new };
        at.start(&config, &["node", "rack", "namenode", "volumes"]).await
    }

    async fn executor(&self, namenode: SocketAddr, scheduler: SocketAddr) -> CliResult<RoleProcess> {
        let directory = self.layout.executor(self.name);
        let mut config = ExecutorConfig::new(directory, NodeName(self.name.to_owned()), namenode, scheduler);
        config.listen = loopback();
        config.rack = RackName(self.rack.to_owned());
        config.slots = self.options.slots.unwrap_or(config.slots);
        let share = share_of(self.nodes);
        let least = SLOT_MEMORY_MIN_BYTES * u64::from(config.slots);
        config.worker_memory_bytes = config.worker_memory_bytes.min(share).max(least);
        config.worker_credentials = Some(self.layout.credentials("client"));
        if self.options.timings == Timings::Quick {
            config.worker_silence_ms = 5_000;
        }
        let process = &format!("executor@{}", self.name);
        let at = RoleStart { layout: self.layout, options: self.options, role: "executor", process, must: self.is_new };
        let mut anew = vec!["directory", "namenode", "scheduler", "node", "rack", "worker_credentials"];
        anew.extend(self.options.slots.map(|_| "slots"));
        // What is too little for so many slots would be refused.
        let path = self.layout.config(&process.replace('@', "-"));
        let found = |key| {
            let found = settings::found(&path, "executor", key).and_then(|bytes| bytes.as_integer());
            found.and_then(|bytes| u64::try_from(bytes).ok())
        };
        let mut worker_memory_bytes = found("worker_memory_bytes");
        let former = self.nodes_before.map(|nodes| (share_of(nodes), worker_memory_bytes));
        if self.options.slots.is_some() && worker_memory_bytes.is_some_and(|bytes| bytes < least) {
            anew.push("worker_memory_bytes");
            worker_memory_bytes = Some(config.worker_memory_bytes);
        }
        // Without one, each executor would take what all of them share.
        let worker_memory_bytes = worker_memory_bytes.unwrap_or(config.worker_memory_bytes);
        config.memory_bytes = Some(share.max(worker_memory_bytes));
        if found("memory_bytes").is_none_or(|bytes| is_written_by_start(bytes, former)) {
            anew.push("memory_bytes");
        }
        at.start(&config, &anew).await
    }
}

/// What each of so many nodes has of this machine's memory, for the workers of jobs.
fn share_of(nodes: u16) -> u64 {
    default_memory_bytes() / u64::from(nodes.max(1))
}

/// Whether an executor's `memory_bytes` is what the last start wrote, with the share of each node then and the
/// `worker_memory_bytes` of its file. Whatever else it is, somebody has edited it.
fn is_written_by_start(memory_bytes: u64, former: Option<(u64, Option<u64>)>) -> bool {
    former.is_some_and(|(share, worker)| memory_bytes == share || Some(memory_bytes) == worker.map(|it| it.max(share)))
}

#[cfg(test)]
mod tests {
    use super::is_written_by_start;

    #[test]
    fn memory_that_a_start_has_dealt_out_is_dealt_out_again_and_what_was_edited_stays() {
        assert!(is_written_by_start(16, Some((16, Some(4)))));
        assert!(is_written_by_start(20, Some((16, Some(20)))), "one worker has more than a share");
        assert!(is_written_by_start(16, Some((16, Some(20)))), "its worker was edited since");
        assert!(!is_written_by_start(12, Some((16, Some(4)))) && !is_written_by_start(3, Some((16, Some(4)))));
        assert!(!is_written_by_start(16, None), "there was no start");
    }
}
