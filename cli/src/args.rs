//! The command line: what can be said, and nothing of what it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::duration;

/// Situ: a fault-tolerant distributed file system that computes in place.
#[derive(Debug, Parser)]
#[command(name = "situ", version, after_help = "Example:\n  situ quickstart")]
pub struct Situ {
    /// The directory of the cluster to talk to, as given to `situ up` [default: the only one running]
    #[arg(long, global = true, env = "SITU_CLUSTER", value_name = "DIR", hide_env_values = true)]
    pub cluster: Option<PathBuf>,
    /// Print the result as JSON, a document a line; each failure is one of them, {"error": ...}
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all: start a cluster, store a file, count its words in place while a node is killed, check the answer
    Quickstart(QuickstartArgs),
    /// Start a cluster on this machine and keep it running until Ctrl-C
    Up(UpArgs),
    /// Work with files in the cluster
    #[command(subcommand)]
    Fs(FsCommand),
    /// Run programs on files in the cluster
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at the cluster
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Show the blocks of files and where their replicas are; ends with 1 if any file is damaged
    #[command(after_help = FSCK_HELP)]
    Fsck(FsckArgs),
    /// Kill and stop parts of a cluster at random moments and check that nothing promised is broken
    #[command(subcommand)]
    Chaos(ChaosCommand),
    /// Make the certificates of a cluster that is built by hand
    #[command(subcommand)]
    Ca(CaCommand),
    /// Run a namenode
    #[command(after_help = "Example:\n  situ namenode --config namenode.toml --format")]
    Namenode(RoleArgs),
    /// Run a datanode
    #[command(after_help = "Example:\n  situ datanode --config datanode.toml --format")]
    Datanode(RoleArgs),
    /// Run a scheduler
    #[command(after_help = "Example:\n  situ scheduler --config scheduler.toml --format")]
    Scheduler(RoleArgs),
    /// Run an executor
    #[command(after_help = "Example:\n  situ executor --config executor.toml --format")]
    Executor(RoleArgs),
    /// Run a built-in program as a driver or worker; executors do this
    #[command(hide = true)]
    Program(ProgramArgs),
    /// Hold a process of a job; executors do this, and say on standard input which
    #[command(hide = true)]
    Shim,
}

/// `situ quickstart`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  situ quickstart --input book.txt")]
pub struct QuickstartArgs {
    /// The file to store and count [default: a text of 256 MiB, made with a fixed seed]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Keep the cluster in DIR/cluster, so that `situ up --dir DIR/cluster` can start it again
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `situ up`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  situ up --dir ./cluster --datanodes 4 --racks 2")]
pub struct UpArgs {
    /// Where the cluster lives; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// How many datanodes, each with an executor beside it [default: 3, or as many as there were]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub datanodes: Option<u16>,
    /// Among how many racks they are spread [default: 1, or as many as there were]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub racks: Option<u16>,
    /// How many tasks each executor runs at once [default: 1, or as many as there were]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
}

/// `situ fs`.
#[derive(Debug, Subcommand)]
pub enum FsCommand {
    /// Make directories
    #[command(after_help = "Example:\n  situ fs mkdir -p /data/2026/11")]
    Mkdir(MkdirArgs),
    /// Store local files
    #[command(after_help = PUT_HELP)]
    Put(PutArgs),
    /// Fetch files, verified end to end
    #[command(after_help = "Example:\n  situ fs get '/data/*.txt' ./here")]
    Get(GetArgs),
    /// Write files to standard output, verified
    #[command(after_help = "Example:\n  situ fs cat '/out/part-*'")]
    Cat(PathsArgs),
    /// List directories
    #[command(disable_help_flag = true, after_help = "Example:\n  situ fs ls -h /data")]
    Ls(LsArgs),
    /// Show all about files and directories
    #[command(after_help = "Example:\n  situ fs stat /data/book.txt")]
    Stat(PathsArgs),
    /// Delete files and directories
    #[command(after_help = "Example:\n  situ fs rm -r /data/old")]
    Rm(RmArgs),
    /// Move or rename files and directories
    #[command(after_help = "Example:\n  situ fs mv /data/a /data/b /archive")]
    Mv(MvArgs),
    /// Sum up sizes
    #[command(disable_help_flag = true, after_help = "Example:\n  situ fs du -s -h /data")]
    Du(DuArgs),
    /// Show the room that the cluster has
    #[command(disable_help_flag = true, after_help = "Example:\n  situ fs df -h")]
    Df(DfArgs),
}

// Each paragraph is one line: it is wrapped where it is shown.
const PUT_HELP: &str = "\
A file is written beside its target as .<digits>._COPYING_ and renamed once it is whole, so that its name never shows a \
part of it. What is written is deleted when the put fails or Ctrl-C ends it; when it is killed, the cluster deletes it \
5 minutes later. Nobody has to wait for that: the same file can be put again at once.

A target that ends in / must be a directory.

Examples:
  situ fs put book.txt /data/
  zcat log.gz | situ fs put - /data/log";

const SAFE_MODE_HELP: &str = "\
After its start the namenode waits in safe mode until enough blocks are reported (`safe_mode_threshold_permille` in its \
configuration) and a while longer. It goes on waiting while datanodes hold replicas that it never gave out: then it may have \
been started with an older copy of its directory. What such replicas hold is kept, also after safe mode was left. Only \
the superuser enters and leaves it.

Example:
  situ admin safemode get";

const REPORT_HELP: &str = "\
Blocks are under-replicated while they have fewer good replicas than wanted; those that are missing, because no good \
replica is left or its datanodes are away, are among them. `situ fsck` counts in the same way.

Example:
  situ admin report";

const FSCK_HELP: &str = "\
Blocks are under-replicated while they have fewer good replicas than wanted; those that are missing, because no good \
replica is left or its datanodes are away, are among them. `situ admin report` counts in the same way.

Example:
  situ fsck /data";

/// Paths in the cluster, globs allowed.
#[derive(Debug, Args)]
pub struct PathsArgs {
    /// Paths in the cluster; *, ?, [..] and {..} match, a backslash takes their meaning away
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `situ fs mkdir`.
#[derive(Debug, Args)]
pub struct MkdirArgs {
    /// Make missing parents too, and do not mind what is there already
    #[arg(short, long)]
    pub parents: bool,
    /// The directories
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `situ fs put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Replace files that are there already
    #[arg(short, long)]
    pub force: bool,
    /// Store directories with all that they hold
    #[arg(short, long)]
    pub recursive: bool,
    /// How many replicas to keep [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub replication: Option<u16>,
    /// How long blocks are, such as 16M [default: 128M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub block_size: Option<u64>,
    /// When a file counts as stored: `durable` once it is on every replica's disk, `visible` once every replica has it
    #[arg(long, value_enum, default_value_t = DurabilityArg::Durable)]
    pub durability: DurabilityArg,
    /// Local files, `-` for standard input
    #[arg(required = true, value_name = "LOCAL")]
    pub sources: Vec<std::ffi::OsString>,
    /// Where they go in the cluster: a directory, or the file's path
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// When a file counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// On every replica's disk.
    Durable,
    /// Every replica has it.
    Visible,
}

/// `situ fs get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Replace local files that are there already
    #[arg(short, long)]
    pub force: bool,
    /// Fetch directories with all that they hold
    #[arg(short, long)]
    pub recursive: bool,
    /// Paths in the cluster, globs allowed
    #[arg(required = true, value_name = "PATH")]
    pub sources: Vec<String>,
    /// Where they go: a local directory, a file's path, `-` for standard output, or `.` for here
    #[arg(value_name = "LOCAL")]
    pub target: std::ffi::OsString,
}

/// `situ fs ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Show directories themselves, not what they hold
    #[arg(short, long)]
    pub directory: bool,
    /// Show sizes as people read them
    #[arg(short = 'h', long = "human-readable")]
    pub human: bool,
    /// Go into subdirectories
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Paths in the cluster, globs allowed
    #[arg(default_value = "/", value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `situ fs rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Delete directories with all that they hold
    #[arg(short, long)]
    pub recursive: bool,
    /// Do not mind what is not there
    #[arg(short, long)]
    pub force: bool,
    /// Paths in the cluster, globs allowed
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `situ fs mv`.
#[derive(Debug, Args)]
pub struct MvArgs {
    /// Replace a file that is there already
    #[arg(short, long)]
    pub force: bool,
    /// Paths in the cluster, globs allowed
    #[arg(required = true, value_name = "PATH")]
    pub sources: Vec<String>,
    /// Where they go in the cluster: a directory, or the new path
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// `situ fs du`.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Sum up each path as a whole
    #[arg(short, long)]
    pub summarize: bool,
    /// Show sizes as people read them
    #[arg(short = 'h', long = "human-readable")]
    pub human: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Paths in the cluster, globs allowed
    #[arg(default_value = "/", value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `situ fs df`.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Show sizes as people read them
    #[arg(short = 'h', long = "human-readable")]
    pub human: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

const SUBMIT_HELP: &str = "Examples:\n  situ job submit ./target/release/examples/anagrams /data/words /out\n  \
     situ job submit --client ./target/release/examples/ask /data/words\n  \
     situ job submit --task-limit 10m ./target/release/examples/anagrams /data/words /out";

/// `situ job`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Run a built-in program and wait for its end
    Run(RunArgs),
    /// Store an executable that is built on situ-compute, run it, and wait for its end
    #[command(after_help = SUBMIT_HELP)]
    Submit(SubmitArgs),
    /// List jobs, newest first
    #[command(after_help = "Example:\n  situ job list")]
    List,
    /// Show all about a job
    #[command(after_help = "Example:\n  situ job status 1")]
    Status(JobArgs),
    /// Wait for a job's end and end as it does: with 0 if it succeeded, with 1 if not
    #[command(after_help = "Example:\n  situ job wait 1")]
    Wait(JobArgs),
    /// End a job
    #[command(after_help = "Example:\n  situ job kill 1")]
    Kill(JobArgs),
    /// Print what the processes of a job wrote
    #[command(after_help = "Example:\n  situ job logs 1")]
    Logs(JobArgs),
}

/// `situ job run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How long a task may take, such as 90s, 10m or 2h [default: as long as it likes]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    pub task_limit: Option<Duration>,
    /// What is run.
    #[command(subcommand)]
    pub program: RunCommand,
}

/// The built-in programs.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Count words: a `word<TAB>count` a line, sorted by word within each part
    #[command(after_help = "Example:\n  situ job run wordcount /data/book.txt /out --reducers 2")]
    Wordcount {
        /// A file, a directory or a glob
        input: String,
        /// The directory that is made for the result
        output: String,
        /// How many parts the result has [default: 4]
        #[arg(long, value_name = "N")]
        reducers: Option<String>,
        /// Read the files of directories within the input directory too
        #[arg(long)]
        recursive: bool,
        /// Read files as they are, whatever their names end in
        #[arg(long)]
        plain: bool,
    },
    /// Keep the lines that match a regular expression
    #[command(after_help = "Example:\n  situ job run grep 'error|panic' /logs /out")]
    Grep {
        /// The regular expression
        pattern: String,
        /// A file, a directory or a glob
        input: String,
        /// The directory that is made for the result
        output: String,
        /// Read the files of directories within the input directory too
        #[arg(long)]
        recursive: bool,
        /// Read files as they are, whatever their names end in
        #[arg(long)]
        plain: bool,
    },
    /// Estimate pi by points in a square: needs no input, shows that tasks run
    #[command(after_help = "Example:\n  situ job run pi 8 1000000")]
    Pi {
        /// Among how many tasks the points are spread
        partitions: String,
        /// How many points each task looks at
        points: String,
    },
}

/// `situ job submit`.
#[derive(Debug, Args)]
#[command(override_usage = "situ job submit [OPTIONS] <PROGRAM> [ARGUMENT]...")]
pub struct SubmitArgs {
    /// Let every worker run the program twice and compare what both runs compute: finds what is not the same each time, as
    /// the order of a HashMap. Takes twice the time; programs built without --release are checked always
    #[arg(long)]
    pub check_replay: bool,
    /// How long a task may take, such as 90s, 10m or 2h [default: as long as it likes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub task_limit: Option<Duration>,
    /// Run the driver here, with this terminal as its standard input and output, and end with its exit code. The job lives
    /// as long as the driver is heard; Ctrl-C ends both
    #[arg(long)]
    pub client: bool,
    /// The executable, then its arguments: all that follows it is for the program, --help and --json too; options of situ
    /// come before it
    // Both in one: until its last argument has begun, clap takes what it knows as an option for itself.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub command: Vec<std::ffi::OsString>,
}

/// A job.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Its number, as in `job-7` or `7`
    pub job: String,
}

/// `situ admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Show capacity, nodes, and blocks that need care
    #[command(after_help = REPORT_HELP)]
    Report,
    /// Show, enter or leave safe mode, in which the namenode changes nothing
    #[command(after_help = SAFE_MODE_HELP)]
    Safemode {
        /// What to do
        #[arg(value_enum)]
        action: SafeModeOrder,
    },
}

/// What `situ admin safemode` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SafeModeOrder {
    /// Say whether it is on, and why
    Get,
    /// Enter it, until it is left by an order
    Enter,
    /// Leave it, whatever it waits for
    Leave,
    /// Wait until it is off
    Wait,
}

/// `situ fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Where to look
    #[arg(default_value = "/")]
    pub path: String,
}

/// `situ chaos`.
#[derive(Debug, Subcommand)]
pub enum ChaosCommand {
    /// Kill and stop processes, over and over, while files and jobs go on
    #[command(after_help = KILLS_HELP)]
    Kills(KillsArgs),
    /// Run one job of thousands of actions and show whether they become slower and processes larger
    #[command(hide = true, after_help = "Example:\n  situ chaos rounds --rounds 5000")]
    Rounds(RoundsArgs),
}

const KILLS_HELP: &str = "\
A kill is `kill -9`, and the role is started again a moment later. A pause stops a process as a machine that swaps or a \
frozen container does, for 50 ms to 3 s, and one in eight for so long that it counts as lost meanwhile. Both befall the \
namenode, the scheduler, datanodes, executors, and the drivers and workers of jobs.

Example:
  situ chaos kills --kills 100 --pauses 100 --seed 7";

/// `situ chaos rounds`.
#[derive(Debug, Args)]
pub struct RoundsArgs {
    /// How many rounds of k-means, an action each
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub rounds: u32,
    /// Each round is a scope of the program
    #[arg(long)]
    pub scopes: bool,
}

/// `situ chaos kills`.
#[derive(Debug, Args)]
pub struct KillsArgs {
    /// How many kills
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub kills: u32,
    /// How many pauses
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub pauses: u32,
    /// Decides who is killed or stopped, and when [default: drawn, and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Keep the cluster's directory here
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `situ ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make a cluster's certificate authority
    #[command(after_help = "Example:\n  situ ca init --dir ./ca")]
    Init {
        /// Where to keep it
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Issue a certificate for one process of the cluster, or for a user
    #[command(
        after_help = "Example:\n  situ ca issue --dir ./ca --role datanode --name node-1 --out ./node-1/credentials"
    )]
    Issue {
        /// Where the authority is
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// For which role
        #[arg(long, value_enum)]
        role: RoleArg,
        /// For which node or user
        #[arg(long)]
        name: String,
        /// Where to put the certificate
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show which cluster a directory's certificates are of, and whose they are
    #[command(after_help = "Example:\n  situ ca show --dir ./ca")]
    Show {
        /// Where the authority or a certificate is
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// A role, as a certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Holds the namespace.
    Namenode,
    /// Holds replicas.
    Datanode,
    /// Holds jobs.
    Scheduler,
    /// Runs workers.
    Executor,
    /// A person or a program.
    User,
}

/// What all roles take.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The role's configuration, in TOML
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Listen here instead of where the configuration says
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Make its directories first, those that hold nothing yet: once, when the role is new, has got a new disk, or has lost
    /// one for good
    #[arg(long)]
    pub format: bool,
    /// End when standard input ends, and say on standard output where it listens; for whoever starts and watches this
    /// process
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// `situ program`.
#[derive(Debug, Args)]
pub struct ProgramArgs {
    /// Its name, then its arguments, all of them
    #[arg(required = true, trailing_var_arg = true, value_name = "NAME")]
    pub command: Vec<String>,
}

/// Takes a size such as `16M`, `1GiB` or `4096`; the units are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        unit => return Err(format!("{unit:?} is not a unit; use K, M or G")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size; write one such as 16M"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Situ::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_shows_an_example() {
        fn visit(command: &clap::Command) {
            if command.get_subcommands().next().is_none() && !command.is_hide_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{} has no example", command.get_name());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Situ::command());
    }

    #[test]
    fn what_follows_a_submitted_program_is_for_the_program() {
        let submitted = |line: &str| match Situ::try_parse_from(line.split(' ')) {
            Ok(Situ { json, command: Command::Job(JobCommand::Submit(args)), .. }) => (json, args.command),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(submitted("situ job submit ./a"), (false, vec!["./a".into()]));
        let arguments = ["./a", "--json", "--help", "-x", "--cluster", "c", "--", "b"].map(std::ffi::OsString::from);
        assert_eq!(submitted("situ job submit ./a --json --help -x --cluster c -- b"), (false, arguments.to_vec()));
        assert!(submitted("situ job submit --json ./a --json").0);
        assert!(Situ::try_parse_from(["situ", "job", "submit", "--jsno", "./a"]).is_err());
    }

    #[test]
    fn sizes_are_taken_with_and_without_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert!(parse_size("16X").is_err() && parse_size("M").is_err() && parse_size("99999999999G").is_err());
    }
}
