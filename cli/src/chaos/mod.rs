//! `situ chaos`: breaks a cluster on purpose and checks that it keeps its word.
//!
//! `kills` has two phases. Under fire, files are stored and jobs run while one process after another is killed with
//! `kill -9` and started again. Then everything is left in peace, and every file whose storing was acknowledged must be
//! read back equal, every job that was told to have succeeded must still be known as such, and every block must come
//! back to its full number of replicas. A kill spares the page cache: what a power cut takes, this does not show.
//!
//! | module | what it does |
//! |---|---|
//! | `kills` | the command: who is killed when, and the verdict |
//! | `ledger` | what was acknowledged, and whether it still holds |
//! | `work` | the files and jobs that go on meanwhile |

mod kills;
mod ledger;
mod work;

pub use kills::kills;
