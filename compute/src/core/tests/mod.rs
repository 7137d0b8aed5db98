//! What the core answers to lists of events, and a simulation of many random ones.

mod attribution;
mod bounds;
mod failures;
mod jobs;
mod journal;
mod placement;
mod rollback;
mod sessions;
mod simulation;
mod world;
