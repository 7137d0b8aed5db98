//! Processes and what they have started, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal};

/// All that a process has started, and what that has started, but not what is dead and waits for its parent.
///
/// A process whose parent has ended belongs to the nearest subreaper above it: of a subreaper nothing is missing here.
pub(super) fn descendants(of: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<(i32, bool)>> = BTreeMap::new();
    for pid in pids() {
        // It may have ended since.
        let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).ok() else { continue };
        let Some((parent, dead)) = parent_of(&stat) else { continue };
        children.entry(parent).or_default().push((pid, dead));
    }
    let mut found = Vec::new();
    let mut open = vec![of.as_raw_nonzero().get()];
    while let Some(parent) = open.pop() {
        for (pid, dead) in children.remove(&parent).unwrap_or_default() {
            open.push(pid);
            found.extend(Pid::from_raw(pid).filter(|_| !dead));
        }
    }
    found
}

/// Kills all that a process has started, as far as it is there now.
pub(super) fn kill_descendants(of: Pid) {
    descendants(of).into_iter().for_each(kill);
}

/// Kills all processes that were started with the environment variable `name` set to `value`, and that left it so.
pub(super) fn kill_marked(name: &str, value: &str) {
    let marker = format!("{name}={value}");
    for pid in pids() {
        // Those of other users cannot be read, nor be killed.
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
            && let Some(pid) = Pid::from_raw(pid)
        {
            kill(pid);
        }
    }
}

/// How much memory a process has in use; none if it is gone.
pub(super) fn resident_bytes(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

fn kill(pid: Pid) {
    // That it has ended by itself meanwhile is no error.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// The parent in a line of `/proc/PID/stat` (proc(5)), and whether the process is dead: the fields behind its name, which
/// stands in parentheses and may hold anything.
fn parent_of(stat: &str) -> Option<(i32, bool)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        assert_eq!(parent_of("42 (a) b (c) S 7 42 42 0 -1"), Some((7, false)));
        assert_eq!(parent_of("42 (sleep) Z 7 42 42 0 -1"), Some((7, true)));
        assert_eq!(parent_of("rubbish"), None);
    }
}
