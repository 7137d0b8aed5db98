//! The `situ` command.
fn main() {}
