use situ_runtime::rpc::RpcError;
use situ_wire::error::{ErrorCode, RemoteError, Retry};
use situ_wire::ids::JobId;
use situ_wire::path::PathError;

/// Why a call of a program's [`Context`](crate::Context) or [`Dataset`](crate::Dataset) failed.
///
/// Wherever the driver gets such an error, every worker that replays the program gets the same one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// A path is not one.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Input is not there or cannot be read.
    #[error("{path}: {message}")]
    Input {
        /// Which file, directory or pattern.
        path: String,
        /// What was found, and what to do.
        message: String,
    },
    /// The target of a job's output is there already.
    #[error(
        "{path}: the output directory exists already{}; delete it (`situ fs rm -r {path}`) or name another",
        published_by(.job.as_ref())
    )]
    OutputExists {
        /// Which directory.
        path: String,
        /// The job that has published it, if it says so.
        job: Option<JobId>,
    },
    /// The output could not be published.
    #[error("{path}: the output could not be published: {message}")]
    Publish {
        /// Which directory.
        path: String,
        /// Why.
        message: String,
    },
    /// An action failed.
    #[error("{action} failed: {message}")]
    Action {
        /// Which, and where it stands in the program.
        action: String,
        /// Why.
        message: String,
    },
    /// The result of an action is not what the program expects of it.
    #[error(
        "{action}: its result cannot be read back: {message}; does every type serialize to what it deserializes from?"
    )]
    Result {
        /// Which, and where it stands in the program.
        action: String,
        /// What was found.
        message: String,
    },
    /// A part of the result of an action is a file that cannot be read.
    #[error("{action}: a part of its result cannot be read: {message}")]
    ResultUnreadable {
        /// Which, and where it stands in the program.
        action: String,
        /// Why.
        message: String,
    },
    /// Two threads ran actions of one scope at once. Both calls fail with this, and every later one in that scope: what
    /// they would give is chance.
    #[error(
        "{action} was called while another one of the same scope runs: the actions of a scope run one after the other, in \
         the same order in every run of the program; give each thread a scope of its own, with a name of its own \
         (`context.scope(name, ..)`)"
    )]
    Concurrent {
        /// Which, and where it stands in the program.
        action: String,
    },
    /// Two threads were in scopes of one name at once.
    #[error(
        "{scope} was entered while another thread is in a scope of that name within the same one: which of them is the first \
         may be another one in each run of the program; name them after what differs, as in \
         `context.scope(&format!(\"part-{{i}}\"), ..)`"
    )]
    ScopeOpen {
        /// Which, and where it stands in the program.
        scope: String,
    },
    /// A thread counts on in a scope whose own thread is within another one.
    #[error(
        "{what} is called by a thread that is in no scope, while the thread that started it is, or may be, in one: within a \
         scope use the context that its body is given, and where scopes run at once let each of them have a thread of its own"
    )]
    OutOfScope {
        /// Which call, and where it stands in the program.
        what: String,
    },
    /// What only the driver computes makes use of the cluster.
    #[error(
        "{what} is called within a value that only the driver computes (`once`): workers could not follow it; run it before"
    )]
    InValue {
        /// Which call, and where it stands in the program.
        what: String,
    },
    /// A scope failed.
    #[error("{scope} failed: {message}")]
    Scope {
        /// Which, and where it stands in the program.
        scope: String,
        /// Why.
        message: String,
    },
    /// What was made in a scope is asked for after its end.
    #[error(
        "{scope} has ended, and what was made in it cannot be used any more: make it outside of the scope, or return its \
         records from there"
    )]
    ScopeEnded {
        /// Which, and where it stands in the program.
        scope: String,
    },
    /// A value is out of its range.
    #[error("{operation}: {message}")]
    Argument {
        /// Which call, and where it stands in the program.
        operation: String,
        /// What was expected and found.
        message: String,
    },
    /// The file system was away for so long that nobody waits for it any more.
    #[error("the file system is away: {message}")]
    FileSystemAway {
        /// What it said last.
        message: String,
    },
    /// The scheduler cannot be reached or refuses.
    #[error("{message}")]
    Scheduler {
        /// Which of these, and why.
        message: String,
    },
}

impl From<RpcError> for ProgramError {
    fn from(error: RpcError) -> Self {
        let what = match (error.retry(), error.remote()) {
            (Retry::Never, Some(_)) => "the scheduler refused",
            (Retry::Never, None) => "the scheduler could not be understood",
            _ => "the scheduler did not answer",
        };
        Self::Scheduler { message: format!("{what}: {error}") }
    }
}

fn published_by(job: Option<&JobId>) -> String {
    job.map(|job| format!(", as the output of {job}")).unwrap_or_default()
}

/// What a program returns: nothing, or any error.
pub type ProgramResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What the file system could not do for a program or a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StorageError {
    /// What kind of error, where it matters.
    pub(crate) code: ErrorCode,
    /// The thing, what was expected, what was found.
    pub(crate) message: String,
}

impl From<PathError> for StorageError {
    fn from(error: PathError) -> Self {
        Self { code: ErrorCode::InvalidArgument, message: error.to_string() }
    }
}

impl From<RemoteError> for StorageError {
    fn from(error: RemoteError) -> Self {
        Self { code: error.code, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_the_scheduler_has_answered_is_told() {
        let said = |code| ProgramError::from(RpcError::Remote(RemoteError::new(code, JobId(4), "why"))).to_string();
        assert_eq!(said(ErrorCode::JobFailed), "the scheduler refused: job-4: why");
        assert_eq!(said(ErrorCode::Unavailable), "the scheduler did not answer: job-4: why");
    }
}
