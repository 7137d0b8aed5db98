//! The run itself.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use situ_wire::messages::namenode::{ClusterReport, Liveness};
use situ_wire::messages::scheduler::{JobState, JobStatus, Program, StageOutput, StageStatus};
use situ_wire::path::DfsPath;

use super::count::WordCount;
use super::cpu::{CpuWatch, thread_seconds};
use super::report;
use super::text::TextMaker;
use crate::admin::whole_again;
use crate::args::QuickstartArgs;
use crate::error::{CliError, CliResult, LocalContext};
use crate::fs::{PutOptions, cat_paths, put_reader};
use crate::session::Session;
use crate::show::{self, Progress, human_size, rate};
use crate::up::{Cluster, ClusterOptions, Timings};
use crate::world::Interrupt;

/// How long the text is that is made when nobody brings one.
const TEXT_LEN_BYTES: u64 = 256 << 20;
/// Its seed: everybody counts the same words.
const TEXT_SEED: u64 = 2026;
/// How long its blocks are.
const BLOCK_LEN_BYTES: u64 = 16 << 20;
/// How many replicas each has.
const REPLICATION: u16 = 3;
/// How many nodes, in how many racks.
const NODES: u16 = 4;
const RACKS: u16 = 2;
/// How many parts the result has.
const REDUCERS: u32 = 4;

/// What the run has shown, for the report.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) input_len_bytes: u64,
    pub(super) words: u64,
    pub(super) top: Vec<(Vec<u8>, u64)>,
    pub(super) put: Duration,
    pub(super) count_cpu_s: f64,
    pub(super) count_wall: Duration,
    pub(super) job_cpu_s: f64,
    pub(super) job_wall: Duration,
    pub(super) job: JobStatus,
    pub(super) kill: Kill,
    pub(super) healed_after: Duration,
    pub(super) report: ClusterReport,
    pub(super) total: Duration,
}

/// The node that was killed.
#[derive(Debug)]
pub(super) struct Kill {
    pub(super) node: String,
    pub(super) at: Instant,
    /// How many replicas its datanode had.
    pub(super) replicas: u64,
    /// Whether the job ran: a very small one may be done before.
    pub(super) during_job: bool,
    /// The map stage at that moment.
    pub(super) stage: Option<StageStatus>,
}

/// `situ quickstart`.
///
/// # Errors
/// When any of it did not hold.
pub async fn run(args: &QuickstartArgs, json: bool) -> CliResult {
    let started = Instant::now();
    let interrupt = Interrupt::listen();
    let mut scratch = Scratch::new()?;
    let input = match &args.input {
        Some(path) => path.clone(),
        None => tokio::select! {
            biased;
            () = interrupt.wait() => return Err(CliError::failed("interrupted")),
            text = make_text(&scratch.path, json) => text?,
        },
    };
    // What cannot be read is said before anything is started.
    let file = File::open(&input).local("cannot read the input", &input)?;
    if file.metadata().local("cannot read the input", &input)?.is_dir() {
        return Err(CliError::failed(format!("{}: is a directory; expected a file", input.display())));
    }
    let options = ClusterOptions {
        program: std::env::current_exe()?,
        dir: args.keep.as_ref().unwrap_or(&scratch.path).join("cluster"),
        datanodes: Some(NODES),
        racks: Some(RACKS),
        slots: Some(1),
        timings: Timings::Quick,
        block_len_bytes: Some(BLOCK_LEN_BYTES),
    };
    let begun = Instant::now();
    let directory = options.dir.clone();
    let mut cluster = tokio::select! {
        cluster = Cluster::start(options) => cluster.inspect_err(|_| scratch.keep(&directory))?,
        () = interrupt.wait() => return Err(CliError::failed("interrupted")),
    };
    say(
        json,
        &format!(
            "cluster   1 namenode, 1 scheduler, {NODES} datanodes and {NODES} executors in {RACKS} racks, each a process, up in {:.1} s",
            begun.elapsed().as_secs_f64()
        ),
    );
    let outcome = tokio::select! {
        biased;
        () = interrupt.wait() => Err(CliError::failed("interrupted; everything is stopped")),
        outcome = tell(&mut cluster, &interrupt, &input, file, started, json) => {
            outcome.inspect_err(|_| scratch.keep(&directory))
        }
    };
    let stopped = cluster.stop().await;
    let outcome = outcome?;
    stopped.inspect_err(|_| scratch.keep(&directory))?;
    report::print(&outcome, json)?;
    if let Some(keep) = &args.keep {
        say(json, &format!("\nkept in {0}; start it again with `situ up --dir {0}/cluster`", keep.display()));
    }
    Ok(())
}

/// Everything between the start of the cluster and its end.
async fn tell(
    cluster: &mut Cluster,
    interrupt: &Interrupt,
    input: &Path,
    file: File,
    started: Instant,
    json: bool,
) -> CliResult<Outcome> {
    let session = Session::from_config(&cluster.layout().client_config()).await?;
    let session = Session { interrupt: interrupt.clone(), ..session };
    let (source, target) = (DfsPath::parse("/input.txt").map_err(CliError::failed)?, "/words");

    let len = file.metadata().local("cannot read", input)?.len();
    let progress = Progress::bytes("store", Some(len), !json);
    let begun = Instant::now();
    let options = PutOptions { force: true, replication: Some(REPLICATION), ..PutOptions::default() };
    let label = input.to_string_lossy();
    let stored = put_reader(&session, Box::new(file), &label, &source, &options, |more| progress.add(more)).await?;
    let put = begun.elapsed();
    progress.clear();
    say(
        json,
        &format!(
            "store     {} in blocks of {}, {REPLICATION} replicas, on disk: {:.2} s ({})",
            human_size(stored),
            human_size(BLOCK_LEN_BYTES),
            put.as_secs_f64(),
            rate(stored, put)
        ),
    );

    let (count, count_cpu_s, count_wall) = count_in_one_thread(input, stored, json).await?;
    say(
        json,
        &format!(
            "count     {} in one thread, to check against: {:.2} s ({:.2} s of processor time)",
            show::count(count.words(), "word"),
            count_wall.as_secs_f64(),
            count_cpu_s
        ),
    );

    // A directory that was kept from an earlier run holds its result.
    let output = DfsPath::parse(target).map_err(CliError::failed)?;
    session.client.delete(&output, true).await?;
    let (job, kill, job_cpu_s, job_wall) = run_job(cluster, &session, &source, target, json).await?;
    check(&session, target, &count).await?;
    say(json, "check     the result equals the count in one thread, byte for byte");

    let (report, healed_after) = heal(&session, &kill, json).await?;
    Ok(Outcome {
        input_len_bytes: stored,
        words: count.words(),
        top: count.top(10).into_iter().map(|(word, count)| (word.to_vec(), count)).collect(),
        put,
        count_cpu_s,
        count_wall,
        job_cpu_s,
        job_wall,
        job,
        healed_after,
        kill,
        report,
        total: started.elapsed(),
    })
}

/// Counts in a thread of its own, whose processor time is therefore that of the count alone.
async fn count_in_one_thread(input: &Path, len: u64, json: bool) -> CliResult<(WordCount, f64, Duration)> {
    let progress = Progress::bytes("count", Some(len), !json);
    let input = input.to_owned();
    let counted = tokio::task::spawn_blocking(move || -> CliResult<_> {
        let (begun, cpu) = (Instant::now(), thread_seconds());
        let file = File::open(&input).local("cannot read", &input)?;
        let count = WordCount::of(file, |more| progress.add(more)).local("cannot read", &input)?;
        Ok((count, thread_seconds() - cpu, begun.elapsed()))
    });
    counted.await?
}

/// Runs the word count and kills a node on the way.
async fn run_job(
    cluster: &mut Cluster,
    session: &Session,
    source: &DfsPath,
    target: &str,
    json: bool,
) -> CliResult<(JobStatus, Kill, f64, Duration)> {
    let scheduler = session.client.scheduler();
    let watch = CpuWatch::start(cluster.processes().filter_map(|process| process.pid()).collect());
    let (cpu, begun) = (watch.seconds(), Instant::now());
    let arguments = vec![source.as_str().to_owned(), target.to_owned(), "--reducers".to_owned(), REDUCERS.to_string()];
    let job = scheduler.submit(Program::BuiltIn { name: "wordcount".to_owned() }, arguments).await?;
    let bar = Progress::count("word count", 0, !json);
    let (mut killed, mut revision) = (None, 0);
    let status = loop {
        let status = scheduler.changed_status(job, revision, Duration::from_secs(10)).await?;
        revision = status.revision;
        let (done, tasks) = status
            .stages
            .iter()
            .fold((0, 0), |(done, tasks), stage| (done + u64::from(stage.done), tasks + u64::from(stage.tasks)));
        bar.set(done, tasks);
        if killed.is_none()
            && let Some(stage) = status.stages.iter().find(|stage| is_ripe(stage))
        {
            killed = kill(cluster, session, Some(stage.clone()), json, &bar).await?;
        }
        if status.summary.state.is_final() {
            break status;
        }
    };
    let (job_wall, job_cpu_s) = (begun.elapsed(), watch.seconds() - cpu);
    bar.clear();
    if status.summary.state != JobState::Succeeded {
        return Err(CliError::failed(format!(
            "the job ended with {:?}; what its processes wrote is in {}/node-*/executor",
            status.summary.state,
            cluster.layout().root().display()
        )));
    }
    say(json, &format!("job       done in {:.2} s ({job_cpu_s:.2} s of processor time)", job_wall.as_secs_f64()));
    let kill = match killed {
        Some(kill) => kill,
        None => {
            say(json, "kill      the job was too small to be killed in the middle; killing a node now");
            let late = kill(cluster, session, None, json, &bar).await?;
            late.ok_or_else(|| CliError::failed("no executor is alive to be killed"))?
        }
    };
    Ok((status, kill, job_cpu_s, job_wall))
}

/// Whether a map stage is well under way: some outputs are there to be lost, and tasks run.
fn is_ripe(stage: &StageStatus) -> bool {
    matches!(stage.output, StageOutput::Shuffle { .. }) && stage.running > 0 && stage.done * 5 >= stage.tasks * 2
}

/// Kills the datanode and the executor of the busiest node, as a power switch would.
async fn kill(
    cluster: &mut Cluster,
    session: &Session,
    stage: Option<StageStatus>,
    json: bool,
    bar: &Progress,
) -> CliResult<Option<Kill>> {
    let executors = session.client.scheduler().executors().await?;
    let live = executors.into_iter().filter(|executor| executor.liveness == Liveness::Live);
    let Some(victim) = live.max_by_key(|executor| executor.running) else { return Ok(None) };
    if stage.is_some() && victim.running == 0 {
        return Ok(None);
    }
    let name = victim.registration.node.0;
    let report = session.client.report().await?;
    let replicas = report.datanodes.iter().find(|node| node.location.node.0 == name).map_or(0, |node| node.replicas);
    let Some(node) = cluster.nodes.iter_mut().find(|node| node.name == name) else {
        return Err(CliError::failed(format!("{name}: the scheduler knows it, the cluster does not")));
    };
    let at = Instant::now();
    if let Some(mut executor) = node.executor.take() {
        executor.kill().await?;
    }
    if let Some(mut datanode) = node.datanode.take() {
        datanode.kill().await?;
    }
    let told = format!(
        "kill      {name} ({}): its datanode with {} and its executor, kill -9",
        node.rack,
        show::count(replicas, "replica")
    );
    bar.aside(|| say(json, &told));
    Ok(Some(Kill { node: name, at, replicas, during_job: stage.is_some(), stage }))
}

/// Checks the job's result against the count.
async fn check(session: &Session, target: &str, count: &WordCount) -> CliResult {
    let mut found = Vec::new();
    for part in 0..REDUCERS {
        let mut bytes = Vec::new();
        cat_paths(session, &[format!("{target}/part-{part:05}")], &mut bytes).await?;
        let lines: Vec<Vec<u8>> = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec())
            .collect();
        let word = |line: &[u8]| line.split(|byte| *byte == b'\t').next().unwrap_or_default().to_vec();
        if !lines.is_sorted_by(|left, right| word(left) < word(right)) {
            return Err(CliError::failed(format!("{target}/part-{part:05} is not sorted by word")));
        }
        found.extend(lines);
    }
    found.sort_unstable();
    let expected = count.lines();
    if found == expected {
        return Ok(());
    }
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    let at = differs.unwrap_or(found.len().min(expected.len()));
    let show =
        |lines: &[Vec<u8>]| lines.get(at).map_or("nothing".into(), |line| String::from_utf8_lossy(line).into_owned());
    Err(CliError::failed(format!(
        "WRONG RESULT: {} lines, expected {}; line {at} is {:?}, expected {:?}",
        found.len(),
        expected.len(),
        show(&found),
        show(&expected)
    )))
}

/// Waits until the dead node is known to be dead and every block has all its replicas again.
async fn heal(session: &Session, kill: &Kill, json: bool) -> CliResult<(ClusterReport, Duration)> {
    let progress = Progress::count("re-replicate", kill.replicas, !json);
    let report = whole_again(session, |report| {
        let known =
            report.datanodes.iter().any(|node| node.location.node.0 == kill.node && node.liveness == Liveness::Dead);
        if known {
            progress.set(kill.replicas.saturating_sub(report.under_replicated), kill.replicas);
        }
        known
    })
    .await?;
    let after = kill.at.elapsed();
    progress.clear();
    say(
        json,
        &format!(
            "heal      every block has its {REPLICATION} replicas again, {:.1} s after the kill",
            after.as_secs_f64()
        ),
    );
    Ok((report, after))
}

/// Makes the text, in a thread of its own: Ctrl-C is heard meanwhile.
async fn make_text(directory: &Path, json: bool) -> CliResult<PathBuf> {
    let path = directory.join("input.txt");
    let progress = Progress::bytes("make a text", Some(TEXT_LEN_BYTES), !json);
    let begun = Instant::now();
    // Before that thread: whoever takes the directory away has seen all that is in it.
    let file = File::create_new(&path).local("cannot write", &path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let made = tokio::task::spawn_blocking(move || {
        TextMaker::new(TEXT_SEED)
            .write(TEXT_LEN_BYTES, &mut out, |more| progress.add(more))
            .and_then(|()| std::io::Write::flush(&mut out))
    });
    made.await?.local("cannot write", &path)?;
    say(
        json,
        &format!(
            "input     a text of {}, made from seed {TEXT_SEED} in {:.1} s",
            human_size(TEXT_LEN_BYTES),
            begun.elapsed().as_secs_f64()
        ),
    );
    Ok(path)
}

/// One line of what happens, on standard output; nothing for a program that wants the result alone.
fn say(json: bool, text: &str) {
    if !json {
        // The exit code tells whether it held, also when nobody reads.
        let _ = show::line(text);
    }
}

/// Where the run has the text that it makes, and its cluster unless the person wants to keep that elsewhere. Gone at the
/// end, unless something has failed there.
struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    fn new() -> CliResult<Self> {
        let path = std::env::temp_dir().join(format!("situ-quickstart-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&path).local("cannot make", &path)?;
        let path = std::path::absolute(&path).local("cannot find", &path)?;
        Ok(Self { path, kept: false })
    }

    /// Something has failed: what the cluster wrote is left for whoever looks for the reason.
    fn keep(&mut self, cluster: &Path) {
        self.kept = cluster.starts_with(&self.path);
        show::note(format!("the cluster's directory is {}", cluster.display()));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            show::note(format!("{}: could not be removed: {error}", self.path.display()));
        }
    }
}
