//! What a worker's run of the program asks instead of computing.

use std::sync::Arc;

use bytes::Bytes;
use situ_wire::ids::{ActionId, OperationId};
use situ_wire::messages::scheduler::Plan;
use situ_wire::path::DfsPath;

use super::driver::one_result;
use super::error::ProgramError;
use super::memory::MemoryManager;
use super::replay::{Reached, Replay};
use super::world::{Backend, Files, Released};
use crate::dataset::Graph;

/// What a worker learns of its driver.
pub(super) trait DriverSide: Send + Sync + 'static {
    /// The results that the driver got of an action; waits until they are there.
    fn results(&self, name: &str, action: ActionId) -> Result<Vec<Bytes>, ProgramError>;

    /// The plan that the driver sent for an action.
    fn plan(&self, action: ActionId) -> Result<Option<Box<Plan>>, String>;

    /// The file system.
    fn files(&self) -> &dyn Files;

    /// The job's name.
    fn job_name(&self) -> String;

    /// Of a built-in program, the hash of the executable that holds it.
    fn build(&self) -> Option<[u8; 32]>;
}

/// Gives a run of the program in a worker the results that its driver got.
pub(crate) struct Follower {
    pub(super) driver: Arc<dyn DriverSide>,
    pub(super) replay: Arc<Replay>,
    /// What this run has persisted.
    pub(super) memory: Arc<MemoryManager>,
}

impl Backend for Follower {
    fn run_action(&self, action: ActionId, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
        let digest = graph.plan(self.driver.build()).digest();
        let name = graph.name().to_owned();
        self.replay.reach(action, Reached { digest, graph });
        let results = self.driver.results(&name, action)?;
        self.replay.pass(action);
        Ok(results)
    }

    fn record(&self, action: ActionId, _: &mut dyn FnMut(&dyn Files) -> Bytes) -> Result<Bytes, ProgramError> {
        self.replay.reach_value(action);
        let results = self.driver.results("a value of the driver", action)?;
        self.replay.pass(action);
        one_result(results)
    }

    fn release(&self, what: Released) {
        match what {
            Released::Dataset(dataset) => self.memory.remove(dataset),
            // Its pieces are the executor's.
            Released::Shuffle(_) => {}
        }
    }

    fn files(&self) -> &dyn Files {
        self.driver.files()
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        None
    }

    fn writes_aside(&self, _: &DfsPath) -> Result<(), ProgramError> {
        unreachable!("only a driver writes to the job's own directory")
    }

    fn publishing(&self, _: ActionId, _: &DfsPath) -> Result<bool, ProgramError> {
        unreachable!("only a driver makes room for output")
    }

    fn published(&self, _: ActionId) -> Result<(), ProgramError> {
        unreachable!("only a driver publishes")
    }

    fn publication(&self, _: ActionId) -> OperationId {
        unreachable!("only a driver publishes")
    }

    fn job_name(&self) -> String {
        self.driver.job_name()
    }

    fn attempt(&self) -> u32 {
        unreachable!("only a driver has attempts")
    }
}
