//! Executables that users have stored: fetched once, checked by their hash.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use situ_client::Client;
use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_wire::messages::scheduler::Program;

/// Where a program's executable is and what comes before its own arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Executable {
    pub(super) path: PathBuf,
    pub(super) leading: Vec<String>,
}

/// Finds a program's executable; one that is stored is fetched into `directory` unless it is there.
///
/// # Errors
/// Says why it cannot be run; trying again may help.
pub(super) async fn find<R: Runtime>(
    client: &Client<R>,
    own: &Path,
    directory: &Path,
    program: &Program,
) -> Result<Executable, String> {
    match program {
        Program::BuiltIn { name } => {
            Ok(Executable { path: own.to_owned(), leading: vec!["program".to_owned(), name.clone()] })
        }
        Program::Stored { name, path, hash } => {
            let hash = blake3::Hash::from_bytes(*hash);
            let target = directory.join(hash.to_hex().as_str());
            let failed = |reason: String| format!("the program {name} cannot be fetched from {path}: {reason}");
            if !client.runtime().disk().exists(&target).map_err(|error| failed(error.to_string()))? {
                fetch(client, path, hash, &target).await.map_err(failed)?;
            }
            Ok(Executable { path: target, leading: Vec::new() })
        }
    }
}

async fn fetch<R: Runtime>(
    client: &Client<R>,
    path: &situ_wire::path::DfsPath,
    expected: blake3::Hash,
    target: &Path,
) -> Result<(), String> {
    let reader = client.open(path).await.map_err(|error| error.to_string())?;
    let disk = client.runtime().disk().clone();
    // Two jobs may fetch the same program at once: each has its own name until it is whole.
    let aside = target.with_extension(format!("{:016x}", client.runtime().random_u64()));
    let file = disk.open(&aside, OpenMode::CreateNew).map_err(|error| error.to_string())?;
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    let mut stream = reader.stream(0..reader.len_bytes());
    while let Some(piece) = stream.next().await.map_err(|error| error.to_string())? {
        hasher.update(&piece);
        file.write_at(offset, &piece).map_err(|error| error.to_string())?;
        offset += piece.len() as u64;
    }
    drop(file);
    if hasher.finalize() != expected {
        let removed = disk.remove_file(&aside);
        return Err(format!("its bytes hash to {}, expected {expected}; {removed:?}", hasher.finalize()));
    }
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
    disk.rename(&aside, target).map_err(|error| error.to_string())
}
