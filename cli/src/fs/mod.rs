//! `situ fs`: files in the cluster, with the habits of `hdfs dfs` and of Unix.
//!
//! | module | what it does |
//! |---|---|
//! | `glob` | patterns on paths |
//! | `paths` | from what a person wrote to what is in the cluster |
//! | `put`, `get` | to the cluster and back, with progress |
//! | `show` | ls, stat, du, df |
//! | `change` | mkdir, rm, mv |

mod change;
mod get;
mod glob;
mod paths;
mod put;
mod show;

use crate::args::FsCommand;
use crate::error::CliResult;
use crate::session::Session;

pub use get::cat_paths;
pub use paths::parse as parse_path;
pub use put::{PutOptions, put_reader};

/// Runs one command.
pub async fn run(session: &Session, command: &FsCommand, json: bool) -> CliResult {
    match command {
        FsCommand::Mkdir(args) => change::mkdir(session, args, json).await,
        FsCommand::Put(args) => put::put(session, args, json).await,
        FsCommand::Get(args) => get::get(session, args, json).await,
        FsCommand::Cat(args) => get::cat(session, args).await,
        FsCommand::Ls(args) => show::ls(session, args, json).await,
        FsCommand::Stat(args) => show::stat(session, args, json).await,
        FsCommand::Rm(args) => change::rm(session, args, json).await,
        FsCommand::Mv(args) => change::mv(session, args, json).await,
        FsCommand::Du(args) => show::du(session, args, json).await,
        FsCommand::Df(args) => show::df(session, args, json).await,
    }
}
