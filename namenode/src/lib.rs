//! The namenode: the namespace, the blocks, and where they are.

pub mod core;
