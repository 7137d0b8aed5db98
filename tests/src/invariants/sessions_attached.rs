//! A job whose driver runs at its client lives as long as that, and leaves nothing behind when it is gone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use situ_compute::program::Session;
use situ_compute::program::environment::{Environment, ProcessRole};
use situ_tests::asked;
use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobOptions, JobState, JobStatus};
use situ_wire::path::DfsPath;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::SITU;
use crate::following::{LIMIT, follow, stored, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hard-cases");
/// How long a cluster of quick timings waits for a client, and a little for a loaded machine.
const SILENCE: Duration = Duration::from_secs(4);
const SLACK: Duration = Duration::from_secs(8);

/// `situ job submit --client` in a terminal.
struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    job: JobId,
}

impl Terminal {
    /// Starts the program; it is known which job it drives, and that runs.
    async fn open(situ: &TestCluster, arguments: &[&str]) -> Self {
        let newest = async || situ.session.client.scheduler().list().await.unwrap().first().map(|job| job.job);
        let before = newest().await;
        let mut command = situ.command(&[&["job", "submit", "--client", PROGRAM], arguments].concat());
        command.stdin(Stdio::piped());
        let mut child = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let job = until("it is submitted", async || newest().await.filter(|job| Some(*job) != before)).await;
        follow(situ, job, |status| status.summary.state == JobState::Running).await;
        Self { child, input, output, job }
    }

    async fn ask(&mut self, line: &str) {
        self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Option<String> {
        timeout(LIMIT, self.output.next_line()).await.expect("an answer").unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit code, and what it wrote to standard error.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut errors = self.child.stderr.take().unwrap();
        timeout(LIMIT, errors.read_to_string(&mut said)).await.expect("it ends").unwrap();
        (self.child.wait().await.unwrap().code(), said)
    }
}

/// Waits for the end of a job.
async fn ended(situ: &TestCluster, job: JobId) -> JobStatus {
    let end = follow(situ, job, |status| status.summary.state.is_final());
    timeout(LIMIT, end).await.expect("the job ends")
}

fn is_failed_for_silence(state: &JobState) -> bool {
    matches!(state, JobState::Failed { reason } if reason.contains("its client has not been heard for 4 s"))
}

/// Saves at `/out`; one of two tasks is done and has written aside, the other waits.
async fn saving(situ: &TestCluster) -> Terminal {
    let go = situ.directory().join("never");
    let saving = Terminal::open(situ, &["save-slowly", "/out", go.to_str().unwrap()]).await;
    follow(situ, saving.job, |status| status.stages.iter().any(|stage| stage.done == 1 && stage.running == 1)).await;
    assert!(situ.session.client.exists(&DfsPath::parse("/out/_temporary").unwrap()).await.unwrap(), "it writes aside");
    saving
}

/// Waits until nothing is left of what the job wrote, and no process of it.
async fn nothing_is_left(situ: &TestCluster) {
    let (client, output) = (&situ.session.client, DfsPath::parse("/out").unwrap());
    until("its output is taken away", async || (!client.exists(&output).await.unwrap()).then_some(())).await;
    let executors = async || situ.session.client.scheduler().executors().await.unwrap();
    until("its tasks end", async || executors().await.iter().all(|one| one.running == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_before_the_input_ends() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let mut terminal = Terminal::open(&situ, &["answers"]).await;
    for (question, answer) in [("10", "45"), ("100", "4950")] {
        terminal.ask(question).await;
        assert_eq!(terminal.answer().await.as_deref(), Some(answer));
    }
    // Its user thinks for longer than a client may be silent.
    tokio::time::sleep(SILENCE + Duration::from_secs(2)).await;
    terminal.ask("3").await;
    assert_eq!(terminal.answer().await.as_deref(), Some("3"));
    let job = terminal.job;
    let shown = situ.situ(&["job", "status", &job.to_string()], b"").ok().text();
    assert!(shown.contains("driver     attached client of "), "{shown}");
    terminal.input = None;
    assert_eq!(terminal.answer().await, None, "nothing else is written to its standard output");
    let (code, said) = terminal.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ended(&situ, job).await.summary.state, JobState::Succeeded);
    let logs = situ.situ(&["job", "logs", &job.to_string()], b"").ok();
    assert!(logs.err.contains("its driver ran at its client"), "{logs:?}");

    // What the program says is said, and its end is that of the command.
    let mut terminal = Terminal::open(&situ, &["answers"]).await;
    terminal.ask("many").await;
    let job = terminal.job;
    let (code, said) = terminal.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: \"many\": invalid digit"), "{said}");
    let state = ended(&situ, job).await.summary.state;
    assert!(matches!(&state, JobState::Failed { reason } if reason.contains("invalid digit")), "{state:?}");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_takes_its_job_along() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let mut terminal = saving(&situ).await;
    let killed = Instant::now();
    terminal.child.kill().await.unwrap();
    let status = ended(&situ, terminal.job).await;
    assert!(is_failed_for_silence(&status.summary.state), "{status:?}");
    assert!(killed.elapsed() < SILENCE + SLACK, "after {:?}", killed.elapsed());
    nothing_is_left(&situ).await;
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stood_still_hears_that_its_job_is_gone() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    for asks in [false, true] {
        // It waits for an action, or for its user.
        let terminal = if asks { Terminal::open(&situ, &["answers"]).await } else { saving(&situ).await };
        terminal.signal(Signal::STOP);
        let status = ended(&situ, terminal.job).await;
        assert!(is_failed_for_silence(&status.summary.state), "{status:?}");
        terminal.signal(Signal::CONT);
        let (code, said) = terminal.end().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("its client has not been heard for 4 s"), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "it is said once: {said}");
    }
    nothing_is_left(&situ).await;
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_the_client_ends_its_job() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    // Ctrl-C, `kill`, and a terminal that is closed.
    for (signal, ends_with) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let terminal = saving(&situ).await;
        let (job, asked) = (terminal.job, Instant::now());
        terminal.signal(signal);
        let (code, said) = terminal.end().await;
        assert_eq!(code, Some(ends_with), "{said}");
        assert!(said.contains(&format!("interrupted; {job} is ended")), "{said}");
        // At once: the scheduler has answered that it is so.
        let state = situ.session.client.scheduler().status(job).await.unwrap().summary.state;
        assert_eq!(state, JobState::Killed { reason: "interrupted at its client".to_owned() }, "{:?}", asked.elapsed());
        nothing_is_left(&situ).await;
    }

    // And whoever ends the job ends the client, though it waits for its user.
    let terminal = Terminal::open(&situ, &["answers"]).await;
    let _ = situ.situ(&["job", "kill", &terminal.job.to_string()], b"").ok();
    let (code, said) = terminal.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("killed by its user"), "{said}");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_scheduler() {
    let mut situ = TestCluster::start(SITU, 2, 1).await;
    let mut terminal = Terminal::open(&situ, &["answers"]).await;
    terminal.ask("10").await;
    assert_eq!(terminal.answer().await.as_deref(), Some("45"));
    for question in [20_u64, 30] {
        situ.cluster.scheduler.kill().await.unwrap();
        terminal.ask(&question.to_string()).await;
        situ.cluster.scheduler.restart().await.unwrap();
        assert_eq!(terminal.answer().await, Some((question * (question - 1) / 2).to_string()));
    }
    let job = terminal.job;
    terminal.input = None;
    let (code, said) = terminal.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ended(&situ, job).await.summary.state, JobState::Succeeded);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_attaches_itself_and_what_cannot_be_run_here_leaves_no_job() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let program = stored(&situ, PROGRAM, &["no case"]).await;
    let (client, scheduler) = (&situ.session.client, situ.session.client.scheduler());
    let submitted = scheduler.submit_attached(program, vec!["answers".to_owned()], JobOptions::default());
    let (job, attachment) = submitted.await.unwrap();
    let config = client.config();
    let environment = Environment {
        role: ProcessRole::Driver { attempt: attachment.attempt },
        job,
        secret: attachment.secret,
        user: client.connector().identity().name.clone(),
        scheduler: config.scheduler.unwrap(),
        namenode: config.namenode,
        cluster: config.cluster,
        node: None,
        credentials: config.credentials.clone(),
        check_replay: false,
        build: None,
    };
    let handle = tokio::runtime::Handle::current();
    let drive = move || {
        let session = Session::attach(environment, &handle).unwrap();
        for end in [10, 100] {
            let question = asked::next(session.context(), || Some(format!("{end}"))).unwrap();
            assert_eq!(
                asked::sum_below(session.context(), question.unwrap().parse().unwrap()).unwrap(),
                end * (end - 1) / 2
            );
        }
        session.end(None).unwrap();
    };
    timeout(LIMIT, tokio::task::spawn_blocking(drive)).await.expect("it ends").unwrap();
    assert_eq!(ended(&situ, job).await.summary.state, JobState::Succeeded);

    // An executable that this user may not execute.
    let path = situ.directory().join("not-executable");
    std::fs::write(&path, std::fs::read(PROGRAM).unwrap()).unwrap();
    let said = situ.situ(&["job", "submit", "--client", "--task-limit", "10m", path.to_str().unwrap()], b"");
    said.fails(1, &["not-executable: cannot be run here: Permission denied"]);
    let job = scheduler.list().await.unwrap()[0].job;
    let state = scheduler.status(job).await.unwrap().summary.state;
    assert!(matches!(&state, JobState::Killed { reason } if reason.contains("Permission denied")), "{state:?}");
    let shown = situ.situ(&["job", "status", &job.to_string()], b"").ok().text();
    assert!(shown.contains("task limit 10m"), "{shown}");
    situ.stop().await;
}
