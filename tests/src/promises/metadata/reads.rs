//! What reads must have seen.

use situ_wire::error::ErrorCode;
use situ_wire::ids::BlockId;
use situ_wire::messages::namenode::{FileStatus, Request, Response};
use situ_wire::path::DfsPath;

use super::entry::{Entry, FileEntry};
use super::model::{Found, Model};

impl Model {
    /// Checks the answer to a read against the namespace as it is.
    ///
    /// # Errors
    /// Says what the answer should have been.
    pub fn check_read(&self, request: &Request, answer: Result<&Response, ErrorCode>) -> Result<(), String> {
        match request {
            Request::Stat { path } => self.check_stat(path, answer),
            Request::List { path, after, limit } => self.check_list(path, after.as_deref(), *limit, answer),
            Request::Blocks { path, offset: 0, .. } => self.check_blocks(path, answer),
            _ => Ok(()),
        }
    }

    fn check_stat(&self, path: &DfsPath, answer: Result<&Response, ErrorCode>) -> Result<(), String> {
        let expected = match self.find(path) {
            Found::Entry(entry) => Some(entry),
            Found::Missing(_) | Found::Blocked => None,
        };
        match answer {
            Ok(Response::Status(found)) => match (found, expected) {
                (None, None) => Ok(()),
                (Some(status), Some(entry)) if is_status_of(status, path.as_str(), entry) => Ok(()),
                _ => Err(format!("{path}: found {found:?}, expected {expected:?}")),
            },
            other => Err(format!("{path}: found {other:?}, expected {expected:?}")),
        }
    }

    fn check_list(
        &self,
        path: &DfsPath,
        after: Option<&str>,
        limit: u32,
        answer: Result<&Response, ErrorCode>,
    ) -> Result<(), String> {
        let (entries, more) = match (self.find(path), answer) {
            (Found::Missing(_), Err(ErrorCode::NotFound)) | (Found::Blocked, Err(ErrorCode::NotADirectory)) => {
                return Ok(());
            }
            (Found::Entry(_), Ok(Response::Listing { entries, more })) => (entries, *more),
            (found, other) => return Err(format!("{path}: found {other:?}, expected {found:?}")),
        };
        let children = match self.find(path) {
            Found::Entry(entry @ Entry::File(_)) => vec![(path.as_str().to_owned(), entry)],
            _ => {
                let children = self.children(path).into_iter();
                let children = children.filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
                let prefix = if path.is_root() { String::new() } else { path.as_str().to_owned() };
                children.map(|(name, entry)| (format!("{prefix}/{name}"), entry)).collect()
            }
        };
        let page: Vec<_> = children.iter().take(limit as usize).collect();
        let fits = page.len() == entries.len()
            && page.iter().zip(entries).all(|((path, entry), status)| is_status_of(status, path, entry));
        if fits && more == (children.len() > page.len()) {
            return Ok(());
        }
        Err(format!("{path}: found {entries:?} and more: {more}, expected {children:?} from {after:?} on"))
    }

    fn check_blocks(&self, path: &DfsPath, answer: Result<&Response, ErrorCode>) -> Result<(), String> {
        match (self.find(path), answer) {
            (Found::Missing(_), Err(ErrorCode::NotFound))
            | (Found::Blocked, Err(ErrorCode::NotADirectory))
            | (Found::Entry(Entry::Directory { .. }), Err(ErrorCode::IsADirectory)) => Ok(()),
            (Found::Entry(entry @ Entry::File(file)), Ok(Response::Blocks { status, blocks })) => {
                if !is_status_of(status, path.as_str(), entry) {
                    return Err(format!("{path}: found {status:?}, expected {entry:?}"));
                }
                let found: Vec<_> = blocks.iter().map(|located| (located.block.id, located.offset)).collect();
                if found != offsets(file) {
                    return Err(format!("{path}: found blocks {found:?}, expected {:?}", file.blocks));
                }
                for (located, block) in blocks.iter().zip(file.final_blocks()) {
                    let Some((len_bytes, root)) = block.committed else { continue };
                    if (located.block, located.len_bytes, located.root) != (block.block(), len_bytes, Some(root)) {
                        return Err(format!("{path}: found {located:?}, expected {block:?}"));
                    }
                }
                Ok(())
            }
            (found, other) => Err(format!("{path}: found {other:?}, expected {found:?}")),
        }
    }
}

fn offsets(file: &FileEntry) -> Vec<(BlockId, u64)> {
    (0_u64..).zip(&file.blocks).map(|(at, block)| (block.id, at * file.block_len_bytes)).collect()
}

fn is_status_of(status: &FileStatus, path: &str, entry: &Entry) -> bool {
    status.path.as_str() == path && status.inode == entry.inode() && status.kind == entry.kind()
}
