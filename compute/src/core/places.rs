use std::collections::BTreeMap;

use situ_wire::ids::{NodeName, RackName};

/// A node, by its place in [`Places`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Node(u32);

/// A rack, by its place in [`Places`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Rack(u32);

/// A node and its rack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Home {
    pub(super) node: Node,
    pub(super) rack: Rack,
}

/// Nodes and racks as small numbers, and on which of them executors live: what makes a task's place worth waiting for.
///
/// Names come from executors and from plans. Those that nobody uses any more are dropped by [`Places::sweep`].
#[derive(Debug, Default)]
pub(super) struct Places {
    nodes: Names<NodeName>,
    racks: Names<RackName>,
    /// How many names there may be before it is worth looking for those that nobody uses.
    sweep_at: usize,
}

impl Places {
    pub(super) fn home(&mut self, node: &NodeName, rack: &RackName) -> Home {
        Home { node: Node(self.nodes.number(node)), rack: Rack(self.racks.number(rack)) }
    }

    /// The number of a name that is known.
    pub(super) fn node(&self, name: &NodeName) -> Option<Node> {
        self.nodes.numbers.get(name).copied().map(Node)
    }

    /// Whether an executor lives on a node.
    pub(super) fn lives_on(&self, node: Node) -> bool {
        self.nodes.live(node.0) > 0
    }

    /// Whether an executor lives in a rack.
    pub(super) fn lives_in(&self, rack: Rack) -> bool {
        self.racks.live(rack.0) > 0
    }

    /// How many executors live on a node.
    pub(super) fn executors_on(&self, node: Node) -> u32 {
        self.nodes.live(node.0)
    }

    /// An executor lives there now; whether it is the first on its node.
    pub(super) fn settle(&mut self, home: Home) -> bool {
        *self.racks.live_mut(home.rack.0) += 1;
        let live = self.nodes.live_mut(home.node.0);
        *live += 1;
        *live == 1
    }

    /// It lives there no more; whether it was the last on its node.
    pub(super) fn leave(&mut self, home: Home) -> bool {
        *self.racks.live_mut(home.rack.0) -= 1;
        let live = self.nodes.live_mut(home.node.0);
        *live -= 1;
        *live == 0
    }

    /// Whether it is worth looking for names that nobody uses.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.numbers.len() + self.racks.numbers.len() > self.sweep_at.max(SWEEP)
    }

    /// Drops all names but those of `used`.
    pub(super) fn sweep(&mut self, used: impl Iterator<Item = Home>) {
        let (mut nodes, mut racks) = (self.nodes.none_used(), self.racks.none_used());
        for home in used {
            nodes[at(home.node.0)] = true;
            racks[at(home.rack.0)] = true;
        }
        self.nodes.retain(&nodes);
        self.racks.retain(&racks);
        self.sweep_at = 2 * (self.nodes.numbers.len() + self.racks.numbers.len());
    }
}

/// Below so many names nothing is swept.
const SWEEP: usize = 100_000;

/// Names of one kind.
#[derive(Debug)]
struct Names<N> {
    numbers: BTreeMap<N, u32>,
    /// How many executors live there, by number.
    live: Vec<u32>,
    /// Numbers that stand for nothing.
    unused: Vec<u32>,
}

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), live: Vec::new(), unused: Vec::new() }
    }
}

impl<N: Ord + Clone> Names<N> {
    fn number(&mut self, name: &N) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.unused.pop().unwrap_or_else(|| {
            self.live.push(0);
            u32::try_from(self.live.len() - 1).expect("fewer names than a plan's bounds allow")
        });
        self.numbers.insert(name.clone(), number);
        number
    }

    fn live(&self, number: u32) -> u32 {
        self.live[at(number)]
    }

    fn live_mut(&mut self, number: u32) -> &mut u32 {
        &mut self.live[at(number)]
    }

    fn none_used(&self) -> Vec<bool> {
        vec![false; self.live.len()]
    }

    fn retain(&mut self, used: &[bool]) {
        let unused = &mut self.unused;
        self.numbers.retain(|_, number| {
            if !used[at(*number)] {
                unused.push(*number);
            }
            used[at(*number)]
        });
    }
}

fn at(number: u32) -> usize {
    usize::try_from(number).expect("a number of a name fits into memory")
}
