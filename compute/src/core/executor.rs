use std::collections::{BTreeMap, VecDeque};

use situ_wire::ids::JobId;
use situ_wire::limits::MESSAGE_LEN_BYTES;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{ExecutorCommand, ExecutorRegistration, ExecutorStatus, Resources};
use situ_wire::time::TimeMs;

use super::CallId;
use super::jobs::ARGUMENTS_LEN_BYTES;
use super::places::Home;
use super::policy::{SchedulingPolicy, ms};
use super::slots::Slots;
use super::workers::Workers;

/// One run of an executor.
///
/// ```text
///          silent for suspect_ms            silent for dead_ms
///   Live -------------------------> Suspect -------------------> Dead
///    ^  \___ connection lost _______^   |                          ^
///    |                                  |  not back in reconnect_ms |
///    +----------- polls ----------------+--------------------------+
/// ```
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) registration: ExecutorRegistration,
    /// Where it lives.
    pub(super) home: Home,
    /// The name in the certificate of who registered it: nobody else polls for it.
    pub(super) owner: String,
    pub(super) liveness: Liveness,
    pub(super) last_poll: TimeMs,
    /// Whether it has polled at all since it registered.
    pub(super) polled: bool,
    /// Since when it owes a poll; none while one is kept.
    quiet_since: Option<TimeMs>,
    /// Since when its connection is gone.
    disconnected: Option<TimeMs>,
    /// The poll that is kept.
    parked: Option<CallId>,
    /// Attempts that take slots.
    pub(super) running: Slots,
    /// Attempts that it has reported, which take slots until a plan names them.
    pub(super) reported: Slots,
    /// The job for a large task of which it is kept: no other gets a slot.
    pub(super) reserved: Option<JobId>,
    /// The jobs for whose workers it keeps memory.
    pub(super) workers: Workers,
    /// It has not told yet all that it has: until then, or that time, it gets no tasks.
    pub(super) reports_until: Option<TimeMs>,
    /// Drivers that run there, with their attempts.
    pub(super) drivers: BTreeMap<JobId, u32>,
    /// Commands that it has not acknowledged.
    commands: VecDeque<(u64, ExecutorCommand)>,
    /// The number of the last command.
    last: u64,
    /// When it came to have as many free slots as it has, among all such changes; 0 if it has none.
    pub(super) freed: u64,
    /// What [`Executors`](super::executors::Executors) has noted of it.
    pub(super) noted: Noted,
}

/// What an executor is listed under.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Noted {
    /// Its load, if it has free slots.
    pub(super) free: Option<u64>,
    /// If it has free slots and all its memory is taken: when a worker without tasks makes way.
    pub(super) makes_way: Option<TimeMs>,
    /// Whether a job leaves it to another.
    pub(super) left: bool,
    /// How many slots nobody has taken, if it gets tasks.
    pub(super) room: Option<u32>,
    /// How many drivers it has and its load, if it is live.
    pub(super) live: Option<(usize, u64)>,
    /// When something must be done about it.
    pub(super) due: Option<TimeMs>,
    /// Whether it waits for commands that are there.
    pub(super) told: bool,
    /// Whether it is not heard, or not well.
    pub(super) suspect: bool,
}

/// How much the commands of one answer take together, unless a single one takes more.
const COMMANDS_LEN_BYTES: usize = 4 << 20;
/// What a command takes beside its arguments, at most.
const COMMAND_LEN_BYTES: usize = 1 << 10;

/// What one of the ids that a command lists takes, at most.
const ID_LEN_BYTES: usize = 5;

const _: () = assert!(
    COMMANDS_LEN_BYTES < MESSAGE_LEN_BYTES / 2 && 2 * ARGUMENTS_LEN_BYTES < COMMANDS_LEN_BYTES,
    "an answer with commands fits into a message"
);

/// How long a command is when it is encoded, or a little more.
fn about_len_bytes(command: &ExecutorCommand) -> usize {
    match command {
        ExecutorCommand::StartDriver { job, .. } | ExecutorCommand::BeginJob { job } => {
            // Each with its own length.
            COMMAND_LEN_BYTES + job.arguments.iter().map(|argument| argument.len() + 8).sum::<usize>()
        }
        ExecutorCommand::RunTask { .. }
        | ExecutorCommand::CancelTask { .. }
        | ExecutorCommand::EndJob { .. }
        | ExecutorCommand::EndDriver { .. } => COMMAND_LEN_BYTES,
        ExecutorCommand::Release { shuffles, .. } => COMMAND_LEN_BYTES + shuffles.len() * ID_LEN_BYTES,
    }
}

impl Executor {
    pub(super) fn new(registration: ExecutorRegistration, owner: String, now: TimeMs) -> Self {
        Self {
            workers: Workers::new(registration.workers),
            registration,
            home: Home::default(),
            owner,
            liveness: Liveness::Live,
            last_poll: now,
            polled: false,
            quiet_since: Some(now),
            disconnected: None,
            parked: None,
            running: Slots::default(),
            reported: Slots::default(),
            reserved: None,
            reports_until: None,
            drivers: BTreeMap::new(),
            commands: VecDeque::new(),
            last: 0,
            freed: 0,
            noted: Noted::default(),
        }
    }

    /// What it is to be listed under.
    pub(super) fn note(&self, policy: &SchedulingPolicy) -> Noted {
        Noted {
            free: (self.free() > 0).then(|| self.load()),
            makes_way: self
                .workers
                .next_idle(ms(policy.crowded_ms), |job| self.is_idle(job))
                .filter(|_| self.free() > 0),
            left: self.workers.leaving().is_some(),
            room: self.takes_tasks().then(|| self.room()),
            live: (self.liveness == Liveness::Live).then(|| (self.drivers.len(), self.load())),
            due: Some(self.next_due(policy)).filter(|due| *due < TimeMs::NEVER),
            told: self.parked.is_some() && self.has_commands(),
            suspect: self.liveness == Liveness::Suspect,
        }
    }

    /// How many slots whoever comes may take.
    pub(super) fn free(&self) -> u32 {
        if self.reserved.is_some() { 0 } else { self.room() }
    }

    /// How many slots nobody has taken.
    pub(super) fn room(&self) -> u32 {
        let taken = self.running.taken().saturating_add(self.reported.taken());
        if self.takes_tasks() { self.registration.slots.saturating_sub(taken) } else { 0 }
    }

    /// Whether it gets tasks now.
    pub(super) fn takes_tasks(&self) -> bool {
        self.liveness == Liveness::Live && self.reports_until.is_none()
    }

    /// How many slots a task takes that needs so much; none if it can never be here.
    pub(super) fn slots_of(&self, resources: &Resources) -> Option<u32> {
        resources.slots_of(self.registration.slots, self.registration.worker_memory_bytes)
    }

    /// Whether a job may begin tasks here, as far as memory goes.
    pub(super) fn takes(&self, job: JobId) -> bool {
        self.workers.takes(job)
    }

    /// Whether a job may begin tasks here because the worker of another one makes way that has none, and that has had its
    /// memory since `before` or longer.
    pub(super) fn makes_way(&self, job: JobId, before: TimeMs) -> bool {
        self.workers.makes_way(job, before, |other| self.is_idle(other))
    }

    /// A job begins here: it has memory from now on. Whether it had none.
    pub(super) fn begin(&mut self, job: JobId, now: TimeMs) -> bool {
        let Self { workers, running, reported, .. } = self;
        workers.begin(job, now, |other| running.of_job(other) + reported.of_job(other) == 0)
    }

    /// If the job that leaves is gone, the one for which it did has its memory.
    pub(super) fn settle(&mut self, now: TimeMs) {
        let Self { workers, running, reported, .. } = self;
        workers.settle(now, |other| running.of_job(other) + reported.of_job(other) == 0);
    }

    /// How many tasks of a job take slots.
    pub(super) fn tasks_of(&self, job: JobId) -> u32 {
        self.running.of_job(job) + self.reported.of_job(job)
    }

    /// Whether no task of a job takes slots.
    pub(super) fn is_idle(&self, job: JobId) -> bool {
        self.tasks_of(job) == 0
    }

    /// Whether such a task may begin here now.
    pub(super) fn has_room(&self, resources: &Resources) -> bool {
        self.slots_of(resources).is_some_and(|slots| slots <= self.room())
    }

    /// How busy it is, in thousandths of its slots.
    pub(super) fn load(&self) -> u64 {
        u64::from(self.running.taken()) * 1000 / u64::from(self.registration.slots.max(1))
    }

    pub(super) fn push(&mut self, command: ExecutorCommand) {
        assert!(self.liveness != Liveness::Dead, "the dead get no commands");
        self.last += 1;
        self.commands.push_back((self.last, command));
    }

    /// It polls. False if it knows of commands that were never given: it takes this for another run.
    pub(super) fn poll(&mut self, seen: u64, now: TimeMs) -> bool {
        self.last_poll = now;
        self.polled = true;
        self.quiet_since = Some(now);
        self.disconnected = None;
        self.liveness = Liveness::Live;
        while self.commands.front().is_some_and(|(number, _)| *number <= seen) {
            self.commands.pop_front();
        }
        seen <= self.last
    }

    /// Keeps a poll; the one that it replaces.
    pub(super) fn park(&mut self, call: CallId) -> Option<CallId> {
        self.quiet_since = None;
        self.parked.replace(call)
    }

    /// Takes the kept poll to answer it.
    pub(super) fn unpark(&mut self, now: TimeMs) -> Option<CallId> {
        let call = self.parked.take()?;
        self.quiet_since = Some(now);
        Some(call)
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The commands that are not acknowledged, the oldest first, as many as fit into one answer; the number of the last of
    /// them. What is left goes with the next poll.
    pub(super) fn commands(&self) -> (u64, Vec<(u64, ExecutorCommand)>) {
        let mut len = 0;
        let mut fits = |command: &ExecutorCommand| {
            let is_first = len == 0;
            len += about_len_bytes(command);
            is_first || len <= COMMANDS_LEN_BYTES
        };
        let commands: Vec<_> = self.commands.iter().take_while(|(_, command)| fits(command)).cloned().collect();
        (commands.last().map_or(self.last, |(number, _)| *number), commands)
    }

    /// Its connection is gone.
    pub(super) fn disconnect(&mut self, now: TimeMs) {
        self.disconnected.get_or_insert(now);
        if self.liveness == Liveness::Live {
            self.liveness = Liveness::Suspect;
        }
    }

    /// When something must be done if nothing is heard: answer the kept poll, suspect it, give it up, forget it.
    pub(super) fn next_due(&self, policy: &SchedulingPolicy) -> TimeMs {
        if self.liveness == Liveness::Dead {
            return self.last_poll + ms(policy.forget_ms);
        }
        let hold = self.parked.map_or(TimeMs::NEVER, |_| self.last_poll + ms(policy.poll_hold_ms));
        let silence = self.quiet_since.map_or(TimeMs::NEVER, |since| {
            since + ms(if self.liveness == Liveness::Live { policy.suspect_ms } else { policy.dead_ms })
        });
        let cut = self.disconnected.map_or(TimeMs::NEVER, |since| since + ms(policy.reconnect_ms));
        hold.min(silence).min(cut).min(self.reports_until.unwrap_or(TimeMs::NEVER))
    }

    /// Whether its kept poll has been kept long enough.
    pub(super) fn holds_too_long(&self, now: TimeMs, policy: &SchedulingPolicy) -> bool {
        self.parked.is_some() && self.last_poll + ms(policy.poll_hold_ms) <= now
    }

    /// What it is thought to be after this much silence.
    pub(super) fn judge(&self, now: TimeMs, policy: &SchedulingPolicy) -> Liveness {
        let over = |since: Option<TimeMs>, rest: u32| since.is_some_and(|since| since + ms(rest) <= now);
        if self.liveness == Liveness::Dead
            || over(self.quiet_since, policy.dead_ms)
            || over(self.disconnected, policy.reconnect_ms)
        {
            Liveness::Dead
        } else if over(self.quiet_since, policy.suspect_ms) || self.disconnected.is_some() {
            Liveness::Suspect
        } else {
            Liveness::Live
        }
    }

    /// The scheduler itself stood still for `rest`: its silence then does not count.
    pub(super) fn excuse(&mut self, rest: std::time::Duration) {
        for since in [&mut self.quiet_since, &mut self.disconnected].into_iter().flatten() {
            *since = *since + rest;
        }
    }

    /// It is dead: nothing is sent to it and nothing runs there any more. The kept poll, to be answered.
    pub(super) fn bury(&mut self) -> Option<CallId> {
        self.liveness = Liveness::Dead;
        self.running.clear();
        self.reported.clear();
        self.reserved = None;
        self.workers = Workers::new(self.registration.workers);
        self.reports_until = None;
        self.drivers.clear();
        self.commands.clear();
        self.quiet_since = None;
        self.disconnected = None;
        self.parked.take()
    }

    pub(super) fn status(&self) -> ExecutorStatus {
        ExecutorStatus {
            registration: self.registration.clone(),
            liveness: self.liveness,
            running: self.running.taken(),
            last_poll: self.last_poll,
        }
    }
}
