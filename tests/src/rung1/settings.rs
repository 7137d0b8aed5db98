//! What a seed decides before a run.

use super::chance::Chance;

/// How the world is built and how bad it is. Every seed leaves some kinds of faults out, so that no kind hides another.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) datanodes: u64,
    pub(super) racks: u64,
    pub(super) volumes: u64,
    /// How many replicas a slice of a full report names at most.
    pub(super) report_slice_blocks: usize,
    pub(super) clients: u64,
    /// How many blocks of a file a client writes at once: it goes on while the last ones are acknowledged.
    pub(super) blocks_at_once: u64,
    /// The fewest replicas that a file asks for. No fault takes a block with one, nor a disk that holds such.
    pub(super) replication_min: u64,
    /// How long faults go on.
    pub(super) faults_ms: u64,
    /// How long a client waits at most between two things it does.
    pub(super) think_ms: u64,
    pub(super) loss_permille: u64,
    pub(super) duplicate_permille: u64,
    pub(super) slow_permille: u64,
    pub(super) slow_ms: u64,
    /// Whether heartbeats and reports overtake each other, as calls of several tasks do, and answers as well.
    pub(super) overtaking: bool,
    /// How often a member of a pipeline breaks down while it writes.
    pub(super) broken_write_permille: u64,
    /// How often a writer does not hear that a replica is final.
    pub(super) lost_ack_permille: u64,
    /// How often a reader takes a good replica for a bad one.
    pub(super) slander_permille: u64,
    /// The longest time from an append to its sync.
    pub(super) sync_ms: u64,
    /// How often a slice of an image cannot be written.
    pub(super) image_failure_permille: u64,
    /// The longest time from a fault to the next.
    pub(super) pause_ms: u64,
    pub(super) faults: Vec<Fault>,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    DatanodeCrash,
    /// A datanode and the namenode do not hear each other.
    Split,
    DiskLoss,
    /// A disk fails and works again when its datanode is started anew.
    DiskAway,
    Rot,
    NamenodeCrash,
    /// The namenode stands still.
    NamenodeStall,
    ClientCrash,
    /// A client and the namenode do not hear each other, perhaps for longer than the client's lease.
    ClientSplit,
    /// A datanode's process stands still.
    DatanodeStall,
}

const FAULTS: [Fault; 10] = [
    Fault::DatanodeCrash,
    Fault::Split,
    Fault::DiskLoss,
    Fault::DiskAway,
    Fault::Rot,
    Fault::NamenodeCrash,
    Fault::NamenodeStall,
    Fault::ClientCrash,
    Fault::ClientSplit,
    Fault::DatanodeStall,
];

impl Settings {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|_| chance.permille(600)).collect();
        if faults.is_empty() {
            faults.push(Fault::NamenodeCrash);
        }
        let bad = |chance: &mut Chance, often: u64| if chance.permille(600) { chance.between(1, often) } else { 0 };
        Self {
            datanodes: chance.between(3, 8),
            racks: chance.between(1, 3),
            volumes: chance.between(1, 3),
            report_slice_blocks: *chance.pick(&[1, 3, 1000]).expect("three"),
            clients: chance.between(2, 5),
            blocks_at_once: chance.between(1, 3),
            replication_min: chance.between(1, 3),
            faults_ms: chance.between(20_000, 80_000),
            think_ms: *chance.pick(&[50, 300, 1_500]).expect("three"),
            loss_permille: bad(chance, 80),
            duplicate_permille: bad(chance, 80),
            slow_permille: bad(chance, 100),
            slow_ms: chance.between(100, 3_000),
            overtaking: chance.permille(500),
            broken_write_permille: bad(chance, 200),
            lost_ack_permille: bad(chance, 150),
            slander_permille: bad(chance, 500),
            sync_ms: *chance.pick(&[1, 10, 200]).expect("three"),
            image_failure_permille: bad(chance, 100),
            pause_ms: *chance.pick(&[500, 2_000, 8_000]).expect("three"),
            faults,
        }
    }

    /// No faults of the network any more.
    pub(super) fn heal(&mut self) {
        self.loss_permille = 0;
        self.duplicate_permille = 0;
        self.slow_permille = 0;
        self.broken_write_permille = 0;
        self.lost_ack_permille = 0;
        self.slander_permille = 0;
        self.image_failure_permille = 0;
    }
}
