//! Whole datanodes in a simulated world, with a namenode that only remembers what it is told.

mod clocks;
mod crash;
mod harness;
mod pipeline;
mod volumes;
