//! `situ fs`: files in the cluster, with the habits of `hdfs dfs` and of Unix.
//!
//! | module | what it does |
//! |---|---|
//! | `paths` | from what a person wrote to what is in the cluster |
//! | `put`, `get` | to the cluster and back, with progress |
//! | `show` | ls, stat, du, df |
//! | `change` | mkdir, rm, mv |

mod change;
mod get;
mod paths;
mod put;
mod show;

use std::time::Duration;

use crate::args::FsCommand;
use crate::error::CliResult;
use crate::session::Session;
use crate::show as screen;

pub use get::cat_paths;
pub use paths::parse as parse_path;
pub use put::{PutOptions, put_reader};

/// What a put or a get has copied.
#[derive(Debug, Default, Clone, Copy)]
struct Copied {
    files: u64,
    bytes: u64,
}

impl Copied {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Says how much was `done`, how fast.
    fn summary(self, done: &str, took: Duration, json: bool) -> CliResult {
        let Self { files, bytes } = self;
        if json {
            return screen::json(&serde_json::json!({ "files": files, "bytes": bytes, "seconds": took.as_secs_f64() }));
        }
        screen::note(format!(
            "{done} {}, {} in {:.2} s ({})",
            screen::count(files, "file"),
            screen::human_size(bytes),
            took.as_secs_f64(),
            screen::rate(bytes, took)
        ));
        Ok(())
    }
}

/// Runs one command.
pub async fn run(session: &Session, command: &FsCommand, json: bool) -> CliResult {
    match command {
        FsCommand::Mkdir(args) => change::mkdir(session, args, json).await,
        FsCommand::Put(args) => put::put(session, args, json).await,
        FsCommand::Get(args) => get::get(session, args, json).await,
        FsCommand::Cat(args) => get::cat(session, args, json).await,
        FsCommand::Ls(args) => show::ls(session, args, json).await,
        FsCommand::Stat(args) => show::stat(session, args, json).await,
        FsCommand::Rm(args) => change::rm(session, args, json).await,
        FsCommand::Mv(args) => change::mv(session, args, json).await,
        FsCommand::Du(args) => show::du(session, args, json).await,
        FsCommand::Df(args) => show::df(session, args, json).await,
    }
}
