//! A cluster of real processes for one test, gone with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use situ::fs::{PutOptions, cat_paths, put_reader};
use situ::session::Session;
use situ::up::{Cluster, ClusterOptions, Timings};
use situ_wire::messages::namenode::ClusterReport;
use situ_wire::path::DfsPath;

/// How long anything that must come about may take on a loaded machine. Reaching it is a failure, never a pass.
const LIMIT: Duration = Duration::from_secs(90);

/// A cluster that one test has for itself.
pub struct TestCluster {
    /// Its processes.
    pub cluster: Cluster,
    /// A client of it.
    pub session: Session,
    program: PathBuf,
    directory: tempfile::TempDir,
}

/// The options of a test's cluster in `directory`.
fn options(program: &Path, directory: &Path, nodes: u16, racks: u16) -> ClusterOptions {
    ClusterOptions {
        program: program.to_owned(),
        dir: directory.join("cluster"),
        datanodes: Some(nodes),
        racks: Some(racks),
        slots: Some(1),
        timings: Timings::Quick,
        block_len_bytes: Some(256 << 10),
    }
}

impl TestCluster {
    /// Starts `nodes` nodes in `racks` racks. `program` is the `situ` executable.
    pub async fn start(program: &str, nodes: u16, racks: u16) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = PathBuf::from(program);
        let cluster = Cluster::start(options(&program, directory.path(), nodes, racks)).await.expect("a cluster");
        let session = Session::from_config(&cluster.layout().client_config()).await.expect("a client");
        Self { cluster, session, program, directory }
    }

    /// Kills every process at once, as far as one after the other can, and keeps the directory.
    pub async fn kill_for_now(self) -> Stopped {
        let Self { mut cluster, session, program, directory } = self;
        let (nodes, racks) = (cluster.options().datanodes, cluster.options().racks);
        cluster.namenode.kill().await.expect("a killed namenode");
        cluster.scheduler.kill().await.expect("a killed scheduler");
        for node in &mut cluster.nodes {
            for process in node.datanode.iter_mut().chain(&mut node.executor) {
                process.kill().await.expect("a killed process");
            }
        }
        drop((cluster, session));
        Stopped { program, directory, nodes: nodes.unwrap_or(0), racks: racks.unwrap_or(1) }
    }

    /// As [`TestCluster::kill_for_now`], and starts the cluster again.
    pub async fn kill_all_and_restart(self) -> Self {
        self.kill_for_now().await.start().await.map_err(|(_, error)| error).expect("a cluster that comes back")
    }

    /// Ends the cluster in order and keeps its directory.
    pub async fn stop_for_now(self) -> Stopped {
        let Self { cluster, session, program, directory } = self;
        let (nodes, racks) = (cluster.options().datanodes, cluster.options().racks);
        drop(session);
        cluster.stop().await.expect("every process ends well");
        Stopped { program, directory, nodes: nodes.unwrap_or(0), racks: racks.unwrap_or(1) }
    }

    /// The directory that goes with the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stores bytes as a file.
    pub async fn put(&self, path: &str, bytes: &[u8]) {
        self.try_put(path, bytes).await.expect("a stored file");
    }

    /// Stores bytes as a file, or says why not.
    ///
    /// # Errors
    /// What the command line would say.
    pub async fn try_put(&self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let path = DfsPath::parse(path).map_err(|error| error.to_string())?;
        let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        let stored = put_reader(&self.session, reader, "bytes", &path, &PutOptions::default(), |_| ()).await;
        stored.map(|_| ()).map_err(|error| error.message)
    }

    /// All bytes of what a path or pattern names, or why there are none.
    ///
    /// # Errors
    /// What the command line would say.
    pub async fn read(&self, pattern: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        match cat_paths(&self.session, &[pattern.to_owned()], &mut bytes).await {
            Ok(()) => Ok(bytes),
            Err(error) => Err(error.message),
        }
    }

    /// Runs `situ` with arguments against this cluster, with `input` as its standard input.
    pub fn situ(&self, arguments: &[&str], input: &[u8]) -> Said {
        run(&self.program, Some(&self.directory.path().join("cluster")), arguments, input)
    }

    /// `situ` with arguments against this cluster, not started yet; all its streams are pipes.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(&self.program, Some(&self.directory.path().join("cluster")), arguments)
    }

    /// Waits until the state of the cluster is as wanted, and gives it.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&ClusterReport) -> bool) -> ClusterReport {
        let begun = Instant::now();
        loop {
            match self.session.client.report().await {
                Ok(report) if wanted(&report) => return report,
                last => assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}; the last state: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every block has all its replicas.
    pub async fn wait_whole(&self) -> ClusterReport {
        self.wait_for("every block whole", |report| {
            report.safe_mode.is_none() && report.under_replicated == 0 && report.missing == 0 && report.pending == 0
        })
        .await
    }

    /// Ends the cluster in order; everything must end well.
    pub async fn stop(self) {
        self.cluster.stop().await.expect("every process ends well");
    }
}

/// The directory of a cluster that does not run.
pub struct Stopped {
    program: PathBuf,
    directory: tempfile::TempDir,
    nodes: u16,
    racks: u16,
}

impl Stopped {
    /// Where the cluster lies.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("cluster")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// What the command line would say, and the directory as it is then.
    pub async fn start(self) -> Result<TestCluster, (Self, String)> {
        match Cluster::start(options(&self.program, self.directory.path(), self.nodes, self.racks)).await {
            Err(error) => Err((self, error.message)),
            Ok(cluster) => {
                let session = Session::from_config(&cluster.layout().client_config()).await.expect("a client");
                Ok(TestCluster { cluster, session, program: self.program, directory: self.directory })
            }
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Its standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Asserts that it was done.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Asserts that it failed with this exit code and that its message holds all of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in {:?}", self.err);
        }
        assert!(!self.err.contains("' panicked at"), "{}", self.err);
    }
}

fn command(program: &Path, cluster: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("SITU_CLUSTER");
    if let Some(cluster) = cluster {
        command.env("SITU_CLUSTER", cluster);
    }
    command
}

/// Runs a command to its end.
pub fn run(program: &Path, cluster: Option<&Path>, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = command(program, cluster, arguments).spawn().expect("the situ executable");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A command that fails early does not read all of it.
    let feed = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &input)));
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its end");
    feed.join().expect("a thread that only writes");
    Said { code: status.code(), out: stdout, err: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Bytes that depend on a seed alone.
#[must_use]
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}
