//! Datanodes that come and go, lose disks and messages, while files are written and deleted: no block is ever deleted
//! that should be there, and after the storm every block gets its replicas back.

use situ_wire::block::Block;
use situ_wire::error::ErrorCode;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::namenode::{DatanodeCommand, ReplicaChange, Request, Response};

use super::world::{BLOCK, World, code, datanode_id, path};
use crate::core::random::SplitMix;

struct Storm {
    world: World,
    random: SplitMix,
    /// Closed files and their blocks.
    files: Vec<(String, Block)>,
}

impl Storm {
    fn pick(&mut self) -> DatanodeId {
        datanode_id(u128::from(self.random.below(6)))
    }

    /// Does what a datanode is told, and watches that no deletion takes the last replica.
    fn obey(&mut self, id: DatanodeId, command: DatanodeCommand) {
        if self.random.below(10) == 0 {
            return; // The answer got lost.
        }
        let deleted = match &command {
            DatanodeCommand::Invalidate { blocks } => blocks.clone(),
            _ => Vec::new(),
        };
        self.world.obey(id, command);
        for block in deleted {
            if let Some((name, _)) = self.files.iter().find(|(_, other)| *other == block) {
                assert!(!self.world.holders(block).is_empty(), "{name}: the last replica of {block} was deleted");
            }
        }
    }

    fn write(&mut self, name: String) {
        let request = self.world.create_request(1, &name, 3);
        let Ok(Response::Created { inode, .. }) = self.world.call(request) else { return };
        let Ok(located) = self.world.try_add_block(inode, Vec::new()) else { return };
        // The pipeline writes to those that are really up; if that is none, the block is given back.
        let mut located = located;
        located.locations.retain(|location| self.world.disks[&location.id].up);
        if located.locations.is_empty() {
            let operation = self.world.operation();
            self.world.call(Request::AbandonBlock { inode, block: located.block, operation }).unwrap();
            assert_eq!(self.world.complete(inode, Vec::new()), Ok(Response::Done));
            return;
        }
        let committed = self.world.store(&located, 1 + self.random.below(BLOCK));
        match self.world.complete(inode, vec![committed]) {
            Ok(_) => self.files.push((name, located.block)),
            Err(error) => panic!("{name}: {error}"),
        }
    }

    fn step(&mut self, step: usize) {
        if self.world.ns.safe_mode().is_some() {
            self.beat();
            return;
        }
        match self.random.below(12) {
            0..=3 => self.write(format!("/f{step}")),
            4 if !self.files.is_empty() => {
                let at = self.random.index(self.files.len());
                let (name, _) = self.files.swap_remove(at);
                let operation = self.world.operation();
                self.world.call(Request::Delete { path: path(&name), recursive: false, operation }).unwrap();
            }
            5 => {
                let id = self.pick();
                // Never so many at once that a block could lose all that hold it.
                let down = self.world.disks.values().filter(|disk| !disk.up).count();
                let disk = self.world.disks.get_mut(&id).unwrap();
                disk.up = !disk.up || down >= 2;
            }
            6 => {
                let id = self.pick();
                if self.world.disks[&id].up && self.world.heartbeat(id) != [DatanodeCommand::Register] {
                    self.world.full_report(id);
                }
            }
            7 if self.random.below(4) == 0 => {
                let id = self.pick();
                if self.world.disks[&id].up {
                    self.world.register(id);
                }
            }
            8 if !self.files.is_empty() && self.random.below(3) == 0 => {
                let (_, block) = self.files[self.random.index(self.files.len())];
                let id = self.pick();
                // Somebody says so, rightly or not.
                let result = self.world.call(Request::ReportCorrupt { block, datanode: id });
                assert!(result.is_ok() || code(result) == ErrorCode::NotFound, "one that has not come back yet");
            }
            9 => {
                let id = self.pick();
                let lost = self.world.disks[&id].replicas.keys().next().copied();
                let Some(lost) = lost.filter(|_| self.world.disks[&id].up) else { return };
                let replica = self.world.disks[&id].replicas[&lost];
                if self.world.holders(replica.block).len() > 2 {
                    self.world.disks.get_mut(&id).unwrap().replicas.remove(&lost);
                    let known = self.world.heartbeat(id) != [DatanodeCommand::Register];
                    if known {
                        self.world.change(id, ReplicaChange::Deleted { block: replica.block });
                    }
                }
            }
            _ => self.beat(),
        }
    }

    fn beat(&mut self) {
        let rest_ms = 500 + self.random.below(1500);
        self.world.pass(rest_ms);
        for id in self.world.up() {
            if self.random.below(8) == 0 {
                continue; // The heartbeat got lost.
            }
            for command in self.world.heartbeat(id) {
                self.obey(id, command);
            }
        }
    }
}

#[test]
fn no_block_is_lost_in_a_storm_and_all_are_whole_after_it() {
    for seed in 0..12 {
        let mut storm = Storm { world: World::cluster(6, 3), random: SplitMix::new(seed), files: Vec::new() };
        for step in 0..400 {
            storm.step(step);
            storm.world.ns.check();
            if step == 200 {
                storm.world.restart();
            }
        }
        for disk in storm.world.disks.values_mut() {
            disk.up = true;
        }
        for id in storm.world.up() {
            storm.world.register(id);
            storm.world.full_report(id);
        }
        storm.world.live(240_000);
        storm.world.ns.check();
        assert_eq!(storm.world.ns.safe_mode(), None, "seed {seed}");
        for (name, block) in storm.files.clone() {
            let holders = storm.world.holders(block);
            assert_eq!(holders.len(), 3, "seed {seed}: {name}, {block} is on {holders:?}");
            assert_eq!(storm.world.readable(&name), holders, "seed {seed}: {name}");
        }
        let all: usize = storm.world.disks.values().map(|disk| disk.replicas.len()).sum();
        assert_eq!(all, 3 * storm.files.len(), "seed {seed}: nothing else is left on the disks");
        assert_eq!(storm.world.replayed().digest(), storm.world.ns.digest());
    }
}
