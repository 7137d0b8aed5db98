//! `situ namenode|datanode|scheduler|executor`: each role as a process of its own.

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_client::config::explain;
use situ_compute::executor::{self, Executor, ExecutorConfig};
use situ_compute::scheduler::{self, SchedulerConfig, SchedulerServer};
use situ_datanode::{Datanode, DatanodeConfig};
use situ_namenode::{Namenode, NamenodeConfig};
use situ_runtime::Runtime;
use situ_runtime::real::RealRuntime;
use situ_runtime::security::Credentials;
use situ_runtime::transport::Transport;
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;
use tokio::sync::oneshot;

use crate::args::RoleArgs;
use crate::error::{CliError, CliResult, LocalContext};
use crate::show::{self, escaped};
use crate::up::process::Ready;
use crate::world::{self, Interrupt};

/// A role's configuration file: where its certificate is, and a table for the role.
///
/// ```toml
/// credentials = "credentials/namenode"
///
/// [namenode]
/// directory = "/var/lib/situ/namenode"
/// ```
#[derive(Debug)]
pub struct RoleFile<T> {
    /// The directory of the role's certificate.
    pub credentials: PathBuf,
    /// The role's own part.
    pub role: T,
}

impl<T: DeserializeOwned> RoleFile<T> {
    /// Reads the file at `path`, in which the table of the role is called `role`. Relative paths of certificates are
    /// taken from where the file lies.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn load(path: &Path, role: &str) -> CliResult<Self> {
        let text = std::fs::read_to_string(path).local("cannot read the configuration", path)?;
        let invalid = |reason: String| CliError::failed(format!("{}: {reason}", path.display()));
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| invalid(explain(&error)))?;
        let credentials = match table.remove("credentials") {
            Some(toml::Value::String(directory)) => beside(path, Path::new(&directory))?,
            Some(other) => return Err(invalid(format!("credentials = {other}: expected the path of a directory"))),
            None => {
                return Err(invalid(
                    "credentials: missing; expected the directory of this process's certificate, as `situ ca issue` makes it"
                        .to_owned(),
                ));
            }
        };
        let Some(part) = table.remove(role) else {
            return Err(invalid(format!("[{role}]: missing; expected a table with the {role}'s configuration")));
        };
        if let Some(unknown) = table.keys().next() {
            return Err(invalid(format!("{unknown}: not known here; expected `credentials` and [{role}]")));
        }
        let role_part = part.try_into().map_err(|error| invalid(format!("[{role}]: {}", explain(&error))))?;
        Ok(Self { credentials, role: role_part })
    }
}

impl RoleFile<()> {
    /// What a role's configuration file holds.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn to_table<T: Serialize>(role: &str, credentials: &Path, config: &T) -> CliResult<toml::Table> {
        let mut table = toml::Table::new();
        table.insert("credentials".to_owned(), toml::Value::try_from(credentials)?);
        table.insert(role.to_owned(), toml::Value::try_from(config)?);
        Ok(table)
    }
}

/// `target` as the configuration file at `file` means it: taken from where that lies, and absolute.
fn beside(file: &Path, target: &Path) -> CliResult<PathBuf> {
    let joined = file.parent().unwrap_or(Path::new("")).join(target);
    std::path::absolute(&joined).local("cannot find", &joined)
}

/// The file of an executor with absolute paths: the processes of its jobs run in directories of their own, where
/// relative ones would mean something else.
fn executor_file(path: &Path) -> CliResult<RoleFile<ExecutorConfig>> {
    let mut file: RoleFile<ExecutorConfig> = RoleFile::load(path, "executor")?;
    file.role.directory = std::path::absolute(&file.role.directory).local("cannot find", &file.role.directory)?;
    if let Some(credentials) = &mut file.role.worker_credentials {
        *credentials = beside(path, credentials)?;
    }
    Ok(file)
}

/// What every role needs before it starts.
struct Start {
    runtime: RealRuntime,
    cluster: ClusterId,
    listener: <<RealRuntime as Runtime>::Transport as Transport>::Listener,
}

impl Start {
    /// As `role`; on `node` if the others ask for its name.
    async fn new(role: Role, node: Option<&str>, credentials: &Path, listen: SocketAddr) -> CliResult<Self> {
        world::start_log("info");
        let loaded = Credentials::load(credentials)?;
        check_identity(&loaded, credentials, role, node)?;
        let cluster = loaded.cluster();
        let runtime = world::runtime(Some(credentials))?;
        let listener = runtime.transport().listen(listen).await?;
        Ok(Self { runtime, cluster, listener })
    }
}

/// Refuses credentials of another role or node than the process plays: else only those who talk to it would notice.
fn check_identity(credentials: &Credentials, directory: &Path, role: Role, node: Option<&str>) -> CliResult {
    if credentials.roles().contains(&role) && node.is_none_or(|node| node == credentials.name()) {
        return Ok(());
    }
    let name = node.unwrap_or(role.name());
    let wanted = node.map_or(String::new(), |node| format!(" {node:?}"));
    Err(CliError::failed(format!(
        "{}: expected a certificate for {role}{wanted}, found one for {} {:?}; have one issued with `situ ca issue --role \
         {role} --name {name:?} --dir CA --out DIR`, and set `credentials` to that DIR",
        escaped(&directory.join("node.pem").to_string_lossy()),
        Role::list(credentials.roles()),
        credentials.name(),
    )))
}

/// `situ namenode`.
pub async fn namenode(args: &RoleArgs) -> CliResult {
    let file: RoleFile<NamenodeConfig> = RoleFile::load(&args.config, "namenode")?;
    let listen = args.listen.unwrap_or(file.role.listen);
    let Start { runtime, cluster, listener } = Start::new(Role::Namenode, None, &file.credentials, listen).await?;
    let (disk, directory) = (*runtime.disk(), file.role.directory.clone());
    if args.format && situ_namenode::formatted_cluster(&disk, &directory)?.is_none() {
        situ_namenode::format(&disk, &directory, cluster)?;
        say_made("namespace", &directory);
    }
    let handle = Namenode::start(runtime, file.role, cluster, listener).await?;
    let stopped = async {
        match handle.stopped().await {
            Ok(()) => "it was told to end".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    run(args, handle.address(), stopped).await?;
    Ok(handle.shutdown().await?)
}

/// `situ datanode`.
pub async fn datanode(args: &RoleArgs) -> CliResult {
    let file: RoleFile<DatanodeConfig> = RoleFile::load(&args.config, "datanode")?;
    let listen = args.listen.unwrap_or(file.role.listen);
    let Start { runtime, cluster, listener } =
        Start::new(Role::Datanode, Some(&file.role.node), &file.credentials, listen).await?;
    if args.format {
        let made = situ_datanode::format(runtime.disk(), &file.role.volumes, cluster, || runtime.random_u128())?;
        made.iter().for_each(|volume| say_made("volume", volume));
    }
    let handle = Datanode::start(runtime, file.role, cluster, listener).await?;
    let stopped = async {
        match handle.stopped().await {
            Ok(()) => "it was told to end".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    run(args, handle.address(), stopped).await?;
    handle.shutdown();
    Ok(handle.stopped().await?)
}

/// `situ scheduler`.
pub async fn scheduler(args: &RoleArgs) -> CliResult {
    let file: RoleFile<SchedulerConfig> = RoleFile::load(&args.config, "scheduler")?;
    let listen = args.listen.unwrap_or(file.role.listen);
    let Start { runtime, cluster, listener } = Start::new(Role::Scheduler, None, &file.credentials, listen).await?;
    if args.format && scheduler::format(runtime.disk(), &file.role.directory, cluster)? {
        say_made("journal of jobs", &file.role.directory);
    }
    let mut handle = SchedulerServer::start(runtime, file.role, cluster, listener).await?;
    let address = handle.address();
    let stopped = async {
        match handle.stopped().await {
            Some(error) => error.to_string(),
            None => "it was told to end".to_owned(),
        }
    };
    run(args, address, stopped).await?;
    handle.shutdown().await;
    Ok(())
}

/// `situ executor`.
pub async fn executor(args: &RoleArgs) -> CliResult {
    let file = executor_file(&args.config)?;
    let program = std::env::current_exe()?;
    let listen = args.listen.unwrap_or(file.role.listen);
    let Start { runtime, cluster, listener } =
        Start::new(Role::Executor, Some(&file.role.node.0), &file.credentials, listen).await?;
    if args.format && executor::format(runtime.disk(), &file.role.directory, cluster)? {
        say_made("executor's directory", &file.role.directory);
    }
    let mut handle = Executor::start(runtime, file.role, cluster, program, listener).await?;
    let address = handle.address();
    let stopped = async {
        match handle.stopped().await {
            Some(error) => error.to_string(),
            None => "it hears nobody any more".to_owned(),
        }
    };
    run(args, address, stopped).await?;
    handle.shutdown().await;
    Ok(())
}

/// Says what `--format` has made: nobody shall have a disk in use without knowing it.
fn say_made(what: &str, directory: &Path) {
    show::note(format!("{}: an empty {what} was made", escaped(&directory.to_string_lossy())));
}

/// Says where the role listens, then waits until it is asked to end or must.
async fn run(args: &RoleArgs, address: SocketAddr, stopped: impl Future<Output = String>) -> CliResult {
    if args.supervised {
        show::line(serde_json::to_string(&Ready { listening: address })?)?;
    } else {
        show::note(format!("listening on {address}"));
    }
    let supervisor_gone = async { if args.supervised { end_of_input().await } else { std::future::pending().await } };
    let interrupt = Interrupt::listen();
    tokio::select! {
        reason = stopped => Err(CliError::failed(reason)),
        () = supervisor_gone => Ok(()),
        () = interrupt.wait() => Ok(()),
    }
}

/// How long a role may take to end when whoever watched it is gone.
const ORPHAN_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Waits until standard input ends: whoever started this process wants it to end, or is dead.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    // A thread of its own: a read of standard input cannot be given up.
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(len) if len > 0) {}
        // The process may be ending for another reason already.
        let _ = ended.send(());
        // Nobody watches any more: a role that hangs at its end must not be left behind.
        std::thread::sleep(ORPHAN_LIMIT);
        std::process::exit(1);
    });
    if end.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use situ_runtime::security::Authority;

    use super::*;

    #[test]
    fn the_paths_of_an_executor_hold_in_the_directories_of_its_jobs_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("executor.toml");
        let text = "credentials = 'certs/executor'\n[executor]\ndirectory = 'data'\nnode = 'node-1'\n\
                    namenode = '127.0.0.1:1'\nscheduler = '127.0.0.1:2'\nworker_credentials = 'certs/user'\n";
        std::fs::write(&path, text).unwrap();
        let file = executor_file(&path).unwrap();
        assert_eq!(file.credentials, directory.path().join("certs/executor"));
        assert_eq!(file.role.worker_credentials, Some(directory.path().join("certs/user")));
        assert_eq!(file.role.directory, std::env::current_dir().unwrap().join("data"));
        assert!(beside(Path::new("executor.toml"), Path::new("certs")).unwrap().is_absolute());
    }

    #[test]
    fn a_certificate_of_another_role_or_node_is_refused_at_the_start() {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let check = |role, node, certificate, name: &str| {
            let credentials = authority.issue(&[certificate], name).unwrap();
            check_identity(&credentials, Path::new("certs"), role, node)
        };
        check(Role::Namenode, None, Role::Namenode, "any").unwrap();
        check(Role::Datanode, Some("node-1"), Role::Datanode, "node-1").unwrap();
        let error = check(Role::Namenode, None, Role::User, "ann").unwrap_err();
        assert_eq!(
            error.message,
            "certs/node.pem: expected a certificate for namenode, found one for user \"ann\"; have one issued with `situ \
             ca issue --role namenode --name \"namenode\" --dir CA --out DIR`, and set `credentials` to that DIR"
        );
        let error = check(Role::Executor, Some("node-1"), Role::Executor, "node-2").unwrap_err();
        assert!(error.message.contains("executor \"node-1\", found one for executor \"node-2\""), "{error}");
    }

    #[test]
    fn a_configuration_is_read_as_it_was_written_and_what_is_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("namenode.toml");
        let config = NamenodeConfig::new("/data".into());
        std::fs::write(&path, RoleFile::to_table("namenode", Path::new("certs"), &config).unwrap().to_string())
            .unwrap();
        let file: RoleFile<NamenodeConfig> = RoleFile::load(&path, "namenode").unwrap();
        assert_eq!((file.role, file.credentials), (config, directory.path().join("certs")));
        for (text, expected) in [
            ("", "credentials: missing"),
            ("credentials = 1", "expected the path"),
            ("credentials = 'c'", "[namenode]: missing"),
            ("credentials = 'c'\n[namenode]\ndirectory = '/d'\n[x]\n", "x: not known"),
            (
                "credentials = 'c'\n[namenode]\ndirectory = '/d'\nlisten = 'localhost:1'\n",
                "expected an IP address and a port",
            ),
            ("credentials = 'c'\n[namenode]\ndirectroy = '/d'\n", "directroy"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = RoleFile::<NamenodeConfig>::load(&path, "namenode").unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
