use situ_wire::ids::{ExecutorId, JobId};
use situ_wire::messages::scheduler::{Locality, Resources};
use situ_wire::time::TimeMs;

use super::job::Job;
use super::scheduler::Scheduler;
use super::search::Usable;
use super::stage::{Stage, StageKey};

/// An executor that takes nothing else until it has room for a task of that stage: small tasks would else take each slot
/// as it comes, and a large one would wait for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reserved {
    pub(super) stage: StageKey,
    pub(super) executor: ExecutorId,
}

impl Scheduler {
    /// Starts the large tasks for which there is room now where it was kept for them.
    pub(super) fn start_reserved(&mut self, now: TimeMs) {
        let reserved: Vec<JobId> = self.reserving.iter().copied().collect();
        for job in reserved {
            self.renew_reservation(job);
            let Some((reserved, partition)) = self.jobs.get(&job).and_then(|found| self.reserved_task(found)) else {
                continue;
            };
            let Reserved { stage: key, executor } = reserved;
            let level = self.jobs.get(&job).and_then(|found| {
                let stage = found.stages.get(&key)?;
                Some(self.locality_of(found, stage, partition, executor))
            });
            self.end_reservation(job);
            self.launch(now, job, key, partition, executor, level.unwrap_or(Locality::Any));
        }
    }

    /// The task that takes the room that was kept, once there is enough: one that has its input there, else the first.
    fn reserved_task(&self, job: &Job) -> Option<(Reserved, u32)> {
        let reserved = job.reserved?;
        let stage = job.stages.get(&reserved.stage)?;
        let executor = self.executors.get(reserved.executor)?;
        if !executor.takes(job.id()) || !executor.has_room(&stage.plan.resources) {
            return None;
        }
        let near = stage.pending.homes.find_node(executor.home.node);
        let lists = stage.pending.near().zip(near);
        let here = lists.and_then(|(near, node)| near.by_node.iter(node, stage.pending.all()).next());
        Some((reserved, here.or_else(|| stage.pending.all().iter().next())?))
    }

    /// A stage has no place for its next task: if that is large, an executor is kept for it. One for each job.
    pub(super) fn reserve(&mut self, job: JobId, key: StageKey) {
        let Some(found) = self.jobs.get(&job).filter(|found| found.reserved.is_none()) else { return };
        let Some(stage) = found.stages.get(&key) else { return };
        let usable = self.usable(found);
        let Some(executor) = self.executors.roomiest(&stage.plan.resources, job, |id| usable.contains(id)) else {
            return;
        };
        if let Some(found) = self.jobs.get_mut(&job) {
            found.reserved = Some(Reserved { stage: key, executor });
        }
        if let Some(there) = self.executors.get_mut(executor) {
            there.reserved = Some(job);
        }
        self.reserving.insert(job);
        self.executors.note(&self.policy);
    }

    /// A reservation ends when the stage has nothing to start, or the executor takes no tasks of it.
    pub(super) fn renew_reservation(&mut self, job: JobId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let Some(Reserved { stage, executor }) = found.reserved else { return };
        let is_open = !found.resumes && found.stages.get(&stage).is_some_and(Stage::is_open);
        let there = self
            .executors
            .get(executor)
            .filter(|there| there.takes_tasks() && there.takes(job) && there.reserved == Some(job));
        if !is_open || there.is_none() || !Usable::contains(&self.usable(found), executor) {
            self.end_reservation(job);
        }
    }

    /// Nothing is kept for a job any more.
    pub(super) fn end_reservation(&mut self, job: JobId) {
        self.reserving.remove(&job);
        let Some(reserved) = self.jobs.get_mut(&job).and_then(|found| found.reserved.take()) else { return };
        self.free_reserved(job, reserved);
    }

    /// The executor that was kept for a job takes other tasks again.
    pub(super) fn free_reserved(&mut self, job: JobId, reserved: Reserved) {
        self.reserving.remove(&job);
        if let Some(there) = self.executors.get_mut(reserved.executor).filter(|there| there.reserved == Some(job)) {
            there.reserved = None;
        }
        self.executors.note(&self.policy);
    }

    /// Why no executor that is known can ever hold a task of a stage; none if one can, or if none is known.
    pub(super) fn never_fits(&self, job: JobId, key: StageKey) -> Option<String> {
        let stage = self.jobs.get(&job)?.stages.get(&key).filter(|stage| stage.is_large())?;
        let Resources { cores, memory_bytes } = stage.plan.resources;
        let (slots, worker_memory_bytes) = self.executors.largest_without(&stage.plan.resources)?;
        // Rounded they might look the same.
        let is_round = (memory_bytes | worker_memory_bytes).trailing_zeros() >= 20;
        let (unit, shift) = if is_round { ("MiB", 20) } else { ("bytes", 0) };
        let memory = |bytes: u64| format!("{} {unit} of memory", bytes >> shift);
        let wanted = if memory_bytes > 0 { format!(" and {}", memory(memory_bytes)) } else { String::new() };
        Some(format!(
            "a task of {} needs {}{wanted}, and no executor has that: the largest has {} and {} for a worker (`slots` and \
             `worker_memory_bytes` in the executors' configuration)",
            stage.plan.name,
            counted(cores, "core"),
            counted(slots, "slot"),
            memory(worker_memory_bytes)
        ))
    }
}

/// So many of something.
fn counted(number: u32, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
