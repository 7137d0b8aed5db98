//! What the core answers to lists of events, and a simulation of many random ones.

mod failures;
mod jobs;
mod placement;
mod simulation;
mod speculation;
mod world;
