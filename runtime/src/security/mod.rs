//! Certificates: the cluster's authority, and who is who.
//!
//! Each cluster has an authority of its own ([`Authority`]); a process proves with [`Credentials`] that the authority
//! vouches for its roles and its name. All of it stands in the DNS names of certificates:
//!
//! | name | in | means |
//! |---|---|---|
//! | `<32 hex digits>.cluster.situ` | the authority's own | the cluster |
//! | `<role>.situ` | a process's | it may play that role |
//! | `<base32>.name.situ` | a process's | its node's or user's name, as base32 in labels of at most 60 digits |
//!
//! So the TLS library itself checks that a server plays the role that its client looks for.

mod authority;
mod credentials;
mod error;
mod files;
mod names;

pub use authority::Authority;
pub use credentials::Credentials;
pub use error::SecurityError;
pub use names::NODE_NAME_LEN_BYTES;
pub(crate) use names::{Identity, server_name};

/// The same certificate as in `credentials`, as somebody else would make it: with another key, signed by nobody.
#[cfg(test)]
pub(crate) fn impostor(credentials: &Credentials) -> Credentials {
    credentials::impostor(credentials)
}
