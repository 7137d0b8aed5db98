//! A command's way to its cluster: which one, and a client of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use situ_client::{Client, ClientConfig};
use situ_runtime::real::RealRuntime;

use crate::error::{CliError, CliResult, LocalContext};
use crate::up::{Layout, running};
use crate::world::{self, Interrupt};

/// For how long a command waits for a namenode or scheduler that is away: longer than safe mode lasts when a replica is
/// missing for good.
const PATIENCE_MS: u64 = 45_000;

/// The permission bits of new directories.
pub const DIRECTORY_MODE: u16 = 0o755;

/// A client of the cluster that the command is for.
pub struct Session {
    /// The client.
    pub client: Client<RealRuntime>,
    /// Whether the command has been asked to end.
    pub interrupt: Interrupt,
    /// The file that says where the cluster is.
    pub config: PathBuf,
}

impl Session {
    /// Finds the cluster: the directory that was named, else the only one running here.
    ///
    /// # Errors
    /// When there is none, or more than one, or its configuration cannot be used.
    pub async fn open(cluster: Option<&Path>) -> CliResult<Self> {
        let directory = match cluster {
            Some(directory) => directory.to_owned(),
            None => only_running()?,
        };
        // A directory of `situ up`, or one made by hand that holds a `client.toml`.
        let layout = Layout::new(&directory)?;
        let path = if directory.is_file() { directory.clone() } else { layout.client_config() };
        let shown = directory.display();
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CliError::failed(format!(
                    "{shown}: no cluster is there: expected a file client.toml; start one with `situ up --dir {shown}`"
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(CliError::failed(format!(
                    "{}: permission denied: the directory of a cluster is its owner's; ask them for a certificate (`situ \
                     ca issue`) and a client.toml of your own, and name its directory with --cluster",
                    path.display()
                )));
            }
            found => found.local("cannot read", &path)?,
        };
        if layout.is_supervised() && !running::is_running(layout.root()) {
            return Err(CliError::failed(format!(
                "{shown}: this cluster is not running: start it with `situ up --dir {shown}`"
            )));
        }
        Self::from_config(&path).await
    }

    /// A client as the file at `path` describes it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub async fn from_config(path: &Path) -> CliResult<Self> {
        let bare = world::runtime(None)?;
        let mut config = ClientConfig::load(&bare, path).await?;
        // Paths in a configuration are taken from where it lies.
        if let Some(credentials) = &mut config.credentials
            && let Some(beside) = path.parent()
        {
            *credentials = beside.join(&*credentials);
        }
        config.patience_ms = config.patience_ms.min(PATIENCE_MS);
        let runtime = world::runtime(config.credentials.as_deref())?;
        let identity = config.user(world::user_name());
        let told = std::sync::atomic::AtomicBool::new(false);
        let observer = Arc::new(move |waiting: &situ_client::Waiting<'_>| {
            if !told.swap(true, std::sync::atomic::Ordering::Relaxed) {
                crate::show::note(waiting.to_string());
            }
        });
        let client = Client::with_observer(runtime, config, identity, observer);
        Ok(Self { client, interrupt: Interrupt::default(), config: path.to_owned() })
    }

    /// Looks where the servers are now, as the configuration says that by this time; whether one of them has moved. A
    /// configuration that cannot be read, as when the cluster's directory is away with it, moves nothing.
    pub async fn find_again(&self) -> bool {
        let config = ClientConfig::load(self.client.runtime(), &self.config).await;
        config.is_ok_and(|config| self.client.moved_to(&config))
    }
}

/// The only cluster that runs on this machine under this user.
fn only_running() -> CliResult<PathBuf> {
    let mut found = running::list()?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(CliError::failed(
            "no cluster is running here: start one with `situ up --dir DIR`, or name its directory with --cluster DIR",
        )),
        (Some(last), _) => {
            found.push(last);
            let list: String = found.iter().map(|directory| format!("\n  {}", directory.display())).collect();
            Err(CliError::usage(format!("several clusters are running: name one with --cluster DIR:{list}")))
        }
    }
}
