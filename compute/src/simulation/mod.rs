//! Many random histories of a whole cluster's decisions: the scheduler's core and the executors' tables of jobs are the
//! product's own and follow the product's policy; what stands around them is simulated.
//!
//! Executors die with all their processes, hang and return with what stands on their disks; workers and drivers are
//! killed, stand still, do not start, keep what was cancelled; polls and answers get lost and come late; tasks fail; the
//! scheduler itself starts again. Every job must end, with each partition's result there once, and nothing that it wrote
//! aside may stay; what is done stays done over the lives of the scheduler, what is published is published once, and of a
//! scope that has ended nothing is kept but what it came to. One job's map tasks do not give the same output twice: all
//! that its driver hears of a scope must come of the same outputs, or it fails. A job may fail where the policy says so,
//! but only if that many faults were made: they are counted. The same seed must give the same history.
//!
//! | file | what it holds |
//! |---|---|
//! | `world` | everything there is; what happens next |
//! | `calls` | who calls the scheduler, and what becomes of the answers |
//! | `executors` | executors: their link to the scheduler, and what their tables ask for |
//! | `processes` | processes of jobs: how they start, stand still and end |
//! | `workers` | workers: their polls, and what they are told |
//! | `tasks` | tasks: what they read and leave |
//! | `drivers` | drivers: step by step through their programs |
//! | `plans` | the programs of the jobs |
//! | `faults` | what goes wrong |
//! | `checks` | what must hold, and how a job may end |

use std::time::Duration;

use situ_wire::time::TimeMs;

mod calls;
mod checks;
mod drivers;
mod executors;
mod faults;
mod plans;
mod processes;
pub(crate) mod random;
mod tasks;
mod workers;
mod world;

const EXECUTORS: u32 = 5;
const JOBS: u64 = 3;
const SLOTS: u32 = 2;

/// How many workers an executor holds at once: one of them fewer than it has slots.
fn workers(executor: u32) -> u32 {
    if executor == 1 { 1 } else { SLOTS }
}

/// Until when things go wrong.
const FAULTS_END: TimeMs = TimeMs(40_000);
/// Until when every job must have ended.
const END: TimeMs = TimeMs(600_000);
/// How long the world goes on afterwards, in ms.
const REST: u64 = 10_000;
/// How long who calls the scheduler waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const SEEDS: u64 = 1_000;
/// The invariants are checked after each event of so many seeds, of the others after one of [`CHECK_EVERY`].
const CHECKED: u64 = 4;
const CHECK_EVERY: u64 = 256;
