//! Datanodes: who they are, whether they live, what their volumes hold, and where new replicas go.
//!
//! All of it is soft state: it is empty after a start and comes from registrations, heartbeats and block reports.

mod clock;
mod manager;
mod placement;
mod storage;

pub(super) use manager::{DatanodeIndex, DatanodeManager};
pub(super) use placement::{Placement, choose_targets};
pub(super) use storage::{ReportProgress, StorageIndex};
