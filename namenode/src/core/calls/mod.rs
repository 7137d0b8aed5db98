//! The calls, each planned and answered.
//!
//! A call that changes the namespace is planned (checked in full, without changing anything) into a [`Change`], which is
//! then applied and appended; what it answers is read off the outcome, so that a retry gets the same.
//!
//! [`Change`]: super::edit::Change
//!
//! | module | what it holds |
//! |---|---|
//! | [`dispatch`] | who answers what; retries |
//! | [`admission`] | whether a change may be made at all: safe mode, the room of the log |
//! | [`namespace`] | make, rename and delete |
//! | [`publish`] | a job's output in one step |
//! | [`writing`] | an open file and its blocks |
//! | [`reading`] | stat, list, blocks, summary |
//! | [`health`] | fsck, the cluster's report, corrupt replicas |
//! | [`datanode`] | registrations, heartbeats and reports |
//! | [`timers`] | what is due by time alone |

mod admission;
mod datanode;
mod dispatch;
mod health;
mod namespace;
mod publish;
mod reading;
mod timers;
mod writing;
