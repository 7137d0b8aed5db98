//! What the core answers to lists of events, and a simulation of many random ones.

mod attribution;
mod bounds;
mod failures;
mod idle;
mod jobs;
mod journal;
mod placement;
mod resuming;
mod rollback;
mod scopes;
mod sessions;
mod simulation;
mod speculation;
mod stages;
mod world;
