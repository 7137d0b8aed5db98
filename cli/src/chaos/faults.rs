//! Faults as they happen to the processes of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::Instant;

use super::processes::{Held, Part, Paused, of_jobs};
use super::schedule::{Fault, FaultKind, Victim};
use crate::error::{CliError, CliResult};
use crate::up::process::RoleProcess;
use crate::up::{Cluster, Member};

/// How many may be away at once: replicas are three, so no block loses its last one.
const AT_ONCE: usize = 2;
/// For how long a driver or worker is waited for when a fault is meant for one and none runs, and how often it is looked.
const NOBODY_LIMIT: Duration = Duration::from_secs(3);
const NOBODY_LOOK: Duration = Duration::from_millis(50);

/// What happened to whom, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    happened: BTreeMap<(FaultKind, &'static str), u32>,
    /// How many faults were meant for a driver or worker when there was none.
    pub in_vain: u32,
}

impl Tally {
    /// Who was killed, or stopped, and how often each: every name, also of those whom it spared.
    pub fn of(&self, kind: FaultKind) -> impl Iterator<Item = (&'static str, u32)> {
        NAMES.into_iter().map(move |name| (name, self.happened.get(&(kind, name)).copied().unwrap_or(0)))
    }

    /// How many were killed, or stopped.
    #[must_use]
    pub fn total(&self, kind: FaultKind) -> u32 {
        self.of(kind).map(|(_, times)| times).sum()
    }

    fn add(&mut self, kind: FaultKind, victim: Victim) {
        *self.happened.entry((kind, name(victim))).or_default() += 1;
    }
}

const NAMES: [&str; 6] = ["namenode", "scheduler", "datanode", "executor", "driver", "worker"];

fn name(victim: Victim) -> &'static str {
    match victim {
        Victim::Role(Member::Namenode) => "namenode",
        Victim::Role(Member::Scheduler) => "scheduler",
        Victim::Role(Member::Datanode(_)) => "datanode",
        Victim::Role(Member::Executor(_)) => "executor",
        Victim::Driver(_) => "driver",
        Victim::Worker(_) => "worker",
    }
}

/// Kills and stops the processes of a cluster, and brings them back. Dropped in the midst of it, all that stand still go on.
#[derive(Debug)]
pub struct Faults<'a> {
    // First, so that it is dropped first: a cluster that is dropped is killed.
    away: Vec<Away>,
    cluster: &'a mut Cluster,
    tally: Tally,
}

/// Somebody who is not there, and when they come back.
#[derive(Debug)]
struct Away {
    victim: Victim,
    back: Instant,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Killed(Member),
    Paused(#[expect(dead_code, reason = "held until they go on")] Paused),
}

impl<'a> Faults<'a> {
    /// None yet.
    pub fn new(cluster: &'a mut Cluster) -> Self {
        Self { away: Vec::new(), cluster, tally: Tally::default() }
    }

    /// Lets a fault happen after its rest, and meanwhile brings back whose time has come.
    ///
    /// # Errors
    /// When a role that was killed does not start again, or the operating system refuses.
    pub async fn inflict(&mut self, fault: &Fault) -> CliResult {
        let at = Instant::now() + fault.rest;
        while self.away.iter().any(|away| away.back <= at) {
            self.first_back().await?;
        }
        tokio::time::sleep_until(at).await;
        while self.away.len() >= AT_ONCE || self.away.iter().any(|away| away.victim == fault.victim) {
            self.first_back().await?;
        }
        let why = match fault.victim {
            Victim::Role(member) => self.strike_role(member, fault.kind).await?,
            Victim::Driver(which) => self.strike_process(Part::Driver, which, fault).await?,
            Victim::Worker(which) => self.strike_process(Part::Worker, which, fault).await?,
        };
        let back = Instant::now() + fault.lasts;
        self.away.extend(why.map(|why| Away { victim: fault.victim, back, why }));
        Ok(())
    }

    /// Brings everybody back. Says what happened.
    ///
    /// # Errors
    /// When a role that was killed does not start again.
    pub async fn end(mut self) -> CliResult<Tally> {
        while !self.away.is_empty() {
            self.first_back().await?;
        }
        Ok(std::mem::take(&mut self.tally))
    }

    async fn strike_role(&mut self, member: Member, kind: FaultKind) -> CliResult<Option<Why>> {
        let process = process(self.cluster, member)?;
        let why = match kind {
            FaultKind::Kill => {
                process.kill().await?;
                Some(Why::Killed(member))
            }
            FaultKind::Pause => {
                let pid = process.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
                let Some(pid) = pid else { return Err(CliError::failed(format!("{} has ended", process.name()))) };
                Held::take(pid)?.map(Held::pause).transpose()?.flatten().map(Why::Paused)
            }
        };
        self.tally.add(kind, Victim::Role(member));
        Ok(why)
    }

    /// What befalls a process of a job: one that is killed is not brought back by anybody here.
    async fn strike_process(&mut self, part: Part, which: u8, fault: &Fault) -> CliResult<Option<Why>> {
        let begun = Instant::now();
        while begun.elapsed() < NOBODY_LIMIT {
            let mut running = of_jobs(self.cluster.scheduler.address(), part, None);
            if !running.is_empty() {
                let held = running.swap_remove(usize::from(which) % running.len());
                let (struck, why) = match fault.kind {
                    FaultKind::Kill => (held.kill()?, None),
                    FaultKind::Pause => {
                        let paused = held.pause()?;
                        (paused.is_some(), paused.map(Why::Paused))
                    }
                };
                if struck {
                    self.tally.add(fault.kind, fault.victim);
                    return Ok(why);
                }
                // It ended in between.
            }
            tokio::time::sleep(NOBODY_LOOK).await;
        }
        self.tally.in_vain += 1;
        Ok(None)
    }

    /// Waits until the first is due to come back, and brings them back.
    async fn first_back(&mut self) -> CliResult {
        let first = (0..self.away.len()).min_by_key(|place| self.away[*place].back);
        let Some(Away { back, why, victim }) = first.map(|place| self.away.swap_remove(place)) else { return Ok(()) };
        tokio::time::sleep_until(back).await;
        let Why::Killed(member) = why else { return Ok(()) };
        let Self { cluster, away, .. } = self;
        let mut restart = std::pin::pin!(process(cluster, member)?.restart());
        loop {
            // It may need one that stands still.
            let paused = away.iter().enumerate().filter(|(_, away)| matches!(away.why, Why::Paused(_)));
            let next = paused.min_by_key(|(_, away)| away.back).map(|(place, away)| (place, away.back));
            let due = async {
                match next {
                    Some((place, back)) => {
                        tokio::time::sleep_until(back).await;
                        place
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                restarted = &mut restart => {
                    return restarted.map_err(|error| {
                        CliError::failed(format!("{} does not start again after a kill: {error}", name(victim)))
                    });
                }
                place = due => drop(away.swap_remove(place)),
            }
        }
    }
}

fn process(cluster: &mut Cluster, member: Member) -> CliResult<&mut RoleProcess> {
    cluster.process(member).ok_or_else(|| CliError::failed(format!("{member:?} is not there")))
}
