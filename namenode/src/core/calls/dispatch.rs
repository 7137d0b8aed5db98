//! Who answers what; retries.

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ClientId, OperationId};
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::{DfsPath, is_copying};
use situ_wire::time::TimeMs;

use super::admission::{About, Weight, Wish};
use crate::core::authorize::{Access, Principal, authorize};
use crate::core::edit::Change;
use crate::core::errors::blocked;
use crate::core::event::Caller;
use crate::core::image::Outcome;
use crate::core::namespace::Walk;
use crate::core::namesystem::{Answer, Namesystem};
use crate::core::operations::Recall;

type Reply = Result<Response, RemoteError>;
type Plan = Result<Change, RemoteError>;

impl Namesystem {
    /// Answers a call.
    pub(in crate::core) fn answer(&mut self, now: TimeMs, caller: &Caller, request: Request) -> Answer {
        let who = Principal::new(&self.config, &self.namespace.names, caller);
        let result = match request {
            Request::Mkdir { path, parents, mode, operation } => {
                return self.change_with_ids(now, &who, &Wish::adds(operation, About::Path(&path)), |this| {
                    this.plan_mkdir(&who, &path, parents, mode)
                });
            }
            Request::Create { path, overwrite, parents, replication, block_len_bytes, mode, operation } => {
                let wish = super::namespace::Create { overwrite, parents, replication, block_len_bytes, mode };
                return self.change_with_ids(now, &who, &Wish::adds(operation, About::Path(&path)), |this| {
                    this.plan_create(now, &who, &path, &wish, operation.client)
                });
            }
            Request::AddBlock { inode, committed, exclude, node, operation } => {
                return self.change_with_ids(now, &who, &Wish::adds(operation, About::File(inode)), |this| {
                    this.plan_add_block(&who, operation.client, inode, &committed, &exclude, node.as_ref())
                });
            }
            Request::AbandonBlock { inode, block, operation } => {
                return self.change(now, &who, &Wish::frees(operation, About::File(inode)), |this| {
                    this.plan_abandon_block(&who, operation.client, inode, block)
                });
            }
            Request::RecoverPipeline { inode, block, survivors, operation } => {
                return self.change_with_ids(now, &who, &Wish::frees(operation, About::File(inode)), |this| {
                    this.plan_recover_pipeline(&who, operation.client, inode, block, survivors)
                });
            }
            Request::Complete { inode, committed, operation } => {
                return self.change(now, &who, &Wish::frees(operation, About::File(inode)), |this| {
                    this.plan_complete(&who, operation.client, inode, &committed)
                });
            }
            Request::Rename { from, to, overwrite, operation } => {
                // To give what was copied its name finishes it, and can be done once.
                let weight = if is_copying(from.name()) { Weight::Frees } else { Weight::Adds };
                let wish = Wish { operation, weight, about: About::Path(&from) };
                return self.change(now, &who, &wish, |this| this.plan_rename(&who, &from, &to, overwrite));
            }
            Request::Delete { path, recursive, operation } => {
                return self.change(now, &who, &Wish::frees(operation, About::Path(&path)), |this| {
                    this.plan_delete(&who, &path, recursive)
                });
            }
            Request::Publish { moves, remove, operation } => {
                return self.change(now, &who, &Wish::adds(operation, About::Path(&remove)), |this| {
                    this.plan_publish(&who, &moves, &remove)
                });
            }
            other => self.answer_unchanging(now, caller, &who, other),
        };
        Answer { when: self.last_tx, result }
    }

    /// Answers a call that changes no namespace.
    fn answer_unchanging(&mut self, now: TimeMs, caller: &Caller, who: &Principal<'_>, request: Request) -> Reply {
        match request {
            Request::RenewLease { client } => {
                self.check_client(who, client)?;
                self.leases.renew(client, now);
                Ok(Response::Done)
            }
            Request::Stat { path } => self.stat(who, &path).map(Response::Status),
            Request::StatMany { paths } => self.stat_many(who, &paths),
            Request::List { path, after, limit } => self.list(who, &path, after.as_deref(), limit),
            Request::Blocks { path, offset, len_bytes, node, client } => {
                self.file_blocks(now, who, &path, (offset, len_bytes), node.as_ref(), client)
            }
            Request::Summary { path } => self.summary(who, &path),
            Request::Report => Ok(Response::Report(Box::new(self.report()))),
            Request::Fsck { path, after, limit } => self.fsck(who, &path, after.as_ref(), limit),
            Request::SafeMode { action } => self.order_safe_mode(now, who, action),
            Request::ReportCorrupt { block, datanode } => self.report_corrupt(who, block, datanode),
            other => self.answer_datanode(now, caller, other),
        }
    }

    /// Carries out an operation that gives out ids or stamps.
    fn change_with_ids(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        wish: &Wish<'_>,
        plan: impl FnOnce(&mut Self) -> Plan,
    ) -> Answer {
        self.change(now, who, wish, |this| {
            this.begin_epoch(now)?;
            plan(this)
        })
    }

    /// Carries out an operation once, whatever is retried.
    fn change(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        wish: &Wish<'_>,
        plan: impl FnOnce(&mut Self) -> Plan,
    ) -> Answer {
        let operation = wish.operation;
        if let Err(error) = self.check_client(who, operation.client) {
            return Answer { when: self.last_tx, result: Err(error) };
        }
        self.leases.renew(operation.client, now);
        match self.operations.recall(operation) {
            Recall::Done(record) => {
                self.claim(who, operation.client);
                let result = self.respond(now, who, operation, record.outcome);
                // A block is answered as it is now; everything else as it was then.
                let is_block = matches!(record.outcome, Outcome::Block { .. });
                return Answer { when: if is_block { self.last_tx } else { record.tx }, result };
            }
            Recall::Forgotten => {
                let error = RemoteError::new(
                    ErrorCode::TooMuch,
                    format!("operation {}", operation.sequence),
                    "it is older than all of its client that are remembered, so that nobody knows whether it was carried out; \
                     look at what it should have changed",
                );
                return Answer { when: self.last_tx, result: Err(error) };
            }
            Recall::New => {}
        }
        let result = self.planned(now, who, wish, plan).and_then(|outcome| self.respond(now, who, operation, outcome));
        Answer { when: self.last_tx, result }
    }

    /// A client is one process of one user. Whoever learned its id must not use up its next operations, or be taken for
    /// it.
    fn check_client(&self, who: &Principal<'_>, client: ClientId) -> Result<(), RemoteError> {
        match self.leases.user_of(client).or_else(|| self.operations.user_of(client)) {
            Some(user) if !who.is(user) => Err(RemoteError::new(
                ErrorCode::PermissionDenied,
                format!("user {:?}", who.user),
                "another user calls as the client of this id; a client takes a fresh one when it starts",
            )),
            _ => Ok(()),
        }
    }

    /// Notes whose a client is.
    fn claim(&mut self, who: &Principal<'_>, client: ClientId) {
        let user = self.namespace.names.intern(who.user);
        self.operations.claim(client, user);
    }

    fn planned(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        wish: &Wish<'_>,
        plan: impl FnOnce(&mut Self) -> Plan,
    ) -> Result<Outcome, RemoteError> {
        self.admit(who, wish)?;
        let change = plan(self)?;
        let outcome = change.outcome();
        self.commit(now, Some(wish.operation), change);
        self.claim(who, wish.operation.client);
        Ok(outcome)
    }

    /// The answer to an operation, from its outcome.
    fn respond(&mut self, now: TimeMs, who: &Principal<'_>, operation: OperationId, outcome: Outcome) -> Reply {
        match outcome {
            Outcome::Done => Ok(Response::Done),
            Outcome::Created { inode, block_len_bytes, replication } => {
                Ok(Response::Created { inode, block_len_bytes, replication })
            }
            Outcome::Deleted(found) => Ok(Response::Deleted(found)),
            Outcome::Block { block } => self.block_to_write(now, who, operation.client, block).map(Response::Block),
        }
    }

    /// Follows a path; every directory on the way must be searchable.
    pub(super) fn walk(&self, who: &Principal<'_>, path: &DfsPath) -> Result<Walk, RemoteError> {
        self.namespace.walk(path, |directory| authorize(Access::Search, directory, who, path, &self.namespace.names))
    }

    /// Follows a path whose target need not be there; a file on the way is an error.
    pub(super) fn walk_to(&self, who: &Principal<'_>, path: &DfsPath) -> Result<Walk, RemoteError> {
        match self.walk(who, path)? {
            Walk::Blocked => Err(blocked(path)),
            walk => Ok(walk),
        }
    }
}
