//! Where everything of a cluster on one machine lies.
//!
//! ```text
//! DIR/cluster.json         which cluster it is, and its shape; written when the data directories of all of it are made
//! DIR/client.toml          what a client needs to find it (the other commands read it)
//! DIR/up.lock              held while the cluster runs
//! DIR/ca/                  the cluster's certificate authority
//! DIR/credentials/NAME/    the certificate of each process, and of `client`
//! DIR/config/NAME.toml     the configuration of each process, which may be edited: a start sets what it must
//! DIR/logs/NAME.log        what each process said
//! DIR/namenode/ scheduler/ node-1/ node-2/ ...    their data
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use situ_wire::ids::ClusterId;

use crate::error::{CliError, CliResult, LocalContext};

/// The version of the layout above.
const VERSION: u32 = 1;

/// The directory of a cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// Which cluster it is, and its shape: what `cluster.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The version of the layout.
    pub version: u32,
    /// The cluster, as 32 hexadecimal digits.
    pub cluster: String,
    /// How many datanodes, each with an executor.
    pub datanodes: u16,
    /// Among how many racks they are spread.
    pub racks: u16,
}

impl Layout {
    /// The cluster in `root`, which is made absolute.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn new(root: &Path) -> CliResult<Self> {
        let root = std::path::absolute(root).local("cannot find", root)?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a client needs.
    pub fn client_config(&self) -> PathBuf {
        self.root.join("client.toml")
    }

    /// The certificate authority.
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// Held while the cluster runs.
    pub fn lock(&self) -> PathBuf {
        self.root.join("up.lock")
    }

    /// The certificate of one process.
    pub fn credentials(&self, name: &str) -> PathBuf {
        self.root.join("credentials").join(name)
    }

    /// The configuration of one process.
    pub fn config(&self, name: &str) -> PathBuf {
        self.root.join("config").join(format!("{name}.toml"))
    }

    /// The log of one process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The data of the namenode, the scheduler or a node.
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The volume of a node's datanode.
    pub fn volume(&self, node: &str) -> PathBuf {
        self.data(node).join("volume-1")
    }

    /// The directory of a node's executor.
    pub fn executor(&self, node: &str) -> PathBuf {
        self.data(node).join("executor")
    }

    /// Whether it is a cluster of `situ up`, and not one made by hand.
    pub fn is_supervised(&self) -> bool {
        self.shape_file().exists()
    }

    fn shape_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Makes the directories that are not there.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn create(&self) -> CliResult {
        use std::os::unix::fs::DirBuilderExt;
        for directory in
            [self.root.clone(), self.root.join("config"), self.root.join("logs"), self.root.join("credentials")]
        {
            // Keys and data lie below: nobody else reads them.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .local("cannot make", &directory)?;
        }
        Ok(())
    }

    /// The shape that the cluster had; none if there is no cluster yet.
    ///
    /// # Errors
    /// When it cannot be read or is of another version.
    pub fn load_shape(&self) -> CliResult<Option<Shape>> {
        let path = self.shape_file();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.local("cannot read", &path)?,
        };
        let shape: Shape = serde_json::from_str(&text)
            .map_err(|error| CliError::failed(format!("{}: not a cluster's description: {error}", path.display())))?;
        if shape.version != VERSION {
            return Err(CliError::failed(format!(
                "{}: layout version {}, expected {VERSION}; it was made by another release",
                path.display(),
                shape.version
            )));
        }
        Ok(Some(shape))
    }

    /// Remembers the cluster's shape.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_shape(&self, cluster: ClusterId, datanodes: u16, racks: u16) -> CliResult {
        let shape = Shape { version: VERSION, cluster: cluster.to_string(), datanodes, racks };
        let text = serde_json::to_string_pretty(&shape)?;
        write_atomically(&self.shape_file(), text.as_bytes())
    }
}

/// Puts a small file in place, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> CliResult {
    let aside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let file = std::fs::File::create(&aside)?;
        std::io::Write::write_all(&mut &file, bytes)?;
        file.sync_all()?;
        place(&aside, path)
    };
    write().local("cannot write", path)
}

/// Has `fill` make a directory of small files, and puts it in place whole or not at all. What an attempt that was cut
/// off has left aside is nobody's.
///
/// # Errors
/// When it cannot be made, or is there already and not empty.
pub fn fill_atomically<E>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> CliResult
where
    CliError: From<E>,
{
    let aside = path.with_extension("new");
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.local("cannot remove", &aside)?,
    }
    fill(&aside)?;
    place(&aside, path).local("cannot write", path)
}

/// Gives what is written aside its name, for good.
fn place(aside: &Path, path: &Path) -> std::io::Result<()> {
    if aside.is_dir() {
        std::fs::File::open(aside)?.sync_all()?;
    }
    std::fs::rename(aside, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_filled_in_part_is_filled_anew() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("node-1");
        let write = |directory: &Path, name: &str| {
            std::fs::create_dir_all(directory)?;
            std::fs::File::create_new(directory.join(name)).map(drop)
        };
        let cut_off = fill_atomically(&path, |aside| {
            write(aside, "node.key")?;
            Err(std::io::Error::other("cut off"))
        });
        assert!(cut_off.is_err() && !path.exists());
        fill_atomically(&path, |aside| write(aside, "node.key").and_then(|()| write(aside, "node.pem"))).unwrap();
        assert!(path.join("node.key").exists() && path.join("node.pem").exists());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
