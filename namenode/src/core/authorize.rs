//! Who may do what: the one place where it is decided.

use situ_wire::error::{ErrorCode, RemoteError};

use super::config::CoreConfig;
use super::event::Caller;
use super::inode::INode;
use super::names::{NameId, Names};

/// What is to be done with an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Read a file, or list a directory.
    Read,
    /// Write a file, or add and remove names in a directory.
    Write,
    /// Look up a name in a directory.
    Search,
}

impl Access {
    fn bit(self) -> u16 {
        match self {
            Self::Read => 4,
            Self::Write => 2,
            Self::Search => 1,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Search => "search",
        }
    }
}

/// The bit of a directory in which only owners may remove names.
const STICKY: u16 = 0o1000;

/// The user of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Principal<'a> {
    pub(super) user: &'a str,
    /// The user's name among the names of owners and groups; none if nothing is the user's.
    id: Option<NameId>,
    superuser: bool,
}

impl<'a> Principal<'a> {
    pub(super) fn new(config: &CoreConfig, names: &Names, caller: &'a Caller) -> Self {
        Self { user: &caller.user, id: names.find(&caller.user), superuser: caller.user == config.superuser }
    }

    /// The superuser, for what is made in their name.
    pub(super) fn superuser(config: &'a CoreConfig, names: &Names) -> Self {
        Self { user: &config.superuser, id: names.find(&config.superuser), superuser: true }
    }

    pub(super) fn is_superuser(&self) -> bool {
        self.superuser
    }

    /// Whether this is the user of that name.
    pub(super) fn is(&self, name: NameId) -> bool {
        self.superuser || self.id == Some(name)
    }
}

/// Decides whether a user may do something with an inode, by the POSIX rules: the owner's bits for the owner, else the
/// group's bits for its members (a user is a member of the group of the same name), else the others' bits. The
/// superuser may do everything.
pub(super) fn authorize(
    access: Access,
    inode: &INode,
    who: &Principal<'_>,
    subject: &dyn std::fmt::Display,
    names: &Names,
) -> Result<(), RemoteError> {
    let shift = match who.id {
        _ if who.superuser => return Ok(()),
        Some(id) if id == inode.owner => 6,
        Some(id) if id == inode.group => 3,
        _ => 0,
    };
    if (inode.mode >> shift) & access.bit() != 0 {
        return Ok(());
    }
    Err(RemoteError::new(
        ErrorCode::PermissionDenied,
        subject,
        format!(
            "user {:?} may not {} {} of owner {:?}, group {:?}, mode {:04o}; ask its owner for the permission",
            who.user,
            access.verb(),
            if inode.is_directory() { "a directory" } else { "a file" },
            names.text(inode.owner),
            names.text(inode.group),
            inode.mode
        ),
    ))
}

/// Decides whether a user may take `child` out of `parent`, beside writing to `parent`: in a sticky directory only the
/// owner of either may.
pub(super) fn authorize_removal(
    parent: &INode,
    child: &INode,
    who: &Principal<'_>,
    subject: &dyn std::fmt::Display,
    names: &Names,
) -> Result<(), RemoteError> {
    authorize(Access::Write, parent, who, subject, names)?;
    if parent.mode & STICKY == 0 || who.is(child.owner) || who.is(parent.owner) {
        return Ok(());
    }
    Err(RemoteError::new(
        ErrorCode::PermissionDenied,
        subject,
        format!(
            "user {:?} may not remove or rename what belongs to {:?} in a sticky directory of {:?}",
            who.user,
            names.text(child.owner),
            names.text(parent.owner)
        ),
    ))
}
