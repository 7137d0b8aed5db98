use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::SecurityError;

/// The longest file of certificates that is read.
const FILE_LEN_BYTES: u64 = 1 << 20;

pub(super) fn create_directory(path: &Path) -> Result<(), SecurityError> {
    fs::create_dir_all(path).map_err(|error| failed(path, "create", &error))
}

/// Writes a file that must not be there, for the owner's eyes only.
pub(super) fn write_new(path: &Path, contents: &str) -> Result<(), SecurityError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(contents.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => SecurityError::Exists { path: path.to_owned() },
        _ => failed(path, "write", &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    let len = fs::metadata(path).map_err(|error| failed(path, "read", &error))?.len();
    if len > FILE_LEN_BYTES {
        return Err(malformed(path, "certificates or a key", format!("{len} bytes are too many")));
    }
    fs::read(path).map_err(|error| failed(path, "read", &error))
}

pub(super) fn read_text(path: &Path) -> Result<String, SecurityError> {
    String::from_utf8(read(path)?).map_err(|error| malformed(path, "text", error.to_string()))
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(malformed(path, "a certificate", "there is none in it")),
        Err(error) => Err(malformed(path, "a certificate", error.to_string())),
    }
}

/// A private key, which only its owner may be able to read.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, SecurityError> {
    let mode = fs::metadata(path).map_err(|error| failed(path, "read", &error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecurityError::Exposed { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| malformed(path, "a private key", error.to_string()))
}

pub(super) fn malformed(path: &Path, expected: &'static str, reason: impl Into<String>) -> SecurityError {
    SecurityError::Malformed { path: path.to_owned(), expected, reason: reason.into() }
}

fn failed(path: &Path, operation: &'static str, error: &std::io::Error) -> SecurityError {
    SecurityError::File { path: path.to_owned(), operation, reason: error.to_string() }
}
