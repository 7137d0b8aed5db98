use std::collections::BTreeSet;

use situ_wire::ids::{DatasetId, JobId, ShuffleId, TaskAttemptId};
use situ_wire::messages::scheduler::{ExecutorCommand, Response, StageOutput};

use super::calls::{Outcome, now};
use super::job::{Action, Job};
use super::scheduler::Scheduler;
use super::stage::StageKey;

/// How many shuffles one command to an executor lists.
const SHUFFLES_PER_COMMAND: usize = 10_000;

impl Scheduler {
    /// A driver will run no action again that reads these: what a long job has computed does not stay until its end.
    pub(super) fn release(&mut self, job: JobId, shuffles: Vec<ShuffleId>, datasets: Vec<DatasetId>) -> Outcome {
        let Some(found) = self.jobs.get_mut(&job) else { return Err(self.gone(job)) };
        // Workers let go of them by themselves, where they come to this place of the program.
        let datasets: BTreeSet<DatasetId> = datasets.into_iter().collect();
        found.cached.release(|dataset| datasets.contains(dataset));
        found.recoveries.forget_datasets(|dataset| datasets.contains(dataset));
        // What it never planned is nowhere, or was planned in an earlier life of the scheduler only.
        let known = |shuffle: &ShuffleId| found.stages.contains_key(&StageKey::Shuffle(*shuffle));
        let (known, others): (BTreeSet<ShuffleId>, BTreeSet<ShuffleId>) = shuffles.into_iter().partition(known);
        found.released.extend(known);
        self.release_unneeded(job);
        let reported = |key: &StageKey| matches!(key, StageKey::Shuffle(shuffle) if others.contains(shuffle));
        self.forget_reports(job, reported, |dataset| datasets.contains(dataset));
        now(Response::Done)
    }

    /// Shuffles that were released go as soon as no action under way may need them: should one of their readers be lost, it
    /// would be computed from them.
    pub(super) fn release_unneeded(&mut self, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job).filter(|found| !found.released.is_empty()) else { return };
        let needed = found.shuffles_under_way();
        let gone: Vec<ShuffleId> = found.released.iter().filter(|shuffle| !needed.contains(shuffle)).copied().collect();
        if gone.is_empty() {
            return;
        }
        let mut cancelled: Vec<TaskAttemptId> = Vec::new();
        for shuffle in &gone {
            found.released.remove(shuffle);
            found.given.remove(shuffle);
            found.held.remove(shuffle);
            let Some(stage) = found.forget_stage(StageKey::Shuffle(*shuffle)) else { continue };
            cancelled.extend(stage.all_attempts().map(|running| running.attempt));
        }
        let touched = found.touched.clone();
        for attempt in cancelled {
            self.cancel(attempt);
        }
        for executor in touched {
            for shuffles in gone.chunks(SHUFFLES_PER_COMMAND) {
                self.executors.command(executor, ExecutorCommand::Release { job, shuffles: shuffles.to_vec() });
            }
        }
        self.changed.insert(job);
    }
}

impl Job {
    /// The shuffles in the plans of actions under way.
    fn shuffles_under_way(&self) -> BTreeSet<ShuffleId> {
        let running = self.under_way.iter().filter_map(|action| match self.actions.get(action)? {
            Action::Running { plan, .. } => Some(plan),
            Action::Done(_) | Action::Recorded { .. } => None,
        });
        running
            .flat_map(|plan| &plan.stages)
            .filter_map(|stage| match stage.output {
                StageOutput::Shuffle { shuffle, .. } => Some(shuffle),
                StageOutput::Result { .. } => None,
            })
            .collect()
    }
}
