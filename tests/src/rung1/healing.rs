//! After faults end: all must come back to what it should be, and then be quiet.

use situ_wire::block::Block;
use situ_wire::ids::{ClientId, DatanodeId};
use situ_wire::messages::namenode::{FileStatus, Liveness, Request, Response};
use situ_wire::path::DfsPath;

use super::world::{Happening, World};
use crate::promises::Violation;
use crate::promises::fencing::Unfenced;
use crate::promises::liveness::Stuck;
use crate::promises::metadata::{Answer, Entry};

/// Within which time after the end of faults all must be well.
const BOUND_MS: u64 = 400_000;
/// For how long all must have been well and nothing ordered: orders wait for a heartbeat.
const CALM_S: u64 = 5;
/// For how long it must then be quiet: longer than any order waits until it is given again.
const QUIET_MS: u64 = 70_000;

impl World {
    /// Faults end: everyone comes back, nobody begins anything new. Some clients never come back.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.settings.heal();
        let now = self.schedule.now();
        for at in 0..self.clients.len() {
            self.clients[at].cut_until = now;
            if self.chance.permille(300) {
                self.clients[at].run += 1;
                self.clients[at].open = None;
                self.clients[at].waits = None;
            }
        }
        for at in 0..self.datanodes.len() {
            self.datanodes[at].cut_until = now;
            self.datanode_up(at);
        }
        self.namenode_wakes(self.namenode.run);
        self.namenode_up();
    }

    /// Waits until all is well, and then whether it stays quiet.
    pub(super) fn demand_progress(&mut self) {
        let healed_at = self.schedule.now();
        let mut calm_s = 0;
        loop {
            self.run_for(1_000);
            let waited_ms = self.schedule.now().0 - healed_at.0;
            if self.violation.is_some() {
                return;
            }
            let commands = std::mem::take(&mut self.namenode.commands);
            let unsettled = self.unsettled(waited_ms);
            // Who comes back later brings work with it.
            let all_up = self.datanodes.iter().all(|datanode| datanode.core.is_some());
            calm_s = if commands == 0 && unsettled.is_none() && all_up { calm_s + 1 } else { 0 };
            if calm_s >= CALM_S {
                break;
            }
            if calm_s == 0 && waited_ms > BOUND_MS {
                let last = self.namenode.last_command.clone();
                let storm = Stuck::Storm { window_ms: 1_000, commands, last };
                return self.violated(unsettled.unwrap_or_else(|| storm.into()));
            }
        }
        self.settled_ms = self.schedule.now().0 - healed_at.0;
        // What got lost with the last fault is ordered once more; after that nothing is.
        self.run_for(QUIET_MS);
        self.namenode.commands = 0;
        self.run_for(QUIET_MS);
        if self.namenode.commands > 0 {
            let (commands, last) = (self.namenode.commands, self.namenode.last_command.clone());
            self.violated(Stuck::Storm { window_ms: QUIET_MS, commands, last });
        }
        let waited_ms = self.schedule.now().0 - healed_at.0;
        if self.unsettled(waited_ms).is_some() {
            // Clients are forgotten by time: the sync of that may be under way at any moment, but not for long.
            self.run_for(1_000);
        }
        if let Some(stuck) = self.unsettled(waited_ms) {
            self.violated(stuck);
        }
        self.audit();
    }

    /// Lets so much time go by.
    fn run_for(&mut self, for_ms: u64) {
        self.is_over = false;
        self.schedule.after(for_ms, Happening::Over);
        while !self.is_over && self.violation.is_none() {
            self.step();
        }
    }

    /// What is not as it should be.
    fn unsettled(&mut self, waited_ms: u64) -> Option<Violation> {
        let reason = self.namenode.core.as_ref().and_then(|core| core.safe_mode());
        if let Some(reason) = reason {
            return Some(Stuck::SafeMode { waited_ms, reason }.into());
        }
        if let Some(request) = self.clients.iter().find_map(|client| client.waits.as_ref()) {
            return Some(Stuck::Unanswered { waited_ms, request: format!("{request:?}") }.into());
        }
        if self.namenode.journal.synced() != self.namenode.journal.last() {
            return Some(Stuck::Unanswered { waited_ms, request: "a sync".to_owned() }.into());
        }
        if let Some(stuck) = self.unsettled_blocks(waited_ms) {
            return Some(stuck.into());
        }
        for datanode in &self.datanodes {
            let working = datanode.volumes.values().filter(|volume| !volume.failed);
            for block in working.flat_map(|volume| volume.files.keys()) {
                let known = self.oracle.model().block(block.id);
                if known.is_none_or(|(_, _, known)| known.block() != *block) {
                    return Some(Stuck::Leftover { waited_ms, datanode: datanode.me.id, block: *block }.into());
                }
            }
        }
        self.unsettled_beliefs(waited_ms)
    }

    fn unsettled_blocks(&self, waited_ms: u64) -> Option<Stuck> {
        let up = self.datanodes.iter().filter(|datanode| datanode.core.is_some()).count();
        for (path, file) in self.oracle.model().files() {
            if file.writer.is_some() {
                return Some(Stuck::Open { waited_ms, path: path.to_owned() });
            }
            for block in &file.blocks {
                let (_, promised) = self.promised(block.block())?;
                let stored: Vec<_> = self.stored(block.block()).collect();
                let found = stored.iter().filter(|(_, stored)| promised.is_held_by(stored)).count();
                let expected = usize::from(file.replication).min(up);
                if found != expected || stored.len() != found {
                    let block = block.block();
                    return Some(Stuck::Replicas { waited_ms, path: path.to_owned(), block, found, expected });
                }
            }
        }
        None
    }

    /// What the namenode believes must be so.
    fn unsettled_beliefs(&mut self, waited_ms: u64) -> Option<Violation> {
        let Ok(Response::Report(report)) = self.ask(Request::Report) else { return None };
        for datanode in &self.datanodes {
            let known = report.datanodes.iter().find(|known| known.location.id == datanode.me.id);
            if datanode.core.is_some() && known.is_none_or(|known| known.liveness != Liveness::Live) {
                return Some(Stuck::NotLive { waited_ms, datanode: datanode.me.id }.into());
            }
        }
        let files: Vec<DfsPath> =
            self.oracle.model().files().filter_map(|(path, _)| DfsPath::parse(path).ok()).collect();
        for path in files {
            let request =
                Request::Blocks { path: path.clone(), offset: 0, len_bytes: u64::MAX, node: None, client: ClientId(0) };
            let blocks = match self.ask(request) {
                Ok(Response::Blocks { blocks, .. }) => blocks,
                other => return Some(Stuck::Unreachable { path, reason: format!("{other:?}") }.into()),
            };
            for located in blocks {
                let believed = located.locations.iter().map(|location| location.id).collect::<Vec<_>>();
                if let Some(violation) = self.compare_places(located.block, &believed, &path, waited_ms) {
                    return Some(violation);
                }
            }
        }
        None
    }

    fn compare_places(
        &self,
        block: Block,
        believed: &[DatanodeId],
        path: &DfsPath,
        waited_ms: u64,
    ) -> Option<Violation> {
        let (_, promised) = self.promised(block)?;
        let good: Vec<DatanodeId> =
            self.stored(block).filter(|(_, stored)| promised.is_held_by(stored)).map(|(id, _)| id).collect();
        if let Some(datanode) = believed.iter().find(|id| !good.contains(id)) {
            return Some(Unfenced::Counted { block, datanode: *datanode }.into());
        }
        (believed.len() != good.len()).then(|| {
            let (found, expected) = (believed.len(), good.len());
            Stuck::Replicas { waited_ms, path: path.to_string(), block, found, expected }.into()
        })
    }

    /// Looks at the whole namespace.
    fn audit(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let mut left = vec![DfsPath::root()];
        let mut found = Vec::new();
        while let Some(path) = left.pop() {
            let request = Request::List { path: path.clone(), after: None, limit: 1000 };
            let entries: Vec<FileStatus> = match self.ask(request) {
                Ok(Response::Listing { entries, .. }) => entries,
                other => {
                    return self.violated(Stuck::Unreachable { path, reason: format!("{other:?}") });
                }
            };
            left.extend(entries.iter().filter(|entry| entry.is_directory()).map(|entry| entry.path.clone()));
            found.extend(entries);
        }
        let tx = self.namenode.journal.last();
        for status in &found {
            let request = Request::Stat { path: status.path.clone() };
            let result = Ok(Response::Status(Some(status.clone())));
            let answer = Answer { request, when: tx, result, floor: tx, received: true };
            if let Err(disagreement) = self.oracle.answered(situ_namenode::core::CallId(u64::MAX), answer) {
                return self.violated(disagreement);
            }
        }
        let expected: Vec<String> =
            self.oracle.model().entries().map(|(path, _)| path.to_owned()).filter(|path| path != "/").collect();
        let mut found: Vec<String> = found.into_iter().map(|status| status.path.to_string()).collect();
        found.sort();
        let model = self.oracle.model();
        let files = model.entries().filter(|(_, entry)| matches!(entry, Entry::File(_))).count();
        self.trace.note(files as u64);
        if found != expected {
            let reason = format!("found {found:?}, expected {expected:?}");
            self.violated(Stuck::Unreachable { path: DfsPath::root(), reason });
        }
    }
}
