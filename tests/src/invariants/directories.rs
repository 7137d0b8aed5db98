//! What a role keeps on its disks is made once. A directory that is gone, empty or damaged is never taken for a new one,
//! and who starts without it says so.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use situ_tests::harness::{TestCluster, bytes, run};
use situ_wire::messages::namenode::{ClusterReport, DatanodeStatus, Liveness};

use crate::SITU;

/// How long anything that must come about may take. Reaching it is a failure, never a pass.
const LIMIT: Duration = Duration::from_secs(90);

/// A command that runs on.
struct Running {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Running {
    /// Starts `situ`, and waits for the first line of its standard output.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut command = Command::new(SITU);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        (Self { child, said }, first)
    }

    /// Waits for a line of its standard error that holds all of `words`.
    #[track_caller]
    fn says(&self, words: &[&str]) {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| words.iter().all(|word| line.contains(word))) {
            match self.said.recv_timeout(LIMIT) {
                Ok(line) => lines.push(line),
                Err(_) => panic!("{words:?} was not said: {lines:#?}"),
            }
        }
    }

    /// Asks it to end, as Ctrl-C would.
    fn stop(mut self) {
        kill("-INT", self.child.id().into());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, pid: u64) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Takes a directory away, as if its disk was not mounted, and leaves an empty mount point.
struct Unmounted {
    directory: PathBuf,
    elsewhere: PathBuf,
}

impl Unmounted {
    fn new(directory: PathBuf) -> Self {
        let elsewhere = directory.with_extension("unmounted");
        std::fs::rename(&directory, &elsewhere).unwrap();
        std::fs::create_dir_all(directory.join("lost+found")).unwrap();
        Self { directory, elsewhere }
    }

    /// What was put there meanwhile, but for what a file system puts there.
    fn found(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name != "lost+found").collect()
    }

    fn mount(self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
        std::fs::rename(&self.elsewhere, &self.directory).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_role_whose_directory_is_gone_says_so_and_comes_back_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("cluster");
    let up = ["--json", "up", "--dir", text(&root), "--datanodes", "2"];
    let (cluster, first) = Running::start(&up);
    let pid = |first: &str, name: &str| {
        let ready: serde_json::Value = serde_json::from_str(first).unwrap();
        let processes = ready["processes"].as_array().unwrap().clone();
        processes.iter().find(|process| process["name"] == name).and_then(|process| process["pid"].as_u64())
    };
    let situ = |arguments: &[&str], input: &[u8]| run(SITU.as_ref(), Some(&root), arguments, input);
    let content = bytes(1, 300_000);
    let _ = situ(&["fs", "put", "-", "/kept"], &content).ok();
    for (role, name) in [("namenode", "namenode"), ("scheduler", "scheduler"), ("executor-node-1", "node-1/executor")] {
        let away = Unmounted::new(root.join(name));
        kill("-KILL", pid(&first, role).unwrap());
        cluster.says(&[text(&away.directory), "expected its VERSION file", "mount it", "--format"]);
        // That is no end: it is tried again.
        cluster.says(&["expected its VERSION file"]);
        assert_eq!(away.found(), Vec::<String>::new(), "{role}");
        away.mount();
        cluster.says(&[role, "is back"]);
    }
    // A datanode without its only volume ends by itself.
    let away = Unmounted::new(root.join("node-2/volume-1"));
    cluster.says(&[text(&away.directory), "expected its VERSION file, found an empty directory"]);
    assert_eq!(situ(&["fs", "cat", "/kept"], b"").ok().out, content);
    // Nor does a start of the whole cluster make one of it: that goes on with the others.
    cluster.stop();
    let (cluster, first) = Running::start(&up);
    cluster.says(&[text(&away.directory), "expected its VERSION file"]);
    assert_eq!(pid(&first, "datanode-node-2"), None, "{first}");
    assert_eq!(situ(&["fs", "cat", "/kept"], b"").ok().out, content);
    assert_eq!(away.found(), Vec::<String>::new());
    away.mount();
    cluster.says(&["datanode-node-2", "is back"]);
    cluster.stop();
}

#[tokio::test]
async fn a_cluster_that_was_made_in_part_is_made_to_the_end_and_one_that_grows_too() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let id = situ.cluster.id();
    let content = bytes(2, 300_000);
    situ.put("/kept", &content).await;
    let stopped = situ.stop_for_now().await;
    // As if it had been cut off before all was made.
    for file in ["cluster.json", "client.toml"] {
        std::fs::remove_file(stopped.root().join(file)).unwrap();
    }
    std::fs::remove_dir_all(stopped.root().join("node-2/executor")).unwrap();
    let situ = stopped.start().await.map_err(|(_, error)| error).unwrap();
    assert_eq!((situ.cluster.id(), situ.read("/kept").await.unwrap()), (id, content));
    let root = situ.cluster.layout().root().to_owned();
    let stopped = situ.stop_for_now().await;
    let grown = ["--json", "up", "--dir", text(&root), "--datanodes", "3"];
    let (cluster, first) = Running::start(&grown);
    assert!(first.contains("datanode-node-3"), "{first}");
    cluster.stop();
    // One that is not mounted counts as one that is there.
    let away = Unmounted::new(root.join("node-3"));
    std::fs::remove_dir_all(root.join("node-3")).unwrap();
    let fewer = ["up", "--dir", text(&root), "--datanodes", "2"];
    run(SITU.as_ref(), None, &fewer, b"").fails(1, &["node-3 would be left out", "as there were, 3"]);
    std::fs::rename(&away.elsewhere, &away.directory).unwrap();
    drop(stopped);
}

/// The datanode of the first node with two volumes, started by hand.
struct ByHand {
    config: PathBuf,
    volumes: [PathBuf; 2],
}

impl ByHand {
    /// Ends the first datanode of a cluster and takes its place.
    async fn instead_of_first(situ: &mut TestCluster) -> Self {
        situ.cluster.nodes[0].datanode.take().unwrap().stop().await.unwrap();
        let layout = situ.cluster.layout();
        let volumes = [layout.data("node-1").join("volume-1"), situ.directory().join("volume-2")];
        let text = std::fs::read_to_string(layout.config("datanode-node-1")).unwrap();
        let [first, both] = [&volumes[..1], &volumes[..]].map(|volumes| format!("{volumes:?}"));
        assert!(text.contains(&first), "{text}");
        let config = situ.directory().join("datanode.toml");
        std::fs::write(&config, text.replace(&first, &both)).unwrap();
        Self { config, volumes }
    }

    /// Starts it, and waits until it listens.
    fn start(&self, more: &[&str]) -> Running {
        let arguments = [&["datanode", "--supervised", "--config", text(&self.config)], more].concat();
        let (running, first) = Running::start(&arguments);
        assert!(first.contains("listening"), "{first} {:?}", running.said.iter().collect::<Vec<_>>());
        running
    }
}

fn on_first(report: &ClusterReport) -> Vec<&DatanodeStatus> {
    report.datanodes.iter().filter(|datanode| datanode.location.node.0 == "node-1").collect()
}

fn failed(datanode: &DatanodeStatus) -> usize {
    datanode.volumes.iter().filter(|volume| volume.failed.is_some()).count()
}

#[tokio::test]
async fn a_volume_that_is_not_mounted_or_damaged_is_out_of_use_and_its_datanode_serves_the_others() {
    let mut situ = TestCluster::start(SITU, 1, 1).await;
    let by_hand = ByHand::instead_of_first(&mut situ).await;
    let content = bytes(3, 300_000);
    // (What the second volume shall be, and what is said of it.)
    let second = by_hand.volumes[1].clone();
    let version = second.join("VERSION");
    let live = |volumes: usize, out_of_use: usize| {
        move |report: &ClusterReport| {
            let on_first = on_first(report);
            on_first.len() == 1
                && on_first[0].liveness == Liveness::Live
                && on_first[0].volumes.len() == volumes
                && failed(on_first[0]) == out_of_use
        }
    };
    // A new disk: nothing is made of it without being told to.
    let datanode = by_hand.start(&[]);
    situ.wait_for("a volume out of use", live(2, 1)).await;
    let report = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(report.contains("is out of use") && report.contains("found no such directory"), "{report}");
    situ.put("/kept", &content).await;
    datanode.stop();
    assert!(!second.exists());
    let datanode = by_hand.start(&["--format"]);
    datanode.says(&[text(&second), "an empty volume was made"]);
    situ.wait_for("two volumes", live(2, 0)).await;
    let written = situ.read("/kept").await.unwrap();
    assert!(written == content);
    datanode.stop();
    // Its VERSION file is cut to nothing, as after a power cut on a bad disk.
    let whole = std::fs::read(&version).unwrap();
    std::fs::write(&version, b"").unwrap();
    let datanode = by_hand.start(&[]);
    situ.wait_for("a damaged volume", live(2, 1)).await;
    let report = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(report.contains("its VERSION file: it does not begin with"), "{report}");
    assert!(situ.read("/kept").await.unwrap() == content);
    datanode.stop();
    std::fs::write(&version, whole).unwrap();
    // Without any volume it does not start.
    let away = by_hand.volumes.clone().map(Unmounted::new);
    let start = ["datanode", "--config", text(&by_hand.config)];
    run(SITU.as_ref(), None, &start, b"")
        .fails(1, &["expected its VERSION file, found an empty directory", "mount it"]);
    for away in away {
        assert_eq!(away.found(), Vec::<String>::new());
        away.mount();
    }
    let datanode = by_hand.start(&[]);
    situ.wait_for("both are back", live(2, 0)).await;
    assert!(situ.read("/kept").await.unwrap() == content);
    datanode.stop();
    situ.stop().await;
}

#[tokio::test]
async fn a_node_with_fresh_disks_takes_the_place_of_what_it_was_at_once() {
    let mut situ = TestCluster::start(SITU, 2, 1).await;
    let content = bytes(4, 300_000);
    situ.put("/kept", &content).await;
    let by_hand = ByHand::instead_of_first(&mut situ).await;
    let old = by_hand.volumes.clone();
    std::fs::create_dir(&old[1]).unwrap();
    let away = old.map(Unmounted::new);
    let datanode = by_hand.start(&["--format"]);
    let two_ids = |report: &ClusterReport| on_first(report).len() == 2;
    let report = situ.wait_for("a fresh datanode", two_ids).await;
    let states = |report: &ClusterReport| on_first(report).iter().map(|node| node.liveness).collect::<Vec<_>>();
    assert_eq!(states(&report), [Liveness::Dead, Liveness::Live], "the older one is out at once");
    let ids: Vec<String> = on_first(&report).iter().map(|node| node.location.id.to_string()).collect();
    let log = std::fs::read_to_string(situ.cluster.layout().log("namenode")).unwrap();
    let warning = log.lines().find(|line| line.contains("held to be dead therefore")).expect("a warning");
    assert!(ids.iter().all(|id| warning.contains(id)) && warning.contains("mount them"), "{warning}");
    assert!(situ.read("/kept").await.unwrap() == content);
    datanode.stop();
    // It was not meant: the old disks are mounted, and the old datanode takes its place back.
    away.into_iter().for_each(Unmounted::mount);
    let datanode = by_hand.start(&[]);
    let back = |report: &ClusterReport| states(report) == [Liveness::Live, Liveness::Dead];
    situ.wait_for("the old one is back", back).await;
    assert!(situ.read("/kept").await.unwrap() == content);
    datanode.stop();
    situ.stop().await;
}
