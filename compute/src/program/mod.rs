//! What a program links: its entry point, the driver's and the worker's loops.

pub mod environment;
