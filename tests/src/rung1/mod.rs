//! Cores in a loop: the first rung of testing.
//!
//! One heap of events drives one [`Namesystem`](situ_namenode::core::Namesystem), many datanode
//! [`Core`](situ_datanode::core::Core)s over disks of maps, and clients that write, move, read and delete. There is no
//! executor and no thread: a run is a function of its seed, and a second takes thousands of them through minutes of
//! simulated time.
//!
//! Around the cores everything goes wrong that can: messages are late, lost, overtaken or come twice, processes stand
//! still, crash and come back, disks die or return with what they held long ago, replicas rot, readers slander them,
//! images cannot be written, the namenode loses what it had not synced. Then faults end, and all
//! must come back to what it should be ([`liveness`](crate::promises::liveness)). What must hold at any time is checked
//! at each step against the journal and the disks, which see what no part of the product sees.
//!
//! | module | what it holds |
//! |---|---|
//! | [`schedule`], [`chance`], [`trace`] | time, randomness, and the proof that both are a function of the seed |
//! | [`settings`] | what a seed decides before a run |
//! | [`network`] | messages |
//! | [`namenode`], [`journal`] | the namenode's process around its core |
//! | [`datanode`], [`disk`], [`pipeline`] | datanodes around their cores, and what flows between them |
//! | [`client`] | writers, deleters, readers |
//! | [`nemesis`] | what goes wrong |
//! | [`oracle`], [`healing`] | what must hold at any time, and after faults end |
//! | [`mutants`] | worlds that are wrong on purpose: the harness must notice |
//! | [`world`] | all of it together |
//!
//! To run a failed seed again: `SITU_SEED=<seed> cargo test -p situ-tests rung1 -- --nocapture`; `SITU_TRACE=1` prints
//! every event. `SITU_SEEDS=<n>` runs so many seeds.

mod chance;
mod client;
mod datanode;
mod disk;
mod healing;
mod journal;
mod mutants;
mod namenode;
mod nemesis;
mod network;
mod oracle;
mod pipeline;
mod schedule;
mod settings;
mod tests;
mod trace;
mod world;
