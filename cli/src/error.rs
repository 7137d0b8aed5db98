//! What the command line says when something fails, and with which exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// For the person: what it was about, what was expected, what was found, what to do.
    pub message: String,
    /// 1: the operation failed; 2: it was asked for wrongly.
    pub code: u8,
}

/// What a command gives.
pub type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// The operation failed.
    pub fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 2 }
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
impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::failed(error)
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
            CliError::failed(format!("{action} {}: {reason}", crate::show::escaped(&path.to_string_lossy())))
        })
    }
}
