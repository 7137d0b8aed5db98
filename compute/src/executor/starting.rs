//! From the launch of a process to its end: its directories, its executable, its shim.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use situ_client::Client;
use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, DiskError};
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobLaunch;
use tokio::sync::oneshot;

use super::process::{self, Ending, ProcessSpec, ShimCommand};
use super::programs::{Executable, NotReady, make_ready};
use super::server::Directories;
use crate::program::environment::Environment;

/// A process could not be started because the file system is away, which holds its executable.
#[derive(Debug)]
pub(super) struct Away(pub(super) String);

/// What it takes to start a process.
pub(super) struct Starting<R: Runtime> {
    pub(super) runtime: R,
    pub(super) client: Client<R>,
    pub(super) directories: Arc<Directories>,
    pub(super) own_program: PathBuf,
    pub(super) memory_bytes: u64,
    pub(super) log_len_bytes: u64,
    pub(super) logs_kept: usize,
    pub(super) executable: Executable,
}

impl<R: Runtime> Starting<R> {
    /// Runs the process to its end.
    ///
    /// # Errors
    /// When its executable cannot be had because the file system is away, or not before it was told to end.
    pub(super) async fn run(
        self,
        launch: JobLaunch,
        mut environment: Environment,
        [stdout, stderr]: [PathBuf; 2],
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<Ending, Away> {
        let job = launch.job;
        let failed = |reason: String| {
            tracing::warn!(%job, reason, "a process of a job cannot be started");
            Ok(Ending { error: Some(reason), retry: true })
        };
        let (disk, directories) = (self.runtime.disk().clone(), Arc::clone(&self.directories));
        let (job, user, kept) = (launch.job, launch.user.clone(), self.logs_kept);
        let made = self.runtime.blocking(move || make_job(&disk, &directories, job, &user, kept)).await;
        if let Err(error) = made {
            return failed(format!("its directory cannot be made: {error}"));
        }
        tokio::select! {
            ready = make_ready(&self.client, &launch.program, &self.executable) => match ready {
                Ok(()) => {}
                Err(NotReady { reason, away: true }) => return Err(Away(reason)),
                Err(NotReady { reason, away: false }) => return failed(reason),
            },
            _ = &mut stopped => {
                let name = launch.program.name();
                return Err(Away(format!("the program {name} could not be fetched before the process had to be ready")));
            }
        }
        match self.executable.build(&self.runtime).await {
            Ok(build) => environment.build = build,
            Err(reason) => return failed(reason),
        }
        let mut arguments = self.executable.leading;
        arguments.extend(launch.arguments);
        let spec = ProcessSpec {
            program: self.executable.path,
            arguments,
            variables: environment.to_variables(),
            directory: self.directories.cwd(launch.job),
            stdout,
            stderr,
            input_elsewhere: launch.attached,
            memory_bytes: self.memory_bytes,
            log_len_bytes: self.log_len_bytes,
        };
        let shim = ShimCommand { program: self.own_program, arguments: vec!["shim".to_owned()] };
        Ok(process::run(self.runtime, &shim, spec, stopped).await)
    }
}

/// Makes the directories of a job; logs of jobs that ended long ago make place, those of jobs that run never.
fn make_job<D: Disk>(
    disk: &D,
    directories: &Directories,
    job: JobId,
    user: &str,
    logs_kept: usize,
) -> Result<(), DiskError> {
    disk.create_directory(&directories.work(job))?;
    disk.create_directory(&directories.cwd(job))?;
    disk.create_directory(&directories.logs(job))?;
    let owner = directories.log_owner(job);
    if !disk.exists(&owner)?
        && let Err(error) = disk.write_atomically(&owner, user.as_bytes())
        // The driver and the worker of a job may start at once: then the other has put it in place.
        && !disk.exists(&owner)?
    {
        return Err(error);
    }
    let jobs_in = |directory: &Path| -> Result<BTreeSet<JobId>, DiskError> {
        Ok(disk.list(directory)?.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    };
    // In this order: a job that runs has its directory before it has logs.
    let logs = jobs_in(&directories.all_logs())?;
    let running = jobs_in(&directories.jobs())?;
    let ended: Vec<JobId> = logs.difference(&running).copied().collect();
    for old in ended.iter().take(ended.len().saturating_sub(logs_kept)) {
        disk.remove_directory(&directories.logs(*old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;

    use super::*;

    #[test]
    fn logs_of_jobs_that_ended_long_ago_make_place_and_those_of_running_jobs_stay() {
        let disk = MemoryDisk::default();
        let directories = Directories("/executor".into());
        let begin = |job| make_job(&disk, &directories, JobId(job), "ann", 2).unwrap();
        begin(1);
        for job in 2..=5 {
            begin(job);
            disk.remove_directory(&directories.job(JobId(job))).unwrap();
        }
        begin(6);
        let listed = disk.list(&directories.all_logs()).unwrap();
        let mut logs: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
        logs.sort_unstable();
        assert_eq!(logs, ["job-1", "job-4", "job-5", "job-6"]);
    }
}
