use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;
use tokio::sync::{mpsc, watch};

use super::SimConnection;
use super::connection::Wire;

/// How long a link may be cut before the connections over it are lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first port that a host gives out by itself.
const FIRST_PORT: u16 = 20_000;

/// Who a process of the simulation is: what its certificate would say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimIdentity {
    /// The cluster whose authority vouches. Processes of different ones do not trust each other.
    pub cluster: ClusterId,
    /// The roles that it may play.
    pub roles: Vec<Role>,
    /// Its node's or user's name.
    pub name: String,
}

/// A network that hosts share. Cheap to clone; every clone is the same network.
#[derive(Clone, Debug)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Changes whenever a link is cut or healed.
    topology: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    latency: RangeInclusive<Duration>,
    /// Which directions are cut, each with the number of its cut.
    cuts: BTreeMap<(IpAddr, IpAddr), u64>,
    cut_count: u64,
    listeners: BTreeMap<SocketAddr, Open>,
    next_port: BTreeMap<IpAddr, u16>,
    /// How often each host was killed: transports of an earlier life are dead.
    lives: BTreeMap<IpAddr, u64>,
    wires: Vec<Weak<Wire>>,
}

/// Where somebody listens.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) identity: SimIdentity,
    pub(super) connections: mpsc::UnboundedSender<SimConnection>,
}

impl SimNetwork {
    /// A network without delays whose later randomness comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            latency: Duration::ZERO..=Duration::ZERO,
            cuts: BTreeMap::new(),
            cut_count: 0,
            listeners: BTreeMap::new(),
            next_port: BTreeMap::new(),
            lives: BTreeMap::new(),
            wires: Vec::new(),
        };
        Self { shared: Arc::new(Shared { topology: watch::Sender::new(0), state: Mutex::new(state) }) }
    }

    /// From now on every piece that is sent between hosts takes this long, drawn anew for each.
    pub fn set_latency(&self, latency: RangeInclusive<Duration>) {
        self.lock().latency = latency;
    }

    /// Cuts the way between two hosts in both directions.
    pub fn cut(&self, one: IpAddr, other: IpAddr) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts the way from one host to another, and leaves the way back.
    ///
    /// # Panics
    /// Outside a tokio runtime: what is cut for too long is found by a task.
    pub fn cut_one_way(&self, from: IpAddr, to: IpAddr) {
        let number = {
            let mut state = self.lock();
            if from == to || state.cuts.contains_key(&(from, to)) {
                return;
            }
            state.cut_count += 1;
            let number = state.cut_count;
            state.cuts.insert((from, to), number);
            number
        };
        self.shared.topology.send_modify(|version| *version += 1);
        let network = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if network.lock().cuts.get(&(from, to)) == Some(&number) {
                let lost = |hosts: [IpAddr; 2]| hosts == [from, to] || hosts == [to, from];
                network.break_off(lost, "nothing was heard from the peer for too long");
            }
        });
    }

    /// Heals the way between two hosts in both directions.
    pub fn heal(&self, one: IpAddr, other: IpAddr) {
        self.heal_where(|cut| cut == (one, other) || cut == (other, one));
    }

    /// Heals every cut.
    pub fn heal_all(&self) {
        self.heal_where(|_| true);
    }

    /// Kills whatever runs on a host: its listeners are gone, its connections broken, and its transports of before can
    /// do nothing any more.
    pub fn kill(&self, host: IpAddr) {
        {
            let mut state = self.lock();
            *state.lives.entry(host).or_default() += 1;
            state.listeners.retain(|address, _| address.ip() != host);
        }
        self.break_off(|hosts| hosts.contains(&host), "the peer's host is dead");
    }

    /// Whether what is sent from one host to another arrives.
    #[must_use]
    pub fn is_up(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.lock().cuts.contains_key(&(from, to))
    }

    /// The number of this host's life.
    pub(super) fn life(&self, host: IpAddr) -> u64 {
        self.lock().lives.get(&host).copied().unwrap_or_default()
    }

    /// Changes whenever a link is cut or healed.
    pub(super) fn topology(&self) -> watch::Receiver<u64> {
        self.shared.topology.subscribe()
    }

    /// How long the next piece takes.
    pub(super) fn latency(&self, from: IpAddr, to: IpAddr) -> Duration {
        let mut state = self.lock();
        let (least, most) = (*state.latency.start(), *state.latency.end());
        if from == to || most.is_zero() {
            return Duration::ZERO;
        }
        let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(state.random.u64(0..=spread))
    }

    /// Opens a port; none if it is taken.
    pub(super) fn listen(&self, mut address: SocketAddr, open: Open) -> Option<SocketAddr> {
        let mut state = self.lock();
        let chosen = address.port() == 0;
        loop {
            if chosen {
                let next = state.next_port.entry(address.ip()).or_insert(FIRST_PORT);
                address.set_port(*next);
                *next = next.checked_add(1)?;
            }
            match (chosen, state.listeners.contains_key(&address)) {
                (_, false) => break,
                (true, true) => {}
                (false, true) => return None,
            }
        }
        state.listeners.insert(address, open);
        Some(address)
    }

    /// Closes a port, if it is still this listener's.
    pub(super) fn unlisten(&self, address: SocketAddr, connections: &mpsc::WeakUnboundedSender<SimConnection>) {
        let mut state = self.lock();
        let own = |open: &Open| connections.upgrade().is_some_and(|sender| sender.same_channel(&open.connections));
        if state.listeners.get(&address).is_some_and(own) {
            state.listeners.remove(&address);
        }
    }

    /// Who listens there.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<Open> {
        self.lock().listeners.get(&address).cloned()
    }

    /// Remembers a new connection.
    pub(super) fn add(&self, wire: &Arc<Wire>) {
        let mut state = self.lock();
        state.wires.retain(|wire| wire.strong_count() > 0);
        state.wires.push(Arc::downgrade(wire));
    }

    fn heal_where(&self, healed: impl Fn((IpAddr, IpAddr)) -> bool) {
        self.lock().cuts.retain(|cut, _| !healed(*cut));
        self.shared.topology.send_modify(|version| *version += 1);
        for wire in self.wires() {
            wire.settle();
        }
    }

    fn break_off(&self, lost: impl Fn([IpAddr; 2]) -> bool, reason: &str) {
        for wire in self.wires() {
            if lost(wire.hosts()) {
                wire.break_off(reason);
            }
        }
    }

    fn wires(&self) -> Vec<Arc<Wire>> {
        self.lock().wires.iter().filter_map(Weak::upgrade).collect()
    }

    /// The state stays consistent whoever panicked: each critical section is a few plain assignments.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
