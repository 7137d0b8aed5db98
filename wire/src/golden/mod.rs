//! The encoding of every message, pinned.
//!
//! `wire/golden/v1.txt` holds one line `name = hex` for a sample of every struct and of every variant of every enum that
//! travels. A line that changes means that old and new processes no longer understand each other: that needs a new
//! [`ProtocolVersion`](crate::hello::ProtocolVersion). New lines may join: a variant at the end of an enum leaves the
//! others as they are.
//!
//! `SITU_GOLDEN=write cargo test -p situ-wire golden` writes the file anew.

mod book;
mod pinned;
mod properties;
mod samples;
