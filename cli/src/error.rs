//! What the command line says when something fails, and with which exit code.

use std::fmt::Display;
use std::process::ExitCode;

use situ_client::ClientError;

use crate::show;

/// The exit code of a command that its user has interrupted, as a shell shows it.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// For the person: what it was about, what was expected, what was found, what to do.
    pub message: String,
    /// 1: the operation failed; 2: it was asked for wrongly; 130: its user did not wait for its end.
    pub code: u8,
    /// Nothing else can be done either, as when the cluster is away: whoever does several things leaves off.
    pub ends: bool,
}

/// What a command gives.
pub type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// The operation failed.
    pub fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 1, ends: false }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 2, ends: false }
    }

    /// Its user does not wait for its end, which says nothing of how it goes.
    pub fn interrupted(message: impl Display) -> Self {
        Self { code: INTERRUPTED, ..Self::failed(message) }
    }

    /// The same, and nothing else can be done either.
    #[must_use]
    pub fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    /// Says it to the person and, as JSON, to a program. One without a message has been said before.
    pub fn say(&self, json: bool) {
        if self.message.is_empty() {
            return;
        }
        if json {
            // If nobody reads it, the exit code still tells.
            let _ = show::json(&serde_json::json!({ "error": self.message }));
        }
        show::note(format!("situ: {}", self.message.trim_end()));
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Every typed error of the libraries is a failed operation; its message is for people already.
impl<E: std::error::Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        let client: Option<&ClientError> = (&error as &dyn std::error::Error).downcast_ref();
        let ends = matches!(client, Some(ClientError::Unreachable(_)));
        Self { ends, ..Self::failed(error) }
    }
}

/// What failed of several things that are done one after the other. As Unix tools do, each failure is said at once, the
/// rest goes on, and the command ends with 1.
#[derive(Debug)]
pub struct Failures {
    json: bool,
    any: bool,
}

impl Failures {
    /// None yet; they are said as JSON too if `json`.
    pub fn new(json: bool) -> Self {
        Self { json, any: false }
    }

    /// What was done, if it was; says why it was not.
    ///
    /// # Errors
    /// When nothing else can be done either.
    pub fn note<T>(&mut self, done: Result<T, impl Into<CliError>>) -> CliResult<Option<T>> {
        match done.map_err(Into::into) {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.ends => Err(error),
            Err(error) => {
                error.say(self.json);
                self.any = true;
                Ok(None)
            }
        }
    }

    /// Whether anything failed.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Ends the command.
    ///
    /// # Errors
    /// When anything failed; it has been said already.
    pub fn end(self) -> CliResult {
        if self.any { Err(CliError::failed("")) } else { Ok(()) }
    }
}

/// Says which local file an error of the operating system is about.
pub trait LocalContext<T> {
    /// Adds what was tried with which file.
    fn local(self, action: &str, path: &std::path::Path) -> CliResult<T>;
}

impl<T> LocalContext<T> for std::io::Result<T> {
    fn local(self, action: &str, path: &std::path::Path) -> CliResult<T> {
        self.map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                std::io::ErrorKind::StorageFull => "the disk is full; free some space and try again".to_owned(),
                _ => error.to_string(),
            };
            CliError::failed(format!("{action} {}: {reason}", show::escaped(&path.to_string_lossy())))
        })
    }
}
