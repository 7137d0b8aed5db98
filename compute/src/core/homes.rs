use hashbrown::HashMap;
use situ_wire::ids::NodeName;
use situ_wire::messages::scheduler::{Locality, TaskLocation};

use super::places::{Home, Node, Places, Rack};
use super::stage::index;
use super::waiting::Lists;

/// Where the input of a stage's partitions lies, by small numbers that the stage gives to nodes and racks.
///
/// A node is in one rack: the first that is named with it.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// In order.
    nodes: Vec<Node>,
    /// The rack of each node, as its place in `racks`.
    rack_of: Vec<u32>,
    /// In order.
    racks: Vec<Rack>,
    /// Where the places of each partition begin in `places`, and where the last ones end; empty if there are none.
    starts: Vec<u32>,
    /// Places in `nodes`, the best of each partition first.
    places: Vec<u32>,
}

impl Homes {
    pub(super) fn new(preferred: &[Vec<TaskLocation>], places: &mut Places) -> Self {
        let mut found: Vec<Home> = Vec::new();
        let mut numbers: HashMap<&NodeName, u32> = HashMap::new();
        let mut starts = vec![0];
        let mut of: Vec<u32> = Vec::new();
        for locations in preferred {
            let first = of.len();
            for TaskLocation { node, rack } in locations {
                let number = numbers.entry(node).or_insert_with(|| {
                    found.push(places.home(node, rack));
                    small(found.len() - 1)
                });
                if !of[first..].contains(number) {
                    of.push(*number);
                }
            }
            starts.push(small(of.len()));
        }
        if of.is_empty() {
            return Self::default();
        }
        of.shrink_to_fit();
        let mut order: Vec<u32> = (0..small(found.len())).collect();
        order.sort_unstable_by_key(|number| found[index(*number)].node);
        let mut renumbered = vec![0; found.len()];
        for (new, old) in (0..).zip(&order) {
            renumbered[index(*old)] = new;
        }
        of.iter_mut().for_each(|number| *number = renumbered[index(*number)]);
        let mut racks: Vec<Rack> = found.iter().map(|home| home.rack).collect();
        racks.sort_unstable();
        racks.dedup();
        let rack_of =
            order.iter().map(|old| small(racks.partition_point(|rack| *rack < found[index(*old)].rack))).collect();
        let nodes = order.iter().map(|old| found[index(*old)].node).collect();
        Self { nodes, rack_of, racks, starts, places: of }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn racks(&self) -> &[Rack] {
        &self.racks
    }

    /// All places, as they are known beyond the stage.
    pub(super) fn used(&self) -> impl Iterator<Item = Home> {
        self.nodes.iter().zip(&self.rack_of).map(|(node, rack)| Home { node: *node, rack: self.racks[index(*rack)] })
    }

    pub(super) fn find_node(&self, node: Node) -> Option<u32> {
        self.nodes.binary_search(&node).ok().map(small)
    }

    pub(super) fn find_rack(&self, rack: Rack) -> Option<u32> {
        self.racks.binary_search(&rack).ok().map(small)
    }

    /// The nodes of a partition, the best first.
    pub(super) fn of(&self, partition: u32) -> &[u32] {
        match self.starts.get(index(partition)..index(partition) + 2) {
            Some([start, end]) => &self.places[index(*start)..index(*end)],
            _ => &[],
        }
    }

    /// The racks of a partition, each once.
    pub(super) fn racks_of(&self, partition: u32) -> impl Iterator<Item = u32> + Clone {
        let nodes = self.of(partition);
        let rack = |node: &u32| self.rack_of[index(*node)];
        let new = move |at: usize| nodes[..at].iter().all(|before| rack(before) != rack(&nodes[at]));
        (0..nodes.len()).filter(move |at| new(*at)).map(move |at| rack(&nodes[at]))
    }

    /// Which partitions lie on each node, and in each rack.
    pub(super) fn lists(&self) -> (Lists, Lists) {
        let partitions = 0..small(self.starts.len().saturating_sub(1));
        let on_nodes = partitions.clone().flat_map(|at| self.of(at).iter().map(move |node| (*node, at)));
        let in_racks = partitions.flat_map(|at| self.racks_of(at).map(move |rack| (rack, at)));
        (Lists::new(self.nodes.len(), on_nodes), Lists::new(self.racks.len(), in_racks))
    }

    /// How near an executor is to a partition's input, when no memory counts.
    pub(super) fn locality(&self, home: Home, partition: u32) -> Locality {
        let nodes = self.of(partition);
        if nodes.is_empty() {
            Locality::NoPreference
        } else if nodes.iter().any(|node| self.nodes[index(*node)] == home.node) {
            Locality::Node
        } else if nodes.iter().any(|node| self.racks[index(self.rack_of[index(*node)])] == home.rack) {
            Locality::Rack
        } else {
            Locality::Any
        }
    }
}

/// A number of places: a plan's bounds keep it small.
fn small(number: usize) -> u32 {
    u32::try_from(number).expect("the places of a stage are bounded")
}
