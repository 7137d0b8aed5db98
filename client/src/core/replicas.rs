use std::collections::BTreeMap;
use std::time::Duration;

use situ_wire::block::DatanodeLocation;
use situ_wire::ids::DatanodeId;
use situ_wire::time::TimeMs;

/// Datanodes that failed lately: they are tried last.
#[derive(Debug)]
pub(crate) struct Suspects {
    rest: Duration,
    until: BTreeMap<DatanodeId, TimeMs>,
}

impl Suspects {
    /// Nobody; whoever is added is one for `rest`.
    pub(crate) fn new(rest: Duration) -> Self {
        Self { rest, until: BTreeMap::new() }
    }

    /// Notes that a datanode has failed.
    pub(crate) fn add(&mut self, now: TimeMs, datanode: DatanodeId) {
        self.until.retain(|_, until| *until > now);
        self.until.insert(datanode, now + self.rest);
    }

    fn holds(&self, now: TimeMs, datanode: DatanodeId) -> bool {
        self.until.get(&datanode).is_some_and(|until| *until > now)
    }

    /// The replica to try next: the nearest that was not tried yet, those that failed lately last.
    pub(crate) fn choose<'a>(
        &self,
        now: TimeMs,
        locations: &'a [DatanodeLocation],
        tried: &[DatanodeId],
    ) -> Option<&'a DatanodeLocation> {
        let untried = || locations.iter().filter(|location| !tried.contains(&location.id));
        untried().find(|location| !self.holds(now, location.id)).or_else(|| untried().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use situ_wire::ids::{NodeName, RackName};
    use std::net::SocketAddr;

    fn location(id: u128) -> DatanodeLocation {
        DatanodeLocation {
            id: DatanodeId(id),
            node: NodeName(format!("node-{id}")),
            rack: RackName("/rack".into()),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        }
    }

    #[test]
    fn the_nearest_comes_first_and_who_failed_lately_last() {
        let all = [location(1), location(2), location(3)];
        let mut suspects = Suspects::new(Duration::from_millis(100));
        let choose = |suspects: &Suspects, now: u64, tried: &[u128]| {
            let tried: Vec<_> = tried.iter().copied().map(DatanodeId).collect();
            suspects.choose(TimeMs(now), &all, &tried).map(|location| location.id.0)
        };
        assert_eq!(choose(&suspects, 0, &[]), Some(1));
        suspects.add(TimeMs(0), DatanodeId(1));
        assert_eq!(choose(&suspects, 99, &[]), Some(2));
        assert_eq!(choose(&suspects, 99, &[2, 3]), Some(1));
        assert_eq!(choose(&suspects, 100, &[]), Some(1));
        assert_eq!(choose(&suspects, 0, &[1, 2, 3]), None);
    }
}
