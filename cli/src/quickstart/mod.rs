//! `situ quickstart`: the main job, from end to end, on real input: store a file, count its words where its blocks lie,
//! kill a node on the way, get the right answer, and see the cluster whole again.
//!
//! | module | what it does |
//! |---|---|
//! | [`text`] | the input, when nobody brings one |
//! | [`count`] | the count in one thread that the answer is checked against |
//! | [`cpu`] | how much processor time the cluster's processes took |
//! | `story` | the run itself |
//! | `report` | what is printed at the end |

pub mod count;
pub mod cpu;
mod report;
mod story;
pub mod text;

pub use story::run;
