//! Make, rename and delete.

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ClientId, INodeId};
use situ_wire::limits::{BLOCK_LEN_MAX_BYTES, BLOCK_LEN_MIN_BYTES, PATH_DEPTH, PATH_LEN_BYTES, REPLICATION_MAX};
use situ_wire::path::{DfsPath, is_copying};
use situ_wire::time::TimeMs;

use crate::core::authorize::{Access, Principal, authorize, authorize_removal};
use crate::core::edit::{Change, Edge, Move, NewDirectory, NewFile};
use crate::core::errors::{
    COPYING_NAME, already_exists, blocked, invalid, is_a_directory, not_found, parent_not_found,
};
use crate::core::inode::{INode, Writer};
use crate::core::namespace::Walk;
use crate::core::namesystem::Namesystem;

/// The permission bits there are: read, write and execute for three, and the sticky bit.
const MODE_BITS: u16 = 0o1777;
/// What the owner of a directory needs at least to put something into it.
const OWNER_ENTERS: u16 = 0o300;
/// The permission bits of a directory that is made on the way to a file.
pub(super) const PARENT_MODE: u16 = 0o755;

/// What the users of a cluster share: the directories in which jobs have their own, and the executables that are submitted.
const COMMON: [&str; 3] = ["/.situ", "/.situ/jobs", "/.situ/programs"];
/// Everybody may put something there, and take away only what is theirs.
const COMMON_MODE: u16 = 0o1777;

/// How many names below a directory are looked at before it moves.
pub(super) const MOVED_NAMES: usize = 10_000;

/// What a file to create shall be.
pub(super) struct Create {
    pub(super) overwrite: bool,
    pub(super) parents: bool,
    pub(super) replication: u16,
    pub(super) block_len_bytes: u64,
    pub(super) mode: u16,
}

/// Where something new goes: missing directories, topmost first, then the last directory and the name there.
pub(super) struct Place {
    pub(super) directories: Vec<NewDirectory>,
    pub(super) parent: INodeId,
    pub(super) name: String,
    pub(super) group: String,
    pub(super) next_inode: INodeId,
}

impl Namesystem {
    pub(super) fn plan_mkdir(
        &self,
        who: &Principal<'_>,
        path: &DfsPath,
        parents: bool,
        mode: u16,
    ) -> Result<Change, RemoteError> {
        check_mode(path, mode)?;
        // Whoever needs them first has them made, and they belong to nobody who could keep others out.
        let superuser = Principal::superuser(&self.config, &self.namespace.names);
        let (who, mode) =
            if parents && COMMON.contains(&path.as_str()) { (&superuser, COMMON_MODE) } else { (who, mode) };
        let (parent, left) = match self.walk_to(who, path)? {
            Walk::Found(id) if parents && self.namespace.get(id).is_some_and(INode::is_directory) => {
                return Ok(Change::Mkdir { directories: Vec::new() });
            }
            Walk::Found(id) => return Err(already_exists(path, self.kind_of(id))),
            Walk::Blocked => return Err(blocked(path)),
            Walk::Missing { parent, left } => (parent, left),
        };
        if left > 1 && !parents {
            return Err(parent_not_found(path));
        }
        let place = self.place(who, path, parent, left, mode | OWNER_ENTERS, self.meta.next_inode)?;
        let mut directories = place.directories;
        directories.push(NewDirectory {
            inode: place.next_inode,
            parent: place.parent,
            name: place.name,
            owner: who.user.to_owned(),
            group: place.group,
            mode,
        });
        Ok(Change::Mkdir { directories })
    }

    pub(super) fn plan_create(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        path: &DfsPath,
        wish: &Create,
        client: ClientId,
    ) -> Result<Change, RemoteError> {
        check_mode(path, wish.mode)?;
        if wish.replication == 0 || wish.replication > REPLICATION_MAX {
            let found = wish.replication;
            return Err(invalid(path, format!("replication {found}: expected 1 to {REPLICATION_MAX}")));
        }
        if !(BLOCK_LEN_MIN_BYTES..=BLOCK_LEN_MAX_BYTES).contains(&wish.block_len_bytes) {
            let found = wish.block_len_bytes;
            let message = format!("block size {found}: expected {BLOCK_LEN_MIN_BYTES} to {BLOCK_LEN_MAX_BYTES} bytes");
            return Err(invalid(path, message));
        }
        let (place, replaced) = match self.walk_to(who, path)? {
            Walk::Blocked => return Err(blocked(path)),
            Walk::Missing { left, .. } if left > 1 && !wish.parents => return Err(parent_not_found(path)),
            Walk::Missing { parent, left } => {
                (self.place(who, path, parent, left, PARENT_MODE, self.meta.next_inode)?, None)
            }
            Walk::Found(id) => {
                self.recover_if_left(now, who, path, id, client)?;
                let parent = self.may_replace(now, who, path, id, wish.overwrite, client)?;
                (self.place(who, path, parent, 1, PARENT_MODE, self.meta.next_inode)?, Some(id))
            }
        };
        let file = NewFile {
            inode: place.next_inode,
            parent: place.parent,
            name: place.name,
            owner: who.user.to_owned(),
            group: place.group,
            mode: wish.mode,
            replication: wish.replication,
            block_len_bytes: wish.block_len_bytes,
            writer: Some(client),
            replaced,
        };
        Ok(Change::Create { directories: place.directories, file })
    }

    /// Checks that a new file may take the place of what is at its path; gives back the directory.
    fn may_replace(
        &self,
        now: TimeMs,
        who: &Principal<'_>,
        path: &DfsPath,
        id: INodeId,
        overwrite: bool,
        client: ClientId,
    ) -> Result<INodeId, RemoteError> {
        let inode = self.namespace.get(id).ok_or_else(|| not_found(path))?;
        let Some(file) = inode.file() else { return Err(is_a_directory(path)) };
        if let Some(writer) = &file.writer
            && writer.client != client
            && !self.leases.is_soft_expired(writer.client, now)
        {
            return Err(self.being_written(now, path, writer));
        }
        if !overwrite {
            return Err(already_exists(path, "a file"));
        }
        authorize(Access::Write, inode, who, path, &self.namespace.names)?;
        self.may_remove(who, path, inode)?;
        Ok(inode.parent)
    }

    /// Closes a file whose writer has been silent for so long that another client may take it over.
    fn recover_if_left(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        path: &DfsPath,
        id: INodeId,
        client: ClientId,
    ) -> Result<(), RemoteError> {
        let Some(inode) = self.namespace.get(id) else { return Ok(()) };
        let Some(writer) = inode.file().and_then(|file| file.writer.as_ref()) else { return Ok(()) };
        if writer.client != client && self.leases.is_soft_expired(writer.client, now) {
            authorize(Access::Write, inode, who, path, &self.namespace.names)?;
            self.recover_file(now, id);
        }
        Ok(())
    }

    fn being_written(&self, now: TimeMs, path: &DfsPath, writer: &Writer) -> RemoteError {
        let silence_ms = self.leases.silence_ms(writer.client, now);
        RemoteError::new(
            ErrorCode::BeingWritten,
            path,
            format!(
                "another client, of user {:?}, writes it and was heard {silence_ms} ms ago; wait until it is closed, or \
                 until its writer has been silent for {} ms",
                self.namespace.names.text(writer.user),
                self.config.lease_soft_ms
            ),
        )
    }

    /// Checks that a user may take an inode out of its directory.
    pub(super) fn may_remove(&self, who: &Principal<'_>, path: &DfsPath, inode: &INode) -> Result<(), RemoteError> {
        let parent = self.namespace.get(inode.parent).ok_or_else(|| not_found(path))?;
        authorize_removal(parent, inode, who, path, &self.namespace.names)
    }

    /// Where a new name goes: `left` names below `parent` are missing, the new one included.
    pub(super) fn place(
        &self,
        who: &Principal<'_>,
        path: &DfsPath,
        parent: INodeId,
        left: usize,
        parent_mode: u16,
        mut next_inode: INodeId,
    ) -> Result<Place, RemoteError> {
        let directory = self.namespace.get(parent).ok_or_else(|| parent_not_found(path))?;
        authorize(Access::Write, directory, who, path, &self.namespace.names)?;
        // As in BSD and HDFS, what is new has the group of its directory.
        let group = self.namespace.names.text(directory.group).to_owned();
        let mut names: Vec<&str> = path.components().rev().take(left).collect();
        names.reverse();
        let name = names.pop().ok_or_else(|| already_exists(path, "the root directory"))?.to_owned();
        let (mut parent, mut directories) = (parent, Vec::new());
        for name in names {
            directories.push(NewDirectory {
                inode: next_inode,
                parent,
                name: name.to_owned(),
                owner: who.user.to_owned(),
                group: group.clone(),
                mode: parent_mode,
            });
            parent = next_inode;
            next_inode = INodeId(next_inode.0 + 1);
        }
        Ok(Place { directories, parent, name, group, next_inode })
    }

    pub(super) fn plan_rename(
        &self,
        who: &Principal<'_>,
        from: &DfsPath,
        to: &DfsPath,
        overwrite: bool,
    ) -> Result<Change, RemoteError> {
        if from.is_root() || to.is_root() {
            return Err(invalid(from, format!("to {to}: the root directory cannot be moved or replaced")));
        }
        let Walk::Found(child) = self.walk(who, from)? else { return Err(not_found(from)) };
        if is_copying(to.name()) {
            return Err(invalid(to, COPYING_NAME));
        }
        if from == to {
            return Err(already_exists(to, "the very thing that is to be moved"));
        }
        if to.starts_with(from) {
            return Err(invalid(from, format!("to {to}: it cannot be moved into itself; choose a target outside")));
        }
        let inode = self.namespace.get(child).ok_or_else(|| not_found(from))?;
        self.may_remove(who, from, inode)?;
        let (parent, replaced) = match self.walk_to(who, to)? {
            Walk::Blocked => return Err(blocked(to)),
            Walk::Missing { left, .. } if left > 1 => return Err(parent_not_found(to)),
            Walk::Missing { parent, .. } => (parent, None),
            Walk::Found(id) => {
                let target = self.namespace.get(id).ok_or_else(|| not_found(to))?;
                if target.is_directory() {
                    return Err(already_exists(to, "a directory"));
                }
                if !overwrite {
                    return Err(already_exists(to, "a file"));
                }
                if inode.is_directory() {
                    return Err(already_exists(to, "a file, which a directory cannot replace"));
                }
                self.may_remove(who, to, target)?;
                (target.parent, Some(id))
            }
        };
        let directory = self.namespace.get(parent).ok_or_else(|| parent_not_found(to))?;
        authorize(Access::Write, directory, who, to, &self.namespace.names)?;
        let mut room = MOVED_NAMES;
        self.check_below(child, from, to, &mut room)?;
        let from = Edge { parent: inode.parent, name: from.name().to_owned(), child };
        Ok(Change::Rename { moved: Move { from, parent, name: to.name().to_owned(), replaced } })
    }

    /// Checks that what lies below an inode still has valid paths when it moves: nobody could name it otherwise. Looks
    /// at `room` names at most, so that a large directory is not gone through; what is found too deep later is left out
    /// of reports.
    pub(super) fn check_below(
        &self,
        child: INodeId,
        from: &DfsPath,
        to: &DfsPath,
        room: &mut usize,
    ) -> Result<(), RemoteError> {
        let size = |path: &DfsPath| (path.components().count(), path.as_str().len());
        let (depth, len_bytes) = size(to);
        if depth <= size(from).0 && len_bytes <= size(from).1 {
            return Ok(());
        }
        let mut left = vec![(child, depth, len_bytes)];
        while let Some((id, depth, len_bytes)) = left.pop() {
            if depth > PATH_DEPTH || len_bytes > PATH_LEN_BYTES {
                let message = format!(
                    "to {to}: a path below it would have {depth} levels and {len_bytes} bytes; at most {PATH_DEPTH} and \
                     {PATH_LEN_BYTES} are allowed; choose a target further up"
                );
                return Err(invalid(from, message));
            }
            let children = self.namespace.get(id).and_then(INode::children).into_iter().flatten();
            for (name, child) in children.take(*room) {
                left.push((*child, depth + 1, len_bytes + 1 + name.len()));
                *room -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn plan_delete(
        &self,
        who: &Principal<'_>,
        path: &DfsPath,
        recursive: bool,
    ) -> Result<Change, RemoteError> {
        if path.is_root() {
            return Err(invalid(path, "the root directory cannot be deleted; delete what it holds"));
        }
        let Walk::Found(child) = self.walk(who, path)? else { return Ok(Change::Delete { removed: None }) };
        self.plan_removal(who, path, child, recursive).map(|removed| Change::Delete { removed: Some(removed) })
    }

    /// Checks that a user may remove an inode with all below it.
    pub(super) fn plan_removal(
        &self,
        who: &Principal<'_>,
        path: &DfsPath,
        child: INodeId,
        recursive: bool,
    ) -> Result<Edge, RemoteError> {
        let inode = self.namespace.get(child).ok_or_else(|| not_found(path))?;
        self.may_remove(who, path, inode)?;
        let mut left = vec![child];
        while let Some(id) = left.pop() {
            let Some(directory) = self.namespace.get(id) else { continue };
            let Some(children) = directory.children().filter(|children| !children.is_empty()) else { continue };
            if !recursive {
                let message =
                    format!("it holds {} names; ask for a recursive deletion to delete them too", children.len());
                return Err(RemoteError::new(ErrorCode::NotEmpty, path, message));
            }
            if who.is_superuser() {
                break;
            }
            authorize(Access::Search, directory, who, path, &self.namespace.names)?;
            for grandchild in children.values() {
                let Some(inode) = self.namespace.get(*grandchild) else { continue };
                authorize_removal(directory, inode, who, path, &self.namespace.names)?;
                if inode.is_directory() {
                    left.push(*grandchild);
                }
            }
        }
        Ok(Edge { parent: inode.parent, name: path.name().to_owned(), child })
    }

    pub(super) fn kind_of(&self, id: INodeId) -> &'static str {
        match self.namespace.get(id) {
            Some(inode) if inode.is_directory() => "a directory",
            _ => "a file",
        }
    }
}

fn check_mode(path: &DfsPath, mode: u16) -> Result<(), RemoteError> {
    if mode & !MODE_BITS == 0 {
        return Ok(());
    }
    Err(invalid(path, format!("mode {mode:o}: expected permission bits within {MODE_BITS:o}")))
}
