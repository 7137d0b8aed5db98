//! Many random histories: executors die, hang and return, answers get lost, tasks fail, the scheduler itself starts
//! again. Every job must end, with each partition's result there once, and nothing that it wrote aside may stay; what is
//! done stays done over the lives of the scheduler, and what is published is published once. One job's map tasks do not give
//! the same output twice: all that its driver hears must come of the same outputs, or it fails. The same seed must give the
//! same history.

use std::time::Duration;

use situ_wire::time::TimeMs;

mod calls;
mod checks;
mod drivers;
mod executors;
mod faults;
mod plans;
mod random;
mod tasks;
mod world;

const EXECUTORS: u32 = 5;
const JOBS: u64 = 3;
const ACTIONS: u32 = 3;
/// Until when things go wrong.
const FAULTS_END: TimeMs = TimeMs(40_000);
/// Until when every job must have ended.
const END: TimeMs = TimeMs(200_000);
const PATIENCE: Duration = Duration::from_secs(5);
const SEEDS: u64 = 1_000;
/// The invariants are checked after each event of so many seeds, of the others after one of [`CHECK_EVERY`].
const CHECKED: u64 = 100;
const CHECK_EVERY: u64 = 16;
