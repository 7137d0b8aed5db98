use situ_runtime::Runtime;
use situ_wire::block::{Block, LocatedBlock};
use situ_wire::ids::{DatanodeId, OperationId};
use situ_wire::limits::BATCH_NAMES;
use situ_wire::messages::namenode::{ClusterReport, ContentSummary, FileStatus, Request, Response, SafeModeAction};
use situ_wire::path::DfsPath;

use super::client::Client;
use super::pages::{FsckPages, Listing};
use super::remote::{answer, asked};
use crate::error::ClientError;

/// Calls on the namespace. Each is made again, as the same operation, while that can help; see [`ClientError`] for what
/// comes back otherwise.
impl<R: Runtime> Client<R> {
    /// Makes a directory with permission bits `mode`. With `parents`, missing parents are made too, and a directory that
    /// is there already is fine.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn mkdir(&self, path: &DfsPath, parents: bool, mode: u16) -> Result<(), ClientError> {
        let asked = asked("make directory", path);
        let request = Request::Mkdir { path: path.clone(), parents, mode, operation: self.operation() };
        answer!(asked, "Mkdir", self.ask(asked, &request).await?, Response::Done => ())
    }

    /// What is at a path; none if nothing is there.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn stat(&self, path: &DfsPath) -> Result<Option<FileStatus>, ClientError> {
        let asked = asked("look up", path);
        let request = Request::Stat { path: path.clone() };
        answer!(asked, "Stat", self.ask(asked, &request).await?, Response::Status(status) => status)
    }

    /// Whether anything is at a path.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn exists(&self, path: &DfsPath) -> Result<bool, ClientError> {
        Ok(self.stat(path).await?.is_some())
    }

    /// What is at many paths, in the same order.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn stat_many(&self, paths: &[DfsPath]) -> Result<Vec<Option<FileStatus>>, ClientError> {
        let mut all = Vec::with_capacity(paths.len());
        for part in paths.chunks(BATCH_NAMES) {
            let asked = asked("look up", &part[0]);
            let request = Request::StatMany { paths: part.to_vec() };
            let statuses = answer!(
                asked, "StatMany", self.ask(asked, &request).await?,
                Response::Statuses(statuses) if statuses.len() == part.len() => statuses
            )?;
            all.extend(statuses);
        }
        Ok(all)
    }

    /// What a directory holds, by name, page by page; of a file, itself.
    #[must_use]
    pub fn list(&self, path: &DfsPath) -> Listing<R> {
        Listing::new(self.clone(), path.clone())
    }

    /// All that a directory holds, by name; of a file, itself. For a directory that may be huge take [`Client::list`].
    ///
    /// # Errors
    /// When nothing is there, or the namenode refuses or cannot be reached.
    pub async fn list_all(&self, path: &DfsPath) -> Result<Vec<FileStatus>, ClientError> {
        let mut listing = self.list(path);
        let mut all = Vec::new();
        while let Some(page) = listing.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// Moves a file or directory to the path `to` itself; with `overwrite` an existing file there is replaced in the
    /// same step.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn rename(&self, from: &DfsPath, to: &DfsPath, overwrite: bool) -> Result<(), ClientError> {
        let asked = asked("rename", from);
        let request = Request::Rename { from: from.clone(), to: to.clone(), overwrite, operation: self.operation() };
        answer!(asked, "Rename", self.ask(asked, &request).await?, Response::Done => ())
    }

    /// Deletes a file or directory; `recursive` takes a directory with all that it holds. Says whether anything was
    /// there.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, ClientError> {
        let asked = asked("delete", path);
        let request = Request::Delete { path: path.clone(), recursive, operation: self.operation() };
        answer!(asked, "Delete", self.ask(asked, &request).await?, Response::Deleted(deleted) => deleted)
    }

    /// Publishes a job's output in one step: all `moves` happen and `remove` goes, or nothing happens. It is the operation
    /// that the caller names: whoever goes on with its work later, in another process, asks again under the same name, and
    /// it is done once.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        remove: &DfsPath,
        operation: OperationId,
    ) -> Result<(), ClientError> {
        let asked = asked("publish", remove);
        let request = Request::Publish { moves, remove: remove.clone(), operation };
        answer!(asked, "Publish", self.ask(asked, &request).await?, Response::Done => ())
    }

    /// Sums up what lies below a path.
    ///
    /// # Errors
    /// When nothing is there, or the namenode refuses or cannot be reached.
    pub async fn summary(&self, path: &DfsPath) -> Result<ContentSummary, ClientError> {
        let asked = asked("sum up", path);
        let request = Request::Summary { path: path.clone() };
        answer!(asked, "Summary", self.ask(asked, &request).await?, Response::Summary(summary) => summary)
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn report(&self) -> Result<ClusterReport, ClientError> {
        let asked = asked("ask for the state of", &"the cluster");
        answer!(asked, "Report", self.ask(asked, &Request::Report).await?, Response::Report(report) => *report)
    }

    /// Does something about the namenode's safe mode, or only asks; why it is on afterwards, if it is.
    ///
    /// # Errors
    /// When the namenode refuses, as it does unless the superuser asks, or cannot be reached.
    pub async fn safe_mode(&self, action: SafeModeAction) -> Result<Option<String>, ClientError> {
        let asked = asked("change or ask for the safe mode of", &"the cluster");
        let answer = self.ask(asked, &Request::SafeMode { action }).await?;
        answer!(asked, "SafeMode", answer, Response::SafeMode(reason) => reason)
    }

    /// The health of the files below a path, page by page.
    #[must_use]
    pub fn fsck(&self, path: &DfsPath) -> FsckPages<R> {
        FsckPages::new(self.clone(), path.clone())
    }

    /// A file and those of its blocks that hold `len_bytes` bytes from `offset` on, replicas nearest to this client
    /// first. The namenode may give fewer than were asked for.
    ///
    /// # Errors
    /// When it is not a file, or the namenode refuses or cannot be reached.
    pub async fn blocks_in(
        &self,
        path: &DfsPath,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(FileStatus, Vec<LocatedBlock>), ClientError> {
        let asked = asked("find the blocks of", path);
        let request = Request::Blocks {
            path: path.clone(),
            offset,
            len_bytes,
            node: self.shared.config.node.clone(),
            client: self.shared.id,
        };
        answer!(
            asked, "Blocks", self.ask(asked, &request).await?,
            Response::Blocks { status, blocks } => (status, blocks)
        )
    }

    /// Tells the namenode of a replica whose bytes did not verify.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn report_corrupt(&self, block: Block, datanode: DatanodeId) -> Result<(), ClientError> {
        let asked = asked("report a corrupt replica of", &block);
        let request = Request::ReportCorrupt { block, datanode };
        answer!(asked, "ReportCorrupt", self.ask(asked, &request).await?, Response::Done => ())
    }
}
