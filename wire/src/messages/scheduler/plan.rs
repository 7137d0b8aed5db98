use serde::{Deserialize, Serialize};

use super::{StagePlan, Work};
use crate::ids::{DatasetId, StageId};

/// What an action needs: the part of the graph that it reaches, cut into stages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Of a built-in program, the BLAKE3 hash of the executable that holds it: processes of different releases must not
    /// compute together. None where the job itself names the hash.
    pub build: Option<[u8; 32]>,
    /// The datasets that the action reaches and the action itself, each behind those that it is made from.
    pub nodes: Vec<PlanNode>,
    /// The stages that the action needs, parents first; the last one gives the result.
    pub stages: Vec<StagePlan>,
    /// What the action is called, for people: `collect at main.rs:12`.
    pub name: String,
    /// Which scope the action is in, for people, where it is the program's own thread that stands still until it is done;
    /// none where that is another one. Not in the digest.
    pub own_thread: Option<String>,
}

impl Plan {
    /// The stages whose work travels with the plan.
    fn works(&self) -> impl Iterator<Item = (StageId, &Work)> {
        self.stages.iter().filter_map(|stage| Some((stage.stage, stage.work.as_ref()?)))
    }

    /// A digest of the build, the graph, the action's name and the work of stages: what a driver, a driver that was started anew and the workers
    /// must agree on. Where the input lies and how the stages are cut is not in it: the first may change, the second follows.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("situ 2026 the plan of an action");
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text(&self.name);
        for node in &self.nodes {
            text(&node.name);
        }
        hasher.update(&(self.nodes.len() as u64).to_le_bytes());
        for node in &self.nodes {
            hasher.update(&node.id.to_le_bytes());
            hasher.update(&node.partitions.to_le_bytes());
            hasher.update(&(node.parents.len() as u64).to_le_bytes());
            for parent in &node.parents {
                hasher.update(&parent.to_le_bytes());
            }
            hasher.update(&[u8::from(node.value.is_some())]);
            hasher.update(&node.value.unwrap_or_default());
        }
        hasher.update(&[u8::from(self.build.is_some())]);
        hasher.update(&self.build.unwrap_or_default());
        for (stage, work) in self.works() {
            hasher.update(&stage.to_le_bytes());
            hasher.update(&(work.kind.len() as u64).to_le_bytes());
            hasher.update(work.kind.as_bytes());
            hasher.update(&work.digest);
        }
        *hasher.finalize().as_bytes()
    }

    /// Says where this plan (`mine`, as people call whoever made it) first differs from `other` (`theirs`); none if their
    /// digests are equal.
    #[must_use]
    pub fn difference(&self, mine: &str, other: &Self, theirs: &str) -> Option<String> {
        if self.digest() == other.digest() {
            return None;
        }
        if self.build != other.build {
            let show = |plan: &Self| match plan.build {
                Some(hash) => format!("{}..", &blake3::Hash::from_bytes(hash).to_hex()[..16]),
                None => "none that is known".to_owned(),
            };
            return Some(format!(
                "its build is {} in {mine} and {} in {theirs}: run the same release of situ on all executors",
                show(self),
                show(other)
            ));
        }
        let longest = self.nodes.len().max(other.nodes.len());
        let node = (0..longest).find(|&index| self.nodes.get(index) != other.nodes.get(index));
        if node.is_none() && self.name == other.name {
            let given = |plan: &Self| plan.works().map(|(stage, work)| (stage, work.digest)).collect::<Vec<_>>();
            let (here, there) = (given(self), given(other));
            let differs =
                here.iter().find(|work| !there.contains(work)).or(there.iter().find(|work| !here.contains(work)));
            let which = differs.map_or_else(|| "a stage".to_owned(), |(stage, _)| stage.to_string());
            return Some(format!("{which} has other work in {mine} than in {theirs}"));
        }
        let Some(index) = node else {
            return Some(format!("the action is {:?} in {mine} and {:?} in {theirs}", self.name, other.name));
        };
        let (here, there) = (self.nodes.get(index), other.nodes.get(index));
        if let (Some(here), Some(there)) = (here, there)
            && (PlanNode { value: None, ..here.clone() }) == (PlanNode { value: None, ..there.clone() })
        {
            return Some(format!("{:?} has other values of the driver in {mine} than in {theirs}", here.name));
        }
        let (first, second) = (here.map(|node| node.id), there.map(|node| node.id));
        let show = |node: Option<&PlanNode>| match node {
            Some(PlanNode { id, name, parents, partitions, .. }) => {
                let also = if first.is_some() && second.is_some() && first != second {
                    format!("{id}, ")
                } else {
                    String::new()
                };
                format!("{also}{name:?} with {partitions} partitions, made from {parents:?}")
            }
            None => "missing".to_owned(),
        };
        let which = match (first, second) {
            (Some(id), None) | (None, Some(id)) => id.to_string(),
            (Some(id), Some(other)) if id == other => id.to_string(),
            _ => format!("dataset {index} of the action"),
        };
        Some(format!("{which} is {} in {mine} and {} in {theirs}", show(here), show(there)))
    }
}

/// One dataset of the graph, as far as a driver and a worker must agree on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanNode {
    /// Its id: its place among all that its scope of the program made.
    pub id: DatasetId,
    /// Its operation and where in the program it stands: `flat_map at main.rs:12`.
    pub name: String,
    /// What it is made from.
    pub parents: Vec<DatasetId>,
    /// How many partitions it has.
    pub partitions: u32,
    /// The digest of the driver's value that it holds, if it holds one; of an action, that of all values that the driver
    /// had given before.
    pub value: Option<[u8; 32]>,
}
