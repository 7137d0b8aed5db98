//! Whole namenodes in a simulated world.

mod cluster;
mod crashes;
mod damage;
mod faulty;
mod life;
mod room;
