//! The processes of jobs, as `/proc` shows them, and standing still.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use situ_compute::program::environment;
use situ_wire::ids::JobId;

/// How much of a process's environment and of its arguments is looked at: whoever has more is none of ours.
const LOOK_LEN_BYTES: u64 = 64 << 10;

/// The part that a process of a job plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It runs the program from the start to its end.
    Driver,
    /// It runs tasks.
    Worker,
}

/// A process, held so that no other one can take its number: what is done to it after its end is done to nobody.
#[derive(Debug)]
pub struct Held {
    pid: Pid,
    descriptor: OwnedFd,
}

impl Held {
    /// Takes hold of a process; none if there is none of that number.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn take(pid: Pid) -> std::io::Result<Option<Self>> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Some(Self { pid, descriptor })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends it at once. Says whether it was there.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&self) -> std::io::Result<bool> {
        self.signal(Signal::KILL)
    }

    /// Lets it stand still until the value is dropped; none if it is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn pause(self) -> std::io::Result<Option<Paused>> {
        Ok(self.signal(Signal::STOP)?.then_some(Paused(self)))
    }

    fn signal(&self, signal: Signal) -> std::io::Result<bool> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process that stands still. It goes on when this is dropped, however that comes about.
#[derive(Debug)]
pub struct Paused(Held);

impl Paused {
    /// Which it is.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0.pid
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // One that is gone meanwhile need not go on, and whom it was allowed to stop one may continue.
        let _ = self.0.signal(Signal::CONT);
    }
}

/// The processes that play a part in jobs of the cluster whose scheduler listens there, or in one of them, by their numbers:
/// those of this moment, for they come and go.
#[must_use]
pub fn of_jobs(scheduler: SocketAddr, part: Part, job: Option<JobId>) -> Vec<Held> {
    let role = match part {
        Part::Driver => "driver",
        Part::Worker => "worker",
    };
    let mut marks = vec![format!("{}={scheduler}", environment::SCHEDULER), format!("{}={role}", environment::ROLE)];
    marks.extend(job.map(|job| format!("{}={job}", environment::JOB)));
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let held = |pid| {
        // Held first and looked at then: so what is looked at is what is held.
        let held = Held::take(Pid::from_raw(pid)?).ok()??;
        let environment = look(pid, "environ")?;
        let has = |mark: &String| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        // What holds such a process has its environment, too.
        let holds_another =
            || look(pid, "cmdline").is_none_or(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"shim"));
        (marks.iter().all(has) && !holds_another()).then_some(held)
    };
    pids.into_iter().filter_map(held).collect()
}

/// The beginning of a file about a process; none if it is gone or another user's.
fn look(pid: i32, file: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(LOOK_LEN_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

/// How much memory a process has in use, in bytes; none if it is gone.
#[must_use]
pub fn resident_bytes(pid: Pid) -> Option<u64> {
    let text = look(pid.as_raw_nonzero().get(), "statm")?;
    let pages: u64 = std::str::from_utf8(&text).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeper(variables: &[(&str, &str)]) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").envs(variables.iter().copied()).stdin(Stdio::null()).spawn().unwrap()
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
    }

    /// Waits until the state of a process is as wanted.
    fn wait_for(child: &Child, wanted: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let state = &stat[stat.rfind(')').unwrap() + 2..][..1];
            if wanted(state) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{stat}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_paused_process_goes_on_when_nobody_holds_it() {
        let mut child = sleeper(&[]);
        let paused = Held::take(pid(&child)).unwrap().unwrap().pause().unwrap().unwrap();
        wait_for(&child, |state| state == "T");
        drop(paused);
        wait_for(&child, |state| state != "T");
        // One that stands still can be killed, and going on then is nobody's business.
        let paused = Held::take(pid(&child)).unwrap().unwrap().pause().unwrap().unwrap();
        let held = Held::take(pid(&child)).unwrap().unwrap();
        assert!(held.kill().unwrap());
        child.wait().unwrap();
        drop(paused);
        assert!(!held.kill().unwrap() && held.pause().unwrap().is_none());
    }

    #[test]
    fn the_processes_of_jobs_are_told_by_their_cluster_and_part() {
        // No scheduler of this machine listens there.
        let (scheduler, other) = ("192.0.2.7:9", "192.0.2.8:9");
        let of = |scheduler, role| sleeper(&[("SITU_SCHEDULER", scheduler), ("SITU_ROLE", role)]);
        let mut children =
            [of(scheduler, "worker"), of(scheduler, "driver"), of(other, "worker"), of(scheduler, "worker")];
        let found =
            |part| -> Vec<Pid> { of_jobs(scheduler.parse().unwrap(), part, None).iter().map(Held::pid).collect() };
        let mut workers = vec![pid(&children[0]), pid(&children[3])];
        workers.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        // A child has its environment once it has begun its program.
        let begun = Instant::now();
        while (found(Part::Worker), found(Part::Driver)) != (workers.clone(), vec![pid(&children[1])]) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", found(Part::Worker));
            std::thread::yield_now();
        }
        assert!(resident_bytes(workers[0]).unwrap() > 0);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found(Part::Worker), []);
    }
}
