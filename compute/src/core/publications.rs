use std::collections::BTreeSet;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ActionId, JobId};
use situ_wire::messages::scheduler::{JobState, Response};
use situ_wire::path::DfsPath;

use super::calls::Outcome;
use super::cleaning::job_directory;
use super::job::Job;
use super::scheduler::Scheduler;
use super::{JobRecord, RecordId};

/// What a job publishes: once, however often its driver is started anew.
///
/// ```text
///   Publishing, on the disk          the namenode             Published, on the disk
///   -----------------------> asked <--------------> answered -----------------------> the program goes on
/// ```
///
/// A driver that is started anew between the first and the last asks the namenode again, as the same operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Publication {
    output: DfsPath,
    /// Whether it is done.
    published: bool,
    /// The last record that says so; none if an earlier life of the scheduler wrote it.
    record: Option<RecordId>,
    /// Another job that has published at the same place meanwhile.
    overtaken_by: Option<JobId>,
}

impl Scheduler {
    /// A process of a job asks for the job's own directory: it may be about to write to it.
    pub(super) fn own_directory(&mut self, job: JobId) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let Some(directory) = job_directory(&job.to_string(), found.publisher()) else {
            return Err(RemoteError::new(ErrorCode::InvalidArgument, job, "it has no directory of its own"));
        };
        let noted = self.writes_aside(job, directory.clone())?;
        Ok(noted.map(|(_, when)| (Response::OwnDirectory(directory), when)))
    }

    /// A driver is about to write, or to let its tasks write, what must be taken away should nobody publish it.
    fn writes_aside(&mut self, job: JobId, output: DfsPath) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        if let Some(record) = found.outputs.get(&output) {
            return Ok(Some((Response::Done, *record)));
        }
        if found.outputs.len() >= self.policy.outputs {
            return Err(too_many(job, output, found.outputs.len()));
        }
        let user = found.launch.user.clone();
        let record = self.append(JobRecord::WritesAside { job, user, output: output.clone() });
        if let Some(found) = self.jobs.get_mut(&job) {
            found.outputs.insert(output, Some(record));
        }
        Ok(Some((Response::Done, Some(record))))
    }

    /// A driver is about to let its tasks write aside, and to publish at `output`.
    pub(super) fn publishing(&mut self, job: JobId, action: ActionId, output: DfsPath) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        if let Some(before) = found.publications.get(&action) {
            if before.output != output {
                let message = format!(
                    "the program does not do the same each time it runs: an earlier run of the driver published {} under \
                     {action}, this run {output}",
                    before.output
                );
                return Err(RemoteError::new(ErrorCode::InvalidArgument, job, message));
            }
            return Ok(Some((Response::Publication { published: before.published }, before.record)));
        }
        if found.publications.len() >= self.policy.actions {
            return Err(too_many(job, output, found.outputs.len()));
        }
        self.writes_aside(job, output.clone())?;
        let record = Some(self.append(JobRecord::Publishing { job, action, output: output.clone() }));
        if let Some(found) = self.jobs.get_mut(&job) {
            let publication = Publication { output, published: false, record, overtaken_by: None };
            found.publications.insert(action, publication);
        }
        Ok(Some((Response::Publication { published: false }, record)))
    }

    /// A driver has published.
    pub(super) fn published(&mut self, job: JobId, action: ActionId) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let Some(before) = found.publications.get(&action) else {
            let message = format!("nothing was to be published under {action}: it must be said before");
            return Err(RemoteError::new(ErrorCode::InvalidArgument, job, message));
        };
        if before.published {
            return Ok(Some((Response::Done, before.record)));
        }
        let output = before.output.clone();
        let record = Some(self.append(JobRecord::Published { job, action }));
        for (other, found) in &mut self.jobs {
            for (of, publication) in found.publications.iter_mut().filter(|(_, it)| it.output == output) {
                if (*other, *of) == (job, action) {
                    (publication.published, publication.record) = (true, record);
                } else if !publication.published && *other != job {
                    publication.overtaken_by = Some(job);
                }
            }
        }
        Ok(Some((Response::Done, record)))
    }
}

fn too_many(job: JobId, output: DfsPath, count: usize) -> RemoteError {
    let message = format!("{job} has saved to {count} directories already, which is the most for one job");
    RemoteError::new(ErrorCode::TooMuch, output, message)
}

impl Job {
    /// What an earlier life of the scheduler knew of a publication, as a record says; it may have been told before.
    pub(super) fn restore_publishing(&mut self, action: ActionId, output: DfsPath) {
        let publication = Publication { output, published: false, record: None, overtaken_by: None };
        self.publications.entry(action).or_insert(publication);
    }

    /// The same, of its end.
    pub(super) fn restore_published(&mut self, action: ActionId) {
        if let Some(publication) = self.publications.get_mut(&action) {
            publication.published = true;
        }
    }

    /// Where it has published.
    pub(super) fn published_at(&self) -> BTreeSet<DfsPath> {
        let done = self.publications.values().filter(|publication| publication.published);
        done.map(|publication| publication.output.clone()).collect()
    }

    /// The records that bring its publications back.
    pub(super) fn publication_records(&self) -> impl Iterator<Item = JobRecord> {
        let job = self.id();
        self.publications.iter().flat_map(move |(action, publication)| {
            let (action, output) = (*action, publication.output.clone());
            let published = publication.published.then_some(JobRecord::Published { job, action });
            std::iter::once(JobRecord::Publishing { job, action, output }).chain(published)
        })
    }

    /// How it ends, with what is known of the reason: whoever loses the race for an output hears who won it.
    pub(super) fn explained(&self, state: JobState) -> JobState {
        let lost = |it: &Publication| it.overtaken_by.map(|winner| (winner, it.output.clone()));
        match (state, self.publications.values().find_map(lost)) {
            (JobState::Failed { reason }, Some((winner, output))) => JobState::Failed {
                reason: format!(
                    "{winner} has published at {output} meanwhile, where this job would have; name another output, or delete \
                     that one and submit the job again: {reason}"
                ),
            },
            (state, _) => state,
        }
    }
}
