//! Every bound on what a peer or a user may send, in one place.

/// The longest encoded message in a frame. Bulk bytes do not count: they travel outside messages.
pub const MESSAGE_LEN_BYTES: usize = 16 << 20;
/// The longest message that is accepted before the peer has said who it is.
pub const HELLO_LEN_BYTES: usize = 4 << 10;
/// The longest opening of a stream.
pub const STREAM_OPEN_LEN_BYTES: usize = 256 << 10;
/// The longest component of a path, as in POSIX.
pub const NAME_LEN_BYTES: usize = 255;
/// The longest path, as in POSIX.
pub const PATH_LEN_BYTES: usize = 4096;
/// The deepest path.
pub const PATH_DEPTH: usize = 512;
/// How much of a block one leaf of its tree covers.
pub const LEAF_LEN_BYTES: usize = 64 << 10;
/// The most bytes in one packet of a write pipeline or of a read.
pub const PACKET_LEN_BYTES: usize = 1 << 20;
/// The smallest block size that a file may have.
pub const BLOCK_LEN_MIN_BYTES: u64 = 64 << 10;
/// The largest block size that a file may have.
pub const BLOCK_LEN_MAX_BYTES: u64 = 4 << 30;
/// The block size of a file when nobody says otherwise.
pub const BLOCK_LEN_DEFAULT_BYTES: u64 = 128 << 20;
/// The replication of a file when nobody says otherwise.
pub const REPLICATION_DEFAULT: u16 = 3;
/// The most replicas that a file may ask for.
pub const REPLICATION_MAX: u16 = 512;
/// The most entries in one answer to a listing.
pub const LIST_ENTRIES: u32 = 1000;
/// The most names that a call which carries many may carry.
pub const BATCH_NAMES: usize = 1000;
/// The most replicas in one slice of a block report.
pub const REPORT_SLICE_BLOCKS: usize = 50_000;
/// The most calls of one client that a server keeps under way at once.
pub const CALLS_IN_FLIGHT: usize = 4096;
/// The largest result of one task that goes by way of the scheduler; a larger one is a file.
pub const TASK_RESULT_LEN_BYTES: usize = 256 << 10;
/// The most bytes of a stage's work that travel with its plan; what is longer is a file of the job.
pub const WORK_LEN_BYTES: usize = 64 << 10;
/// The most partitions of one dataset.
pub const PARTITIONS: u32 = 1_000_000;
/// How deep the scopes of a program may stand within each other.
pub const SCOPES_NESTED: usize = 64;
/// How many attempts at a task one life of a scheduler numbers, before it comes to the numbers of the next.
pub const ATTEMPTS_PER_LIFE: u32 = 1 << 16;
/// The most bytes in one answer to a request for a log.
pub const LOG_CHUNK_LEN_BYTES: u32 = 1 << 20;

const _: () = assert!(PACKET_LEN_BYTES.is_multiple_of(LEAF_LEN_BYTES), "a packet holds whole leaves");
const _: () = assert!(BLOCK_LEN_MIN_BYTES == LEAF_LEN_BYTES as u64, "the smallest block is one leaf");
const _: () = assert!(TASK_RESULT_LEN_BYTES < MESSAGE_LEN_BYTES, "a task's result fits into a message");
const _: () = assert!(
    (BLOCK_LEN_MAX_BYTES / LEAF_LEN_BYTES as u64) * 32 < MESSAGE_LEN_BYTES as u64,
    "the leaves of the largest block fit into a message"
);
const _: () = assert!(NAME_LEN_BYTES < PATH_LEN_BYTES, "a name fits into a path");
