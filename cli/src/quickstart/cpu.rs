//! How much processor time a family of processes took.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Watches the processes of a cluster and all that they start, and remembers what each was last seen to have used, so
/// that one that is killed still counts.
#[derive(Debug)]
pub struct CpuWatch {
    roots: Vec<u32>,
    seen: Arc<Mutex<BTreeMap<u32, u64>>>,
    watch: tokio::task::JoinHandle<()>,
}

/// How often is looked; what a process uses between the last look and its end is not counted.
const PERIOD: Duration = Duration::from_millis(50);

impl CpuWatch {
    /// Watches `roots` and their descendants from now on.
    pub fn start(roots: Vec<u32>) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let (shared, watched) = (Arc::clone(&seen), roots.clone());
        let watch = tokio::spawn(async move {
            loop {
                look(&watched, &shared);
                tokio::time::sleep(PERIOD).await;
            }
        });
        Self { roots, seen, watch }
    }

    /// The seconds that all of them have used so far.
    pub fn seconds(&self) -> f64 {
        look(&self.roots, &self.seen);
        let ticks: u64 = self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

impl Drop for CpuWatch {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn look(roots: &[u32], seen: &Mutex<BTreeMap<u32, u64>>) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let mut parents = BTreeMap::new();
    let mut ticks = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between being listed and being read.
        let Some((parent, used)) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse) else {
            continue;
        };
        parents.insert(pid, parent);
        ticks.insert(pid, used);
    }
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (pid, used) in ticks {
        let mut at = pid;
        // A chain of parents is short; the bound guards against a pid that was reused while we read.
        for _ in 0..32 {
            if roots.contains(&at) {
                let entry = seen.entry(pid).or_insert(0);
                *entry = used.max(*entry);
                break;
            }
            match parents.get(&at) {
                Some(&parent) if parent > 1 => at = parent,
                _ => break,
            }
        }
    }
}

/// The parent and the ticks used, of a line of `/proc/PID/stat` (proc(5)): fields 4, 14 and 15; the second field is a
/// name in parentheses that may hold anything.
fn parse(stat: &str) -> Option<(u32, u64)> {
    let rest = &stat[stat.rfind(')')? + 2..];
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((fields.get(1)?.parse().ok()?, ticks))
}

/// The seconds of processor time that this thread has used.
pub fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse(stat), Some((7, 42)));
        assert_eq!(parse("rubbish"), None);
    }

    #[tokio::test]
    async fn work_shows() {
        let watch = CpuWatch::start(vec![std::process::id()]);
        let before = watch.seconds();
        let mut value = 1_u64;
        while watch.seconds() - before < 0.05 {
            for round in 0..1_000_000_u64 {
                value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(round));
            }
        }
        assert!(thread_seconds() > 0.0 && value != 0);
    }
}
