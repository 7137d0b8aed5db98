//! Blocks: how many good replicas they have, where, and what is to be done about it.
//!
//! Which blocks there are is part of the namespace and changes by edits alone; where their replicas are is soft state
//! from the datanodes' reports. Of each block every replica that is known is in exactly one of three places: `received`
//! while the block is under construction, `locations` when it is good, the corrupt replicas when it is not.
//!
//! | module | what it holds |
//! |---|---|
//! | [`info`] | a block in memory |
//! | [`manager`] | all blocks; counts good replicas and keeps the queues right |
//! | [`replicas`] | what reports say about replicas |
//! | [`redundancy`] | orders copies |
//! | [`trimming`] | chooses what is deleted, and when it may be |
//! | [`low_redundancy`], [`pending`], [`excess`], [`corrupt`], [`invalidations`] | the five queues |
//! | [`doubts`] | what datanodes shall verify because readers doubt it |

mod corrupt;
mod doubts;
mod excess;
mod info;
mod invalidations;
mod low_redundancy;
mod manager;
mod pending;
mod redundancy;
mod replicas;
mod trimming;

pub(super) use manager::BlockManager;
pub(super) use redundancy::Copy;
pub(super) use replicas::{Verdict, Via};
