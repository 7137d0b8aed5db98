//! The scheduler's core: pure decisions about jobs, tasks and executors.
//!
//! [`Scheduler`] is driven by [`Event`]s and asks for [`Effect`]s; it knows no clock, no file and no socket.
//!
//! | file | what it decides |
//! |---|---|
//! | `scheduler` | the contract: events in, effects out, time |
//! | `calls` | which call goes where, and who may make it |
//! | `jobs`, `job`, `driver` | a job's life, from its submission to its end; where its driver runs |
//! | `session` | drivers that are attached: whether they are heard |
//! | `actions`, `plan` | what a driver asks for; whether a plan can be believed |
//! | `stage`, `pieces` | one stage: its tasks, their attempts and their outputs |
//! | `spares` | outputs that there are twice |
//! | `pending`, `homes`, `waiting` | which of a stage's tasks wait and where their input lies |
//! | `assign`, `turns`, `search` | which task goes to which executor: fair sharing, delay scheduling |
//! | `slots`, `reserve` | how many slots tasks take; room that is kept for large ones |
//! | `workers`, `crowding` | which jobs have workers on an executor, where its memory holds few |
//! | `speculation` | tasks that are slow, have come to a standstill or take too long |
//! | `tasks` | how tasks end: done, failed, fetch failures |
//! | `attribution` | who is to blame for a failure: the task, its executor, nobody |
//! | `rollback` | outputs that are not the same when they are computed again, and who had read them |
//! | `release` | what of a job goes while it runs on |
//! | `executors`, `executor` | who is there, what runs there, which commands are under way |
//! | `places` | nodes and racks as numbers, and on which of them executors live |
//! | `loss` | what the death of an executor takes with it |
//! | `resuming` | how jobs go on that an earlier life of the scheduler began |
//! | `reports` | what executors say that they have, until a plan names it |
//! | `recovery` | the list of what was lost and how it came back |
//! | `publications` | which outputs a job publishes, each once |
//! | `cleaning` | what a job that did not succeed wrote aside, until it is gone |
//! | `waits` | calls whose answers are not there yet |
//! | `idle` | what a job waits for of which nothing goes on |
//! | `record`, `finished` | what of a job outlives the scheduler |
//! | `check` | the invariants |

mod actions;
mod assign;
mod attribution;
mod calls;
mod check;
mod cleaning;
mod crowding;
mod driver;
mod event;
mod executor;
mod executors;
mod finished;
mod homes;
mod idle;
mod job;
mod jobs;
mod loss;
mod pending;
mod pieces;
mod places;
mod plan;
mod policy;
mod publications;
mod record;
mod recovery;
mod release;
mod reports;
mod reserve;
mod resuming;
mod rollback;
mod scheduler;
mod scopes;
mod search;
mod session;
mod slots;
mod spares;
mod speculation;
mod stage;
mod tasks;
mod turns;
mod waiting;
mod waits;
mod workers;

pub use cleaning::CLEAN_UP;
pub(crate) use cleaning::{is_job_directory, job_directory};
pub use event::{CallId, Caller, Effect, Event, RecordId};
pub use policy::SchedulingPolicy;
pub use record::{JobRecord, SecretKey, Submission};
pub use scheduler::Scheduler;
pub(crate) use stage::totals;

#[cfg(test)]
pub(crate) mod tests;
