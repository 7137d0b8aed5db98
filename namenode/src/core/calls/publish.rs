//! A job's output in one step.

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::INodeId;
use situ_wire::limits::MESSAGE_LEN_BYTES;
use situ_wire::path::{DfsPath, is_copying};

use super::namespace::MOVED_NAMES;
use crate::core::authorize::{Access, Principal, authorize};
use crate::core::edit::{Change, Edge, Move};
use crate::core::errors::{COPYING_NAME, already_exists, blocked, invalid, not_found, parent_not_found};
use crate::core::namespace::Walk;
use crate::core::namesystem::Namesystem;

/// The most bytes that the moves of a publication take in the log. The rest of the edit has as much again.
const MOVES_LEN_BYTES: usize = MESSAGE_LEN_BYTES / 2;
/// The most bytes that a move takes in the log beside its two names.
const MOVE_LEN_BYTES: usize = 36;

impl Namesystem {
    /// Plans a publication against the namespace as it is. The moves must not depend on one another: no path among
    /// sources and targets lies within another, so that their order does not matter.
    pub(super) fn plan_publish(
        &self,
        who: &Principal<'_>,
        moves: &[(DfsPath, DfsPath)],
        remove: &DfsPath,
    ) -> Result<Change, RemoteError> {
        check_len(moves, remove)?;
        check_paths(moves, remove)?;
        let mut planned = Vec::with_capacity(moves.len());
        let mut room = MOVED_NAMES;
        for (from, to) in moves {
            planned.push(self.plan_publish_move(who, from, to, &mut room)?);
        }
        let removed = match self.walk(who, remove)? {
            Walk::Found(id) => Some(self.plan_removal(who, remove, id, true)?),
            Walk::Missing { .. } | Walk::Blocked => None,
        };
        Ok(Change::Publish { moves: planned, removed })
    }

    fn plan_publish_move(
        &self,
        who: &Principal<'_>,
        from: &DfsPath,
        to: &DfsPath,
        room: &mut usize,
    ) -> Result<Move, RemoteError> {
        let Walk::Found(child) = self.walk(who, from)? else { return Err(not_found(from)) };
        let inode = self.namespace.get(child).ok_or_else(|| not_found(from))?;
        self.may_remove(who, from, inode)?;
        if inode.file().is_some_and(|file| file.writer.is_some()) {
            let message = "it is still being written; publish it when it is closed";
            return Err(RemoteError::new(ErrorCode::BeingWritten, from, message));
        }
        let parent: INodeId = match self.walk_to(who, to)? {
            Walk::Blocked => return Err(blocked(to)),
            Walk::Missing { left, .. } if left > 1 => return Err(parent_not_found(to)),
            Walk::Missing { parent, .. } => parent,
            Walk::Found(id) => return Err(already_exists(to, self.kind_of(id))),
        };
        let directory = self.namespace.get(parent).ok_or_else(|| parent_not_found(to))?;
        authorize(Access::Write, directory, who, to, &self.namespace.names)?;
        self.check_below(child, from, to, room)?;
        let from = Edge { parent: inode.parent, name: from.name().to_owned(), child };
        Ok(Move { from, parent, name: to.name().to_owned(), replaced: None })
    }
}

/// Checks that the publication fits into one edit: it is one step, and one that is longer could not be logged.
fn check_len(moves: &[(DfsPath, DfsPath)], remove: &DfsPath) -> Result<(), RemoteError> {
    let len_bytes = moves.iter().map(|(from, to)| MOVE_LEN_BYTES + from.name().len() + to.name().len()).sum::<usize>();
    if len_bytes <= MOVES_LEN_BYTES {
        return Ok(());
    }
    let message = format!(
        "{} names to publish in one step are {len_bytes} bytes in the log; at most {MOVES_LEN_BYTES} are allowed; \
         publish fewer, or the directory that holds them",
        moves.len()
    );
    Err(RemoteError::new(ErrorCode::TooMuch, remove, message))
}

/// Checks that no path lies within another one where that would make the outcome depend on the order.
fn check_paths(moves: &[(DfsPath, DfsPath)], remove: &DfsPath) -> Result<(), RemoteError> {
    for path in moves.iter().flat_map(|(from, to)| [from, to]).chain([remove]) {
        if path.is_root() {
            return Err(invalid(path, "the root directory cannot be moved, replaced or removed"));
        }
    }
    for (_, target) in moves {
        if is_copying(target.name()) {
            return Err(invalid(target, COPYING_NAME));
        }
        if target.starts_with(remove) {
            return Err(invalid(target, format!("it lies within {remove}, which is removed; publish it elsewhere")));
        }
    }
    // Compared by their names, so that what lies within a path directly follows it.
    let mut paths: Vec<&DfsPath> = moves.iter().flat_map(|(from, to)| [from, to]).collect();
    paths.sort_unstable_by(|one, two| one.components().cmp(two.components()));
    for pair in paths.windows(2) {
        if pair[1].starts_with(pair[0]) {
            return Err(invalid(pair[1], format!("it lies within {}, which moves as well", pair[0])));
        }
    }
    if let Some((from, _)) = moves.iter().find(|(from, _)| remove.starts_with(from)) {
        return Err(invalid(remove, format!("it lies within {from}, which moves")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use situ_wire::codec::encode;
    use situ_wire::limits::NAME_LEN_BYTES;

    use super::*;

    #[test]
    fn no_move_takes_more_than_is_reckoned() {
        let (id, name) = (INodeId(u64::MAX), "n".repeat(NAME_LEN_BYTES));
        let from = Edge { parent: id, name: name.clone(), child: id };
        let longest = Move { from, parent: id, name, replaced: None };
        assert!(encode(&longest).unwrap().len() <= MOVE_LEN_BYTES + 2 * NAME_LEN_BYTES);
    }

    #[test]
    fn a_publication_that_does_not_fit_into_an_edit_is_refused() {
        let long = |at| DfsPath::parse(&format!("/{at:0>len$}", len = NAME_LEN_BYTES)).unwrap();
        let fit = MOVES_LEN_BYTES / (MOVE_LEN_BYTES + 2 * NAME_LEN_BYTES);
        let mut moves: Vec<_> = (0..fit).map(|at| (long(at), long(at))).collect();
        let remove = DfsPath::parse("/_temporary").unwrap();
        assert_eq!(check_len(&moves, &remove), Ok(()));
        moves.push((long(fit), long(fit)));
        assert_eq!(check_len(&moves, &remove).unwrap_err().code, ErrorCode::TooMuch);
    }
}
