//! Programs as newcomers write them give what one thread gives, while processes are killed and stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use situ::chaos::{Faults, schedule};
use situ::quickstart::text::TextMaker;
use situ::session::Session;
use situ_tests::harness::TestCluster;
use situ_wire::messages::scheduler::{JobState, Program};

use crate::SITU;

/// How many kills and pauses there are. They end earlier when all jobs have ended.
const KILLS: u32 = 8;
const PAUSES: u32 = 8;
/// How often a job may fail because too much of it was killed.
const ATTEMPTS: u32 = 20;
/// How long all may take on a loaded machine. Reaching it is a failure, never a pass.
const LIMIT: Duration = Duration::from_secs(300);

/// A program, and what it shall give.
struct Case {
    name: &'static str,
    executable: &'static str,
    /// Files of very different lengths.
    files: Vec<String>,
    arguments: &'static [&'static str],
    is_right: Box<dyn Fn(&str) -> bool + Send>,
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_under_fire_give_what_one_thread_gives() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    let cases = [k_means(), page_rank(), inverted_index(), sessions()];
    let mut stored = Vec::new();
    for case in &cases {
        let directory = format!("/{}", case.name);
        let _ = situ.situ(&["fs", "mkdir", &directory], b"").ok();
        for (number, text) in case.files.iter().enumerate() {
            situ.put(&format!("{directory}/{number:03}"), text.as_bytes()).await;
        }
        stored.push(store(&situ, case.executable).await);
    }
    let config = situ.cluster.layout().client_config();
    let session = Arc::new(Session::from_config(&config).await.unwrap());
    let under_way: Vec<_> = cases
        .iter()
        .zip(stored)
        .map(|(case, program)| {
            let (session, name, more) = (Arc::clone(&session), case.name, case.arguments);
            tokio::spawn(async move { run(&session, program, name, more).await })
        })
        .collect();
    let mut faults = Faults::new(&mut situ.cluster);
    for fault in schedule(11, KILLS, PAUSES, 4) {
        if under_way.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
        faults.inflict(&fault).await.unwrap();
    }
    let tally = faults.end().await.unwrap();
    for (case, job) in cases.iter().zip(under_way) {
        let output = tokio::time::timeout(LIMIT, job).await.expect("a job that ends").unwrap();
        let result = String::from_utf8(situ.read(&format!("{output}/part-*")).await.unwrap()).unwrap();
        assert!((case.is_right)(&result), "{}, after {tally:?}:\n{result}", case.name);
    }
}

/// Stores a program by running it once, with arguments with which it fails.
async fn store(situ: &TestCluster, executable: &str) -> Program {
    situ.situ(&["job", "submit", executable], b"").fails(1, &["usage: "]);
    situ.session.client.scheduler().list().await.unwrap()[0].program.clone()
}

/// Runs a program until it succeeds; gives where its result is.
async fn run(session: &Session, program: Program, name: &str, more: &[&str]) -> String {
    let mut reasons = Vec::new();
    for attempt in 0..ATTEMPTS {
        let output = format!("/out of {name} {attempt}");
        let mut arguments = vec![format!("/{name}"), output.clone()];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let scheduler = session.client.scheduler();
        let job = scheduler.submit(program.clone(), arguments).await.unwrap();
        let mut revision = 0;
        loop {
            let status = scheduler.changed_status(job, revision, Duration::from_secs(10)).await.unwrap();
            revision = status.revision;
            match status.summary.state {
                JobState::Succeeded => return output,
                JobState::Failed { reason } | JobState::Killed { reason } => {
                    assert!(!reason.contains("exists already"), "{job}: {reason}");
                    reasons.push(reason);
                    break;
                }
                JobState::Waiting | JobState::Running => {}
            }
        }
    }
    panic!("{name}: {reasons:?}");
}

/// Cuts lines into files: an empty one, one with a single line, and then each twice as long as the one before.
fn uneven(lines: &[String]) -> Vec<String> {
    let mut files = vec![String::new()];
    let (mut rest, mut len) = (lines, 1);
    while !rest.is_empty() {
        let (file, more) = rest.split_at(len.min(rest.len()));
        files.push(file.concat());
        (rest, len) = (more, len * 2);
    }
    files
}

/// Points whose coordinates are multiples of 1/64, so that their sums are exact in whatever order they are added.
fn k_means() -> Case {
    const CLUSTERS: usize = 4;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut points = Vec::new();
    for _ in 0..3_000 {
        let (x, y) = [(10, 10), (80, 15), (40, 90), (90, 80)][rng.usize(..4)];
        let mut near = |center: u32| f64::from(center * 64 + rng.u32(..1_500)) / 64.0;
        points.push((near(x), near(y)));
    }
    let lines: Vec<String> = points.iter().map(|(x, y)| format!("{x} {y}\n")).collect();
    let mut centers = points[..CLUSTERS].to_vec();
    loop {
        let mut sums = [((0.0, 0.0), 0_u32); CLUSTERS];
        for point in &points {
            let distance = |center: &(f64, f64)| (center.0 - point.0).hypot(center.1 - point.1);
            let nearest = (0..CLUSTERS)
                .min_by(|one, other| distance(&centers[*one]).total_cmp(&distance(&centers[*other])))
                .unwrap();
            let ((x, y), count) = sums[nearest];
            sums[nearest] = ((x + point.0, y + point.1), count + 1);
        }
        let means = sums.map(|((x, y), count)| (x / f64::from(count), y / f64::from(count)));
        if means == centers[..] {
            break;
        }
        centers = means.to_vec();
    }
    let expected: String = centers.iter().map(|(x, y)| format!("{x}\t{y}\n")).collect();
    Case {
        name: "points",
        executable: env!("CARGO_BIN_EXE_k_means"),
        files: uneven(&lines),
        arguments: &["4"],
        is_right: Box::new(move |result| result == expected),
    }
}

/// The order in which shares are added decides over the last bits: ranks may differ by so little.
fn page_rank() -> Case {
    const ROUNDS: u32 = 4;
    let mut rng = fastrand::Rng::with_seed(2);
    let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut lines = Vec::new();
    for _ in 0..1_500 {
        // Low numbers are linked to more often; some links are there twice.
        let (from, to) = (rng.u32(..200), rng.u32(..200).min(rng.u32(..200)));
        let (from, to) = (format!("page-{from}"), format!("page-{to}"));
        lines.push(format!("{from} {to}\n"));
        links.entry(from).or_default().insert(to);
    }
    let mut ranks: BTreeMap<String, f64> = links.keys().map(|page| (page.clone(), 1.0)).collect();
    for _ in 0..ROUNDS {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for (page, targets) in &links {
            let Some(rank) = ranks.get(page) else { continue };
            for target in targets {
                *sums.entry(target.clone()).or_default() += rank / targets.len() as f64;
            }
        }
        ranks = sums.into_iter().map(|(page, sum)| (page, 0.15 + 0.85 * sum)).collect();
    }
    Case {
        name: "links",
        executable: env!("CARGO_BIN_EXE_page_rank"),
        files: uneven(&lines),
        arguments: &["4"],
        is_right: Box::new(move |result| {
            let found: Vec<(&str, f64)> = result
                .lines()
                .map(|line| line.split_once('\t').unwrap())
                .map(|(page, rank)| (page, rank.parse().unwrap()))
                .collect();
            found.len() == ranks.len()
                && found
                    .iter()
                    .zip(&ranks)
                    .all(|(found, (page, rank))| found.0 == page && (found.1 - rank).abs() < rank * 1e-12)
        }),
    }
}

fn inverted_index() -> Case {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut maker = TextMaker::new(3);
    let mut index: BTreeMap<Vec<u8>, BTreeSet<String>> = BTreeMap::new();
    let mut files = Vec::new();
    for number in 0..40 {
        let (mut text, mut file) = (Vec::new(), String::new());
        maker.write(rng.u64(..3_000), &mut text, |_| ()).unwrap();
        for line in String::from_utf8(text).unwrap().lines() {
            let document = format!("document-{number}");
            file.push_str(&format!("{document} {line}\n"));
            for word in line.split_ascii_whitespace() {
                index.entry(word.as_bytes().to_vec()).or_default().insert(document.clone());
            }
        }
        files.push(file);
    }
    let mut expected = String::new();
    for (word, documents) in index {
        let documents: Vec<String> = documents.into_iter().collect();
        expected.push_str(&format!("{}\t{}\n", String::from_utf8(word).unwrap(), documents.join(" ")));
    }
    Case {
        name: "documents",
        executable: env!("CARGO_BIN_EXE_inverted_index"),
        files,
        arguments: &[],
        is_right: Box::new(move |result| result == expected),
    }
}

fn sessions() -> Case {
    let mut rng = fastrand::Rng::with_seed(4);
    let mut clicks: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    let mut lines = Vec::new();
    for _ in 0..4_000 {
        // Most clicks are of few users.
        let user = format!("user-{}", rng.u32(..60).min(rng.u32(..60)));
        let (time, page) = (rng.u64(..200_000), format!("/page/{}", rng.u8(..20)));
        lines.push(format!("{user} {time} {page}\n"));
        clicks.entry(user).or_default().push((time, page));
    }
    let mut expected = String::new();
    for (user, mut clicks) in clicks {
        clicks.sort();
        let mut begin = 0;
        for next in 1..=clicks.len() {
            if next == clicks.len() || clicks[next].0 - clicks[next - 1].0 >= 1_800 {
                let (first, last) = (&clicks[begin], &clicks[next - 1]);
                let line =
                    [first.0, last.0 - first.0, (next - begin) as u64].map(|number| number.to_string()).join("\t");
                expected.push_str(&format!("{user}\t{line}\t{}\t{}\n", first.1, last.1));
                begin = next;
            }
        }
    }
    Case {
        name: "clicks",
        executable: env!("CARGO_BIN_EXE_sessions"),
        files: uneven(&lines),
        arguments: &[],
        is_right: Box::new(move |result| result == expected),
    }
}
