use situ_runtime::Runtime;
use situ_wire::limits::LIST_ENTRIES;
use situ_wire::messages::namenode::{FileHealth, FileStatus, Request, Response};
use situ_wire::path::DfsPath;

use super::client::Client;
use super::remote::{answer, asked};
use crate::error::ClientError;

/// How many files a page of health has: each carries its blocks.
const HEALTH_FILES: u32 = 200;

/// A directory's entries by name, page by page. What changes meanwhile may or may not show.
#[derive(Debug)]
pub struct Listing<R: Runtime> {
    client: Client<R>,
    path: DfsPath,
    after: Option<String>,
    done: bool,
}

impl<R: Runtime> Listing<R> {
    pub(super) fn new(client: Client<R>, path: DfsPath) -> Self {
        Self { client, path, after: None, done: false }
    }

    /// The next entries; none when all have been given.
    ///
    /// # Errors
    /// When nothing is at the path, or the namenode refuses or cannot be reached.
    pub async fn next_page(&mut self) -> Result<Option<Vec<FileStatus>>, ClientError> {
        if self.done {
            return Ok(None);
        }
        let asked = asked("list", &self.path);
        let request = Request::List { path: self.path.clone(), after: self.after.clone(), limit: LIST_ENTRIES };
        let (entries, more) = answer!(
            asked, "List", self.client.ask(asked, &request).await?,
            Response::Listing { entries, more } => (entries, more)
        )?;
        // A page without entries leads no further, whatever it says.
        match entries.last() {
            Some(last) if more => self.after = Some(last.path.name().to_owned()),
            _ => self.done = true,
        }
        Ok(Some(entries))
    }
}

/// The health of the files below a path, by path, page by page.
#[derive(Debug)]
pub struct FsckPages<R: Runtime> {
    client: Client<R>,
    path: DfsPath,
    after: Option<DfsPath>,
    done: bool,
}

impl<R: Runtime> FsckPages<R> {
    pub(super) fn new(client: Client<R>, path: DfsPath) -> Self {
        Self { client, path, after: None, done: false }
    }

    /// The next files; none when all have been given.
    ///
    /// # Errors
    /// When nothing is at the path, or the namenode refuses or cannot be reached.
    pub async fn next_page(&mut self) -> Result<Option<Vec<FileHealth>>, ClientError> {
        if self.done {
            return Ok(None);
        }
        let asked = asked("check", &self.path);
        let request = Request::Fsck { path: self.path.clone(), after: self.after.clone(), limit: HEALTH_FILES };
        let (files, more) = answer!(
            asked, "Fsck", self.client.ask(asked, &request).await?,
            Response::Health { files, more } => (files, more)
        )?;
        match files.last() {
            Some(last) if more => self.after = Some(last.path.clone()),
            _ => self.done = true,
        }
        Ok(Some(files))
    }
}
