//! Tests of the whole state machine, event by event.

mod clocks;
mod datanodes;
mod deletion;
mod format;
mod model;
mod namespace;
mod restart;
mod room;
mod storm;
mod world;
mod writing;
