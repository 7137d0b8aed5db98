//! How much memory this machine has for what it runs.

use std::fs;
use std::path::Path;

/// The memory of this machine in bytes, or of the control group that this process runs in, if that has less (cgroups(7)).
pub(super) fn memory_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    let all = u64::from(system.mem_unit).saturating_mul(system.totalram);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_bytes(Path::new("/sys/fs/cgroup"), &groups).map_or(all, |limit| limit.min(all))
}

/// The lowest limit of the groups in the text of `/proc/PID/cgroup` and of those around them, if there is one; the tree of
/// groups is mounted at `root`.
fn limit_bytes(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(":/")?;
        // Version 2 has one tree for all; in a container, its root is what is mounted.
        let (tree, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let limit = |group: &Path| fs::read_to_string(tree.join(group).join(file)).ok()?.trim().parse().ok();
        Path::new(path).ancestors().filter_map(limit).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_groups_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let limit = |groups| limit_bytes(root.path(), groups);
        let set = |file: &str, limit: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, limit).unwrap();
        };
        let groups = "4:memory:/in/here\n1:name=systemd:/init\n0::/user/job\n";
        assert_eq!(limit(groups), None);
        set("user/job/memory.max", "max\n");
        assert_eq!(limit(groups), None);
        set("user/memory.max", "4096\n");
        set("user/job/memory.max", "8192\n");
        assert_eq!(limit(groups), Some(4096));
        set("memory/in/here/memory.limit_in_bytes", "2048\n");
        assert_eq!(limit(groups), Some(2048));
        set("memory.max", "1024\n");
        assert_eq!(limit(groups), Some(1024));
        assert_eq!(limit("1:name=systemd:/init\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_bytes() > 1 << 20);
    }
}
