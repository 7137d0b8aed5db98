//! What the core answers to lists of events.

mod attribution;
mod bounds;
mod crowding;
mod failures;
mod idle;
mod jobs;
mod journal;
mod placement;
mod resuming;
mod rollback;
mod scopes;
mod sessions;
mod speculation;
mod stages;
pub(crate) mod world;
