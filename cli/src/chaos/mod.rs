//! `situ chaos`: breaks a cluster on purpose and checks that it keeps its word.
//!
//! `kills` has two phases. Under fire, files are stored and jobs run while one process after another, of the cluster and of
//! its jobs, is killed with `kill -9`, or stopped for a while as a machine that swaps or a frozen container is. Then
//! everything is left in peace, and every file whose storing was acknowledged must be read back equal, every job must come
//! to its end, every output must be there once and hold what one thread computes, and every block must come back to its full
//! number of replicas. A kill spares the page cache: what a power cut takes, this does not show.
//!
//! `rounds` runs one job of thousands of actions, and shows whether they become slower and processes larger.
//!
//! | module | what it does |
//! |---|---|
//! | `kills` | the command: phases, and the verdict |
//! | `rounds` | the other command |
//! | [`schedule`](fn@schedule) | what happens to whom and when |
//! | [`Faults`] | how it happens, and how it ends |
//! | [`Held`], [`of_jobs`] | the processes of jobs; standing still |
//! | `ledger` | what was acknowledged, and whether it still holds |
//! | `work` | the files and jobs that go on meanwhile |
//! | `programs` | the programs of these jobs |

mod faults;
mod kills;
mod ledger;
mod processes;
mod programs;
mod rounds;
mod schedule;
mod work;

pub use faults::{Faults, Tally};
pub use kills::kills;
pub use processes::{Held, Part, Paused, of_jobs, resident_bytes};
pub use programs::run as run_program;
pub use rounds::rounds;
pub use schedule::{Fault, FaultKind, Victim, schedule};
