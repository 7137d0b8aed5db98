//! What is promised, one file a promise, each with the violation that breaks it.
//!
//! The checks take plain values, so that every rung of testing (cores in a loop, whole servers on a simulated machine,
//! real processes) can ask them.
//!
//! | promise | says |
//! |---|---|
//! | [`durable`] | what was acknowledged can be read |
//! | [`integrity`] | wrong bytes are never returned |
//! | [`metadata`] | namespace operations are carried out once, in an order that explains every answer |
//! | [`fencing`] | what is deleted stays deleted, and nothing else is deleted |
//! | [`liveness`] | after faults end, all comes back to what it should be |

pub mod durable;
pub mod fencing;
pub mod integrity;
pub mod liveness;
pub mod metadata;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Of the durable class.
    #[error("durable: {0}")]
    Durable(#[from] durable::Unreadable),
    /// Of the integrity class.
    #[error("integrity: {0}")]
    Integrity(#[from] integrity::WrongBytes),
    /// Of the metadata class.
    #[error("metadata: {0}")]
    Metadata(#[from] metadata::Disagreement),
    /// Of the fencing class.
    #[error("fencing: {0}")]
    Fencing(#[from] fencing::Unfenced),
    /// Of the liveness class.
    #[error("liveness: {0}")]
    Liveness(#[from] liveness::Stuck),
    /// A part of the product found itself in a state that cannot be.
    #[error("a panic: {0}")]
    Panic(String),
}
