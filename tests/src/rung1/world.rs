//! All of it together: time goes by, things happen.

use std::collections::BTreeMap;

use situ_datanode::core::Me;
use situ_wire::ids::{DatanodeId, NodeName, RackName, TxId};
use situ_wire::messages::namenode::Request;
use situ_wire::time::TimeMs;

use super::chance::Chance;
use super::client::{Act, ClientHost};
use super::datanode::{DatanodeHost, Inside};
use super::mutants::Mutant;
use super::namenode::{CLUSTER, NamenodeHost};
use super::network::{Envelope, Party, Pending, Reply};
use super::oracle::Oracle;
use super::pipeline::{Flow, Pipeline};
use super::schedule::Schedule;
use super::settings::Settings;
use super::trace::Trace;
use crate::promises::Violation;

/// The user of every client, who may do everything.
pub(super) const USER: &str = "root";

/// What happens.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// A call arrives at the namenode.
    Request(Box<Envelope>),
    /// An answer arrives.
    Reply(Box<Reply>),
    /// A caller has waited long enough.
    Patience {
        number: u64,
    },
    NamenodeUp,
    NamenodeTimer {
        run: u64,
    },
    NamenodeWakes {
        run: u64,
    },
    /// It crashes in the middle of a sync.
    NamenodeDies {
        run: u64,
    },
    NamenodeSynced {
        run: u64,
        tx: TxId,
    },
    Checkpoint,
    ImageSlice {
        run: u64,
    },
    DatanodeUp {
        at: usize,
    },
    Inside {
        at: usize,
        run: u64,
        what: Inside,
    },
    Flow {
        pipeline: u64,
        what: Flow,
    },
    ClientUp {
        at: usize,
    },
    Client {
        at: usize,
        run: u64,
        what: Act,
    },
    Nemesis,
    /// Everything is checked.
    Check,
    /// Whoever lets time go by has waited long enough.
    Over,
}

/// A run.
pub(super) struct World {
    pub(super) schedule: Schedule<Happening>,
    pub(super) chance: Chance,
    pub(super) settings: Settings,
    pub(super) mutant: Option<Mutant>,
    pub(super) namenode: NamenodeHost,
    pub(super) datanodes: Vec<DatanodeHost>,
    pub(super) clients: Vec<ClientHost>,
    pub(super) pipelines: BTreeMap<u64, Pipeline>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) is_healed: bool,
    pub(super) is_over: bool,
    /// The first promise that was broken.
    pub(super) violation: Option<Violation>,
    /// How long after the end of faults all was well.
    pub(super) settled_ms: u64,
    pub(super) steps: u64,
    numbers: u64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    /// Over all that happened.
    pub(super) hash: u64,
    pub(super) steps: u64,
    pub(super) edits: u64,
    pub(super) settled_ms: u64,
}

/// How often everything is checked.
const CHECK_MS: u64 = 2_000;

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, is_shown: bool) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings::draw(&mut chance);
        let datanodes = (0..settings.datanodes).map(|at| {
            let me = Me {
                id: DatanodeId(u128::from(at) + 1),
                cluster: CLUSTER,
                node: NodeName(format!("node-{at}")),
                rack: RackName(format!("/rack-{}", at % settings.racks)),
                address: std::net::SocketAddr::from(([10, 0, 0, 1], 4000 + u16::try_from(at).unwrap_or(0))),
            };
            DatanodeHost::new(me, settings.volumes)
        });
        Self {
            schedule: Schedule::new(TimeMs(1_000_000)),
            namenode: NamenodeHost::new(),
            datanodes: datanodes.collect(),
            clients: (0..settings.clients).map(|_| ClientHost::new()).collect(),
            pipelines: BTreeMap::new(),
            pending: BTreeMap::new(),
            oracle: Oracle::default(),
            trace: Trace::new(is_shown),
            is_healed: false,
            is_over: false,
            violation: None,
            settled_ms: 0,
            steps: 0,
            numbers: 0,
            chance,
            settings,
            mutant,
        }
    }

    /// Runs the world through its faults and out of them.
    pub(super) fn run(mut self) -> Outcome {
        if self.trace.is_shown {
            println!("{:?}", self.settings);
        }
        self.schedule.after(0, Happening::NamenodeUp);
        for at in 0..self.datanodes.len() {
            let delay_ms = self.chance.between(0, 500);
            self.schedule.after(delay_ms, Happening::DatanodeUp { at });
        }
        for at in 0..self.clients.len() {
            self.schedule.after(1_000, Happening::ClientUp { at });
        }
        self.schedule.after(3_000, Happening::Nemesis);
        self.schedule.after(CHECK_MS, Happening::Check);
        self.schedule.after(5_000, Happening::Checkpoint);
        self.schedule.after(self.settings.faults_ms, Happening::Over);
        while !self.is_over && self.violation.is_none() {
            self.step();
        }
        if self.violation.is_none() {
            self.heal();
            self.demand_progress();
            self.check_all();
        }
        let last = self.chance.seed();
        self.trace.note(last);
        Outcome {
            violation: self.violation,
            hash: self.trace.hash(),
            steps: self.steps,
            edits: self.namenode.journal.last().0,
            settled_ms: self.settled_ms,
        }
    }

    /// A promise is broken: the run ends.
    pub(super) fn violated(&mut self, violation: impl Into<Violation>) {
        let violation = violation.into();
        if self.trace.is_shown {
            println!("{:?} VIOLATION {violation}", self.schedule.now());
        }
        self.violation.get_or_insert(violation);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The next thing happens.
    pub(super) fn step(&mut self) {
        let happening = self.schedule.next().expect("there is always something to come");
        self.steps += 1;
        self.trace.note(self.schedule.now().0);
        self.trace.note(happening.tag());
        if self.trace.is_shown && happening.is_telling() {
            println!("{:?} {happening:?}", self.schedule.now());
        }
        match happening {
            Happening::Request(envelope) => self.namenode_request(*envelope),
            Happening::Reply(reply) => self.take_reply(*reply),
            Happening::Patience { number } => self.lose_patience(number),
            Happening::NamenodeUp => self.namenode_up(),
            Happening::NamenodeTimer { run } => self.namenode_due(run),
            Happening::NamenodeWakes { run } => self.namenode_wakes(run),
            Happening::NamenodeDies { run } if run == self.namenode.run && !self.is_healed => {
                self.nemesis_takes_namenode();
            }
            Happening::NamenodeDies { .. } => {}
            Happening::NamenodeSynced { run, tx } => self.namenode_synced(run, tx),
            Happening::Checkpoint => {
                self.namenode_checkpoint();
                let delay_ms = self.chance.between(500, 10_000);
                self.schedule.after(delay_ms, Happening::Checkpoint);
            }
            Happening::ImageSlice { run } => self.namenode_image_slice(run),
            Happening::DatanodeUp { at } => self.datanode_up(at),
            Happening::Inside { at, run, what } => self.datanode_inside(at, run, what),
            Happening::Flow { pipeline, what } => self.flow(pipeline, what),
            Happening::ClientUp { at } => self.client_up(at),
            Happening::Client { at, run, what } => self.client_acts(at, run, what),
            Happening::Nemesis => self.nemesis_strikes(),
            Happening::Check => {
                self.check_all();
                self.schedule.after(CHECK_MS, Happening::Check);
            }
            Happening::Over => self.is_over = true,
        }
    }
}

impl Happening {
    /// A number for the trace.
    fn tag(&self) -> u64 {
        match self {
            Self::Request(envelope) => envelope.number << 4,
            Self::Reply(reply) => (reply.number << 4) | (u64::from(reply.result.is_ok()) << 63) | 1,
            Self::Patience { number } => (number << 4) | 2,
            Self::NamenodeUp => 3,
            Self::NamenodeTimer { run } => (run << 4) | 4,
            Self::NamenodeDies { run } => (run << 8) | 0x9e,
            Self::NamenodeSynced { tx, .. } => (tx.0 << 4) | 5,
            Self::Checkpoint => 6,
            Self::DatanodeUp { at } => ((*at as u64) << 4) | 7,
            Self::Inside { at, run, .. } => ((*at as u64) << 32) | (run << 4) | 8,
            Self::Flow { pipeline, .. } => (pipeline << 4) | 9,
            Self::ClientUp { at } => ((*at as u64) << 4) | 10,
            Self::Client { at, run, .. } => ((*at as u64) << 32) | (run << 4) | 11,
            Self::Nemesis => 12,
            Self::Check => 13,
            Self::ImageSlice { run } => (run << 8) | 0x8e,
            Self::Over => 14,
            Self::NamenodeWakes { run } => (run << 4) | 15,
        }
    }

    /// Whether a reader of the trace wants to see it.
    fn is_telling(&self) -> bool {
        match self {
            Self::Request(envelope) => !matches!(envelope.request, Request::DatanodeHeartbeat { .. }),
            Self::Reply(reply) => matches!(reply.party, Party::Client { .. }),
            Self::NamenodeUp | Self::DatanodeUp { .. } | Self::ClientUp { .. } | Self::Over => true,
            _ => false,
        }
    }
}
