use std::ops::Range;
use std::sync::Arc;

use situ_wire::messages::scheduler::TaskLocation;

/// Where the input of each partition lies, best first; none if it lies nowhere in particular.
pub(crate) type Preferred = Option<Arc<Places>>;

/// The places of some partitions. Those of a union are those of its parts and no copy: one that grew in a loop over
/// thousands of files would hold as many copies of the first one's.
pub(crate) enum Places {
    /// Of each partition.
    Each(Vec<Vec<TaskLocation>>),
    /// Those of one dataset, and of another behind it, with the numbers of their partitions.
    Both([(Preferred, u32); 2]),
}

impl Places {
    /// The places of `first`'s partitions and, behind them, of `second`'s.
    pub(crate) fn of_both(first: (Preferred, u32), second: (Preferred, u32)) -> Preferred {
        match (&first.0, &second.0) {
            (None, None) => None,
            _ => Some(Arc::new(Self::Both([first, second]))),
        }
    }

    /// The places of some of the partitions.
    pub(crate) fn slice(&self, partitions: Range<usize>) -> Vec<Vec<TaskLocation>> {
        self.to_vec().drain(partitions).collect()
    }

    /// A list of them.
    pub(crate) fn to_vec(&self) -> Vec<Vec<TaskLocation>> {
        let mut all = Vec::new();
        // A loop of unions nests as deeply as it is long.
        let mut open: Vec<(Option<&Self>, u32)> = vec![(Some(self), 0)];
        while let Some((places, partitions)) = open.pop() {
            match places {
                None => all.resize(all.len() + partitions as usize, Vec::new()),
                Some(Self::Each(each)) => all.extend_from_slice(each),
                Some(Self::Both(both)) => {
                    open.extend(both.iter().rev().map(|(places, partitions)| (places.as_deref(), *partitions)));
                }
            }
        }
        all
    }
}

impl Drop for Places {
    /// One after the other: nested, a long loop of unions would overflow the stack.
    fn drop(&mut self) {
        let mut open = Vec::new();
        let take = |places: &mut Self, open: &mut Vec<Arc<Self>>| {
            if let Self::Both(both) = places {
                open.extend(both.iter_mut().filter_map(|(places, _)| places.take()));
            }
        };
        take(self, &mut open);
        while let Some(places) = open.pop() {
            if let Some(mut places) = Arc::into_inner(places) {
                take(&mut places, &mut open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{NodeName, RackName};

    use super::*;

    #[test]
    fn the_places_of_a_union_are_those_of_its_parts_in_order() {
        let place = |node: u32| TaskLocation { node: NodeName(node.to_string()), rack: RackName("/r".to_owned()) };
        let one = |node: u32| Some(Arc::new(Places::Each(vec![vec![place(node)]])));
        let mut all: (Preferred, u32) = (None, 2);
        let mut expected = vec![Vec::new(), Vec::new()];
        for node in 0..50_000 {
            let (next, partitions) = if node % 3 == 0 { (None, 2) } else { (one(node), 1) };
            expected.extend(if node % 3 == 0 { vec![Vec::new(), Vec::new()] } else { vec![vec![place(node)]] });
            all = (Places::of_both(all, (next, partitions)), u32::try_from(expected.len()).unwrap());
        }
        assert_eq!(all.0.as_ref().unwrap().to_vec(), expected);
        let other = Places::of_both((one(7), 1), all.clone());
        assert_eq!(other.unwrap().to_vec()[1..], expected);
        assert!(Places::of_both((None, 1), (None, 1)).is_none());
    }
}
