//! The one task that owns the namesystem: select, act, do the effects.

use std::sync::Arc;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::journal::JournalError;
use situ_runtime::rpc::RpcError;
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::messages::namenode::Response;
use situ_wire::time::TimeMs;
use tokio::sync::mpsc;

use super::images::{ImageEvent, Images};
use super::log::Log;
use super::replies::Replies;
use super::room::{Looked, RoomWatch};
use super::service::Incoming;
use crate::core::{Effect, Event, Namesystem};
use crate::error::NamenodeError;
use crate::metrics::Metrics;

/// The most calls that are taken at one wake-up, so that syncs and timers get their turn.
const WAKE_CALLS: usize = 256;

/// What reaches the owner beside calls.
#[derive(Debug)]
pub(super) enum Control {
    /// End cleanly.
    Shutdown,
    /// The listener failed.
    ListenerFailed(RpcError),
}

/// How far a clean end has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Calls come in.
    Serving,
    /// No new calls; those that queue are answered.
    Draining,
    /// All is answered and on the disk; a last image is brought forward.
    LastImage,
}

/// What one wake-up is about.
enum Action {
    Progress(Result<(), Option<JournalError>>),
    Calls,
    Image(ImageEvent),
    Looked(Looked),
    Control(Option<Control>),
    Timeout,
}

/// Owns the namesystem.
pub(super) struct Owner<R: Runtime> {
    pub(super) runtime: R,
    pub(super) namesystem: Namesystem,
    pub(super) calls: mpsc::Receiver<Incoming>,
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) log: Log,
    pub(super) room: RoomWatch,
    pub(super) images: Images,
    pub(super) metrics: Arc<Metrics>,
    /// How many edits, and how many bytes of them, may be on their way to the disk.
    pub(super) unsynced_limit: (usize, usize),
}

impl<R: Runtime> Owner<R> {
    /// Runs until it is told to end, or must.
    pub(super) async fn run(mut self) -> Result<(), NamenodeError> {
        let outcome = self.serve().await;
        // Who is still waiting in the queue is turned away before the files are let go.
        self.calls.close();
        while self.calls.try_recv().is_ok() {}
        self.log.close().await;
        outcome
    }

    async fn serve(&mut self) -> Result<(), NamenodeError> {
        let mut replies = Replies::default();
        let mut batch = Vec::with_capacity(WAKE_CALLS);
        let mut phase = Phase::Serving;
        self.namesystem.set_wall_clock(self.runtime.clock().wall_clock());
        let now = self.runtime.clock().now();
        self.namesystem.start(now);
        self.do_effects(&mut replies)?;
        self.tell_room(now, &mut replies)?;
        loop {
            let action = self.next(phase, &mut batch).await;
            let now = self.runtime.clock().now();
            self.namesystem.set_wall_clock(self.runtime.clock().wall_clock());
            match action {
                Action::Progress(Ok(())) => {
                    self.metrics.syncs.add(1);
                    replies.release(self.log.synced());
                }
                Action::Progress(Err(error)) => {
                    replies.fail();
                    return Err(error.map_or(NamenodeError::TaskEnded { task: "edit log" }, NamenodeError::Journal));
                }
                Action::Calls => {
                    self.metrics.wakes.add(1);
                    for incoming in batch.drain(..) {
                        self.call(incoming, now, &mut replies)?;
                    }
                }
                Action::Image(ImageEvent::Feed) => self.images.feed(&mut self.namesystem),
                Action::Image(ImageEvent::Ended(outcome)) => {
                    if let Some(tx) = self.images.ended(&self.runtime, &mut self.namesystem, outcome, now) {
                        self.log.drop_before(tx);
                    }
                }
                Action::Looked(looked) => self.room.note(looked),
                Action::Control(Some(Control::ListenerFailed(error))) => return Err(NamenodeError::Listener(error)),
                // Without a handle nobody could ever end it.
                Action::Control(Some(Control::Shutdown) | None) => {
                    self.calls.close();
                    phase = Phase::Draining;
                }
                Action::Timeout => {}
            }
            self.tell_room(now, &mut replies)?;
            if self.room.poll_timeout() <= now {
                self.room.look(&self.log, now);
            }
            // Whatever woke the owner, what is due is done: no stream of calls can starve it.
            if self.namesystem.poll_timeout().is_some_and(|due| due <= now) {
                self.namesystem.handle_timeout(now);
                self.do_effects(&mut replies)?;
            }
            if phase == Phase::Serving && self.images.poll_timeout(self.namesystem.last_tx()) <= now {
                self.begin_image(now, false);
            }
            if phase == Phase::Draining && self.calls.is_empty() && replies.is_empty() && self.log.is_synced() {
                phase = Phase::LastImage;
                if !self.images.is_running() && !self.images.is_current(self.namesystem.last_tx()) {
                    self.begin_image(now, true);
                }
            }
            if phase == Phase::LastImage && !self.images.is_running() {
                return Ok(());
            }
        }
    }

    /// Waits for the next thing to do.
    async fn next(&mut self, phase: Phase, batch: &mut Vec<Incoming>) -> Action {
        let (edits, bytes) = self.log.unsynced();
        let has_room = edits < self.unsynced_limit.0 && bytes < self.unsynced_limit.1;
        let takes_calls = has_room && (phase == Phase::Serving || !self.calls.is_empty());
        let mut due = self.namesystem.poll_timeout().unwrap_or(TimeMs::NEVER).min(self.room.poll_timeout());
        if phase == Phase::Serving {
            due = due.min(self.images.poll_timeout(self.namesystem.last_tx()));
        }
        tokio::select! {
            biased;
            progress = self.log.progress() => Action::Progress(progress),
            control = self.control.recv(), if phase == Phase::Serving => Action::Control(control),
            event = self.images.event() => Action::Image(event),
            looked = self.room.looked() => Action::Looked(looked),
            _ = self.calls.recv_many(batch, WAKE_CALLS), if takes_calls => Action::Calls,
            () = self.runtime.clock().sleep_until(due) => Action::Timeout,
        }
    }

    fn call(&mut self, incoming: Incoming, now: TimeMs, replies: &mut Replies) -> Result<(), NamenodeError> {
        let Incoming { caller, request, reply } = incoming;
        if reply.deadline() < now {
            self.metrics.expired.add(1);
            let error = RemoteError::new(
                ErrorCode::DeadlineExceeded,
                "the namenode",
                "the call waited for longer than its caller does; nothing was done; try again",
            );
            reply.send::<Response>(Err(error));
            return Ok(());
        }
        self.metrics.calls.add(1);
        // What the calls before have appended may have been the last that goes.
        self.tell_room(now, replies)?;
        let call = replies.open(reply);
        self.namesystem.handle(now, Event::Call { call, caller, request });
        self.do_effects(replies)
    }

    /// Lets the core know what room the log has, if that is new.
    fn tell_room(&mut self, now: TimeMs, replies: &mut Replies) -> Result<(), NamenodeError> {
        if let Some(room) = self.room.news() {
            self.namesystem.handle(now, Event::Room(room));
            self.do_effects(replies)?;
        }
        Ok(())
    }

    fn do_effects(&mut self, replies: &mut Replies) -> Result<(), NamenodeError> {
        while let Some(effect) = self.namesystem.poll_effect() {
            match effect {
                Effect::Append { tx, edit } => {
                    let edit = codec::encode(&edit).map_err(|reason| NamenodeError::Edit { tx, reason })?;
                    self.metrics.edits.add(1);
                    self.room.appended(edit.len());
                    self.log.append(tx, edit);
                }
                Effect::Reply { call, when, result } => replies.answer(call, when, result, self.log.synced()),
                Effect::Warn { message } => tracing::warn!("{message}"),
            }
        }
        Ok(())
    }

    fn begin_image(&mut self, now: TimeMs, least: bool) {
        self.images.begin(&self.runtime, self.log.watch(), self.namesystem.last_tx(), now, least);
    }
}
