//! What goes wrong.

use std::time::Duration;

use situ_wire::block::Block;
use situ_wire::ids::StorageId;

use super::settings::Fault;
use super::world::{Happening, World};

impl World {
    /// Something goes wrong.
    pub(super) fn nemesis_strikes(&mut self) {
        if self.is_healed {
            return;
        }
        let pause_ms = self.chance.between(50, self.settings.pause_ms);
        self.schedule.after(pause_ms, Happening::Nemesis);
        let faults = self.settings.faults.clone();
        let Some(fault) = self.chance.pick(&faults).copied() else { return };
        let at = self.chance.index(self.datanodes.len());
        if self.trace.is_shown {
            println!("{:?} fault: {fault:?} (datanode {at})", self.schedule.now());
        }
        match fault {
            Fault::DatanodeCrash => {
                if self.datanodes[at].core.is_some() {
                    self.datanode_crash(at);
                    let down_ms = self.chance.between(10, 25_000);
                    self.schedule.after(down_ms, Happening::DatanodeUp { at });
                }
            }
            Fault::Split => {
                let split = Duration::from_millis(self.chance.between(100, 25_000));
                self.datanodes[at].cut_until = self.schedule.now() + split;
            }
            Fault::DiskLoss => self.nemesis_takes_disk(at, false),
            Fault::DiskAway => self.nemesis_takes_disk(at, true),
            Fault::Rot => self.nemesis_rots(at),
            Fault::NamenodeCrash => {
                // Now, or in the middle of its next sync: then there is something to lose.
                if self.chance.permille(500) {
                    self.namenode.is_doomed = true;
                } else {
                    self.nemesis_takes_namenode();
                }
            }
            Fault::NamenodeStall => {
                let stall_ms = self.chance.between(100, 20_000);
                self.namenode_stall(stall_ms);
            }
            Fault::ClientCrash => {
                let client = self.chance.index(self.clients.len());
                self.client_crash(client);
            }
            Fault::ClientSplit => {
                let client = self.chance.index(self.clients.len());
                let split = Duration::from_millis(self.chance.between(100, 60_000));
                self.clients[client].cut_until = self.schedule.now() + split;
            }
            Fault::DatanodeStall => {
                let stall = Duration::from_millis(self.chance.between(100, 25_000));
                let (now, host) = (self.schedule.now(), &mut self.datanodes[at]);
                if host.stalled_until <= now {
                    host.stalled_until = now + stall;
                }
            }
        }
    }

    /// The namenode crashes, and is started again a while later.
    pub(super) fn nemesis_takes_namenode(&mut self) {
        if self.namenode.core.is_some() {
            self.namenode_crash();
            let down_ms = self.chance.between(10, 20_000);
            self.schedule.after(down_ms, Happening::NamenodeUp);
        }
    }

    /// A disk fails, unless that would take the last good replica of a block. When its datanode starts again it is another
    /// one, or it `returns` with all that it held, whatever has become of those blocks meanwhile.
    fn nemesis_takes_disk(&mut self, at: usize, returns: bool) {
        let working = self.datanodes[at].volumes.iter().filter(|(_, volume)| !volume.failed);
        let working: Vec<StorageId> = working.map(|(storage, _)| *storage).collect();
        let Some(storage) = self.chance.pick(&working).copied() else { return };
        let blocks = self.final_on(at, storage);
        if blocks.iter().all(|block| self.may_destroy(at, *block)) {
            let now = self.schedule.now();
            blocks.into_iter().for_each(|block| self.oracle.lost(now, block));
            self.lose_disk(at, storage, returns);
        }
    }

    /// A replica rots, unless it is the last good one.
    fn nemesis_rots(&mut self, at: usize) {
        let volumes = self.datanodes[at].volumes.keys().copied().collect::<Vec<_>>();
        let finals =
            volumes.iter().flat_map(|storage| self.final_on(at, *storage).into_iter().map(|it| (*storage, it)));
        let finals: Vec<(StorageId, Block)> = finals.collect();
        let Some((storage, block)) = self.chance.pick(&finals).copied() else { return };
        if self.may_destroy(at, block)
            && let Some(file) =
                self.datanodes[at].volumes.get_mut(&storage).and_then(|volume| volume.files.get_mut(&block))
        {
            file.rotten = true;
        }
    }
}
