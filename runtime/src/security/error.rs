use std::path::PathBuf;

/// What is wrong with certificates or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read or written.
    #[error("cannot {operation} {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the operating system says.
        reason: String,
    },
    /// A file is there already, and overwriting it would lock out everyone who trusts it.
    #[error("{} exists already: name another directory, or delete it if nobody needs this certificate any more", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A private key can be read by others.
    #[error("{} can be read by other users (mode {mode:03o}): run `chmod 600` on it, or have a new certificate issued if others may have read it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold {expected}: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is known.
        reason: String,
    },
    /// Two files do not belong together.
    #[error("{} does not belong to {}: {reason}; copy the files of one directory together", path.display(), other.display())]
    Mismatch {
        /// One file.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// What is known.
        reason: String,
    },
    /// A name cannot stand in a certificate.
    #[error(
        "{name:?} cannot be the name of a node or user: {found_bytes} bytes, between 1 and {limit_bytes} are allowed"
    )]
    Name {
        /// The name.
        name: String,
        /// Its length.
        found_bytes: usize,
        /// The most that is allowed.
        limit_bytes: usize,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate for {subject}: {reason}")]
    Issue {
        /// For whom.
        subject: String,
        /// What the library says.
        reason: String,
    },
    /// The TLS library does not take a certificate or its key.
    #[error("the certificate of {name:?} cannot be used: {reason}; have a new one issued")]
    Unusable {
        /// Whom it is for.
        name: String,
        /// What the library says.
        reason: String,
    },
}
