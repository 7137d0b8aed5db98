//! Worlds that are wrong on purpose: the harness must notice each. They are wrong around the cores, as decorators of what
//! goes in and comes out; the product has no hook for them.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Answers leave the namenode before what they tell of is on disk.
    ReplyBeforeSync,
    /// The disk says that the journal is synced, and loses the end of it in a crash.
    SyncLies,
    /// A restarted namenode does not know which operations were carried out.
    ForgetOperations,
    /// Two operations of a client have the same name.
    ReuseOperation,
    /// A restarted namenode leaves an edit of the journal out.
    SkipEdit,
    /// A datanode deletes its replica whatever life the command was for.
    DeleteAnyLife,
    /// A datanode says of every replica that it is in the newest life.
    ReportAnyLife,
    /// The namenode hears the reports that a datanode sent the time before, and so deletes while it does not know what
    /// the storages hold.
    StaleReports,
    /// A datanode says that a replica is final before it is on disk.
    AckBeforeFinal,
    /// Commands to copy get lost.
    DropCopies,
    /// Commands to delete get lost.
    DropDeletions,
    /// Commands to verify what a reader doubts get lost.
    DropVerifications,
    /// A datanode is told to delete what it should keep.
    DeleteUnasked,
    /// Commands are given again and again.
    RepeatCommands,
}
