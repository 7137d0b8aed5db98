//! How much memory this machine has for what it runs.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory of this machine in bytes, or of the control group that this process runs in, if that has less (cgroups(7),
/// version 2: `memory.max` of the group and of those around it).
pub(super) fn memory_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    let all = u64::from(system.mem_unit).saturating_mul(system.totalram);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group(&groups)
        .and_then(|group| limit_bytes(Path::new("/sys/fs/cgroup"), &group))
        .map_or(all, |limit| limit.min(all))
}

/// The group of version 2 in the text of `/proc/PID/cgroup`.
fn group(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The lowest limit of a group below `root` and of those around it, if there is one.
fn limit_bytes(root: &Path, group: &Path) -> Option<u64> {
    let limit = |group: &Path| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    group.ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_groups_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let of = group("1:name=systemd:/init\n0::/user/job\n").expect("a group of version 2");
        fs::create_dir_all(root.path().join(&of)).unwrap();
        let set = |group: &str, limit: &str| fs::write(root.path().join(group).join("memory.max"), limit).unwrap();
        assert_eq!(limit_bytes(root.path(), &of), None);
        set("user/job", "max\n");
        assert_eq!(limit_bytes(root.path(), &of), None);
        set("user", "4096\n");
        set("user/job", "8192\n");
        assert_eq!(limit_bytes(root.path(), &of), Some(4096));
        assert_eq!(group("1:name=systemd:/init\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_bytes() > 1 << 20);
    }
}
