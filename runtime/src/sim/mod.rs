//! A simulated world: hosts with disks in memory on a network in memory, one seed for all randomness, and a clock that
//! jumps to the next event when nobody has anything to do.
//!
//! ```
//! use situ_runtime::{Runtime, sim::SimWorld};
//! use situ_wire::hello::Role;
//!
//! let drawn = |seed| SimWorld::run(seed, async |world| world.host("dn1", &[Role::Datanode]).random_u64());
//! assert_eq!(drawn(7), drawn(7));
//! ```

mod host;
mod world;

pub use host::{SimClock, SimRuntime};
pub use world::SimWorld;
