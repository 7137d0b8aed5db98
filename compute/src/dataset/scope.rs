//! Parts of a program that stand by themselves: their datasets and actions are counted within them, what they made is freed
//! at their end, and who comes late passes over those that have ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::ids::{DatasetId, ScopeId};
use situ_wire::limits::{MESSAGE_LEN_BYTES, SCOPES_NESTED};

use super::Context;
use super::graph::node_name;
use crate::program::error::ProgramError;
use crate::program::follow::ScopeLeft;
use crate::program::task::{is_in_task, panic_message};
use crate::program::world::ScopePath;
use crate::shortened::shortened;
use crate::shuffle::records;

/// The most bytes that a scope may return: what it came to is one message.
const RETURNED_LEN_BYTES: usize = MESSAGE_LEN_BYTES - (1 << 20);
/// How many characters of the name of a scope are told.
const NAME_CHARS: usize = 100;
/// How much of the name of a scope goes with the plans of its actions.
const PLAN_NAME_CHARS: usize = 255;

/// A part of a program, in one run of it.
pub(crate) struct Scope {
    path: ScopePath,
    /// What it is called, and where in the program it stands; empty for the whole program.
    name: String,
    next_dataset: AtomicU32,
    /// Held while an action runs: the order of actions is what their numbers mean.
    actions: Mutex<Actions>,
    /// The call that came while another one ran, if one did: which of them is counted first is chance, and so is what
    /// either gives.
    collided: Mutex<Option<String>>,
    inner: Mutex<InnerScopes>,
    /// The scope around it.
    outer: Option<Arc<Scope>>,
    ended: AtomicBool,
    /// Whether results of its actions, or values of the driver, are files.
    stores: AtomicBool,
    /// Whether tasks of it, or of a scope within it, are done with what a run of the program has made.
    replays: AtomicBool,
}

/// What is known of the actions of a scope.
#[derive(Default)]
pub(super) struct Actions {
    /// The number of the next one.
    pub(super) next: u32,
    /// The digest of all values that were recorded so far.
    pub(super) values: [u8; 32],
}

/// The scopes within a scope.
struct InnerScopes {
    names: BTreeMap<String, Inner>,
    /// The thread that runs the scope.
    thread: ThreadId,
    /// Whether that thread is within one of them.
    is_within: bool,
    /// In how many of them other threads are.
    others: u32,
}

/// The scopes of one name.
#[derive(Default)]
struct Inner {
    entered: u32,
    /// How many of them are under way: in a driver one at most.
    open: u32,
}

/// What a scope came to: its value, encoded, or the error that ended it.
type Outcome = Result<Bytes, String>;

thread_local! {
    /// The scopes that this thread is in, the innermost last.
    static ENTERED: RefCell<Vec<Context>> = const { RefCell::new(Vec::new()) };
    /// Whether this thread computes a value that only the driver computes.
    static IN_VALUE: Cell<bool> = const { Cell::new(false) };
}

impl Scope {
    /// The whole program.
    pub(crate) fn root() -> Arc<Self> {
        Arc::new(Self::new(ScopePath::default(), String::new(), None))
    }

    fn new(path: ScopePath, name: String, outer: Option<Arc<Self>>) -> Self {
        let thread = std::thread::current().id();
        Self {
            path,
            name,
            next_dataset: AtomicU32::new(0),
            actions: Mutex::default(),
            collided: Mutex::default(),
            inner: Mutex::new(InnerScopes { names: BTreeMap::new(), thread, is_within: false, others: 0 }),
            outer,
            ended: AtomicBool::new(false),
            stores: AtomicBool::new(false),
            replays: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> ScopeId {
        self.path.id()
    }

    pub(super) fn path(&self) -> &ScopePath {
        &self.path
    }

    /// Notes that results of its actions, or values of the driver, are files.
    pub(super) fn stores_results(&self) {
        self.stores.store(true, Ordering::Relaxed);
    }

    /// The first of the next `count` ids.
    pub(super) fn next_dataset(&self, count: u32) -> DatasetId {
        let number = self.next_dataset.fetch_add(count, Ordering::Relaxed);
        assert!(number < u32::MAX - count, "a scope makes fewer than 2^32 datasets");
        DatasetId(self.id(), number)
    }

    /// Why nothing that was made in it can be used; none while it goes on.
    pub(crate) fn over(&self) -> Option<ProgramError> {
        let mut around = Some(self);
        while let Some(scope) = around {
            if scope.ended.load(Ordering::Acquire) {
                return Some(ProgramError::ScopeEnded { scope: scope.name.clone() });
            }
            around = scope.outer.as_deref();
        }
        None
    }

    fn collided(&self) -> MutexGuard<'_, Option<String>> {
        self.collided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an action, or says that two threads ran actions at once, now or before.
    pub(super) fn begin_action(&self, name: &str) -> Result<MutexGuard<'_, Actions>, ProgramError> {
        let mut collided = self.collided();
        let begun = match self.actions.try_lock() {
            Ok(actions) => Some(actions),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // A task that calls one is refused, and not by chance: it runs while an action does.
        if begun.is_none() && collided.is_none() && !is_in_task() {
            *collided = Some(name.to_owned());
        }
        match (begun, collided.clone()) {
            (Some(actions), None) => Ok(actions),
            (_, collided) => Err(ProgramError::Concurrent { action: collided.unwrap_or_else(|| name.to_owned()) }),
        }
    }

    /// Ends an action; an error if another thread came to one meanwhile.
    pub(super) fn end_action(&self, actions: MutexGuard<'_, Actions>) -> Result<(), ProgramError> {
        let collided = self.collided();
        drop(actions);
        collided.clone().map_or(Ok(()), |action| Err(ProgramError::Concurrent { action }))
    }

    fn inner(&self) -> MutexGuard<'_, InnerScopes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that tasks of it are done with what a run of the program has made.
    pub(super) fn replays(&self) {
        let mut around = Some(self);
        while let Some(scope) = around {
            scope.replays.store(true, Ordering::Relaxed);
            around = scope.outer.as_deref();
        }
    }

    /// Of how many scopes within it the end can be compared: none where some were not left, or no task needs the program.
    pub(super) fn scopes_left(&self) -> Option<u32> {
        let inner = self.inner();
        let are_left = !inner.is_within && inner.others == 0 && self.replays.load(Ordering::Relaxed);
        are_left.then(|| inner.names.values().map(|known| known.entered).sum())
    }

    /// Why nothing may be counted in it for `what` on this thread: it would not be counted the same in each run.
    pub(super) fn misplaced(&self, what: &str) -> Option<ProgramError> {
        if IN_VALUE.get() {
            return Some(ProgramError::InValue { what: what.to_owned() });
        }
        let inner = self.inner();
        let is_other = inner.is_within && inner.thread != std::thread::current().id();
        is_other.then(|| ProgramError::OutOfScope { what: what.to_owned() })
    }

    /// What it is called, if the program's own thread asks.
    pub(super) fn own_thread(&self) -> Option<String> {
        let mut outermost = self;
        while let Some(outer) = outermost.outer.as_deref() {
            outermost = outer;
        }
        let is_own = outermost.inner().thread == std::thread::current().id();
        is_own.then(|| self.name.chars().take(PLAN_NAME_CHARS).collect())
    }

    /// This thread runs it.
    fn take_over(&self) {
        self.inner().thread = std::thread::current().id();
    }

    /// The next scope of a name within it.
    fn enter(self: &Arc<Self>, name: &str, place: &Location<'_>) -> Result<Entered, ProgramError> {
        let shown = node_name(&format!("scope {:?}", told(name)), place);
        if self.path.depth() >= SCOPES_NESTED {
            let message = format!("scopes stand within each other, at most {SCOPES_NESTED} deep");
            return Err(ProgramError::Argument { operation: shown, message });
        }
        if let Some(error) = self.over().or_else(|| self.misplaced(&shown)) {
            return Err(error);
        }
        let mut inner = self.inner();
        let is_own = inner.thread == std::thread::current().id();
        // Whether the others were started by this scope or by the one that this thread is about to enter is not known.
        if is_own && inner.others > 0 {
            return Err(ProgramError::OutOfScope { what: shown });
        }
        let known = inner.names.entry(name.to_owned()).or_default();
        let is_other_open = known.open > 0;
        let mut hasher = blake3::Hasher::new_derive_key("situ 2026 the id of a scope");
        hasher.update(&self.id().0.to_le_bytes()).update(&known.entered.to_le_bytes()).update(name.as_bytes());
        let hash = hasher.finalize().as_bytes()[..8].try_into().map_or(0, u64::from_le_bytes);
        (known.entered, known.open) = (known.entered + 1, known.open + 1);
        if is_own {
            inner.is_within = true;
        } else {
            inner.others += 1;
        }
        drop(inner);
        let scope = Arc::new(Self::new(self.path.with(ScopeId(hash.max(1))), shown, Some(Arc::clone(self))));
        Ok(Entered { scope, outer: Arc::clone(self), name: name.to_owned(), is_own, is_other_open })
    }
}

/// A scope that was entered; its name is free again when this is dropped.
struct Entered {
    scope: Arc<Scope>,
    outer: Arc<Scope>,
    name: String,
    /// Whether the thread of the outer one has entered it.
    is_own: bool,
    /// Whether another one of its name was under way.
    is_other_open: bool,
}

impl Entered {
    /// Nothing is counted in it any more.
    fn end(&self) {
        self.scope.ended.store(true, Ordering::Release);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.end();
        let mut inner = self.outer.inner();
        if let Some(known) = inner.names.get_mut(&self.name) {
            known.open -= 1;
        }
        if self.is_own {
            inner.is_within = false;
        } else {
            inner.others -= 1;
        }
    }
}

/// This thread computes a value that only the driver computes, until this is dropped.
pub(super) struct InValue(bool);

impl InValue {
    pub(super) fn begin() -> Self {
        Self(IN_VALUE.replace(true))
    }
}

impl Drop for InValue {
    fn drop(&mut self) {
        IN_VALUE.set(self.0);
    }
}

/// This thread is in a scope, until this is dropped.
struct InScope;

impl InScope {
    fn of(context: &Context) -> Self {
        ENTERED.with_borrow_mut(|entered| entered.push(context.clone()));
        Self
    }
}

impl Drop for InScope {
    fn drop(&mut self) {
        // Not under the borrow: it may be the last that holds something.
        let left = ENTERED.with_borrow_mut(Vec::pop);
        drop(left);
    }
}

impl Context {
    /// Runs a part of the program whose datasets and actions stand by themselves, and gives what it returns, which is what
    /// it is when it has been serialized and deserialized.
    ///
    /// - **At its end what it made is freed**: functions and what they have captured, the results of its actions, shuffle
    ///   files, persisted partitions, values. Of each round of a long loop whose body is a scope only what it returns stays
    ///   with the scheduler, and some hundred bytes; not even that when a scope around it ends. All that a job keeps there is
    ///   bounded (`results_len_bytes` in the scheduler's configuration, 1 GiB): what is large is saved, as with
    ///   `save_as_text_file`, or scopes that return it stand within another one. What it made cannot be used outside; what is
    ///   to stay is made outside, or returned.
    /// - **Scopes run at once when threads enter them**: the actions of one scope run one after the other, those of
    ///   different scopes do not wait for each other. Scopes that run at once within the same scope have names of their own,
    ///   after what differs: `context.scope(&format!("part-{i}"), ..)`. Those of one name are numbered as they are entered, which
    ///   must be in an order that is the same in each run, as that of a loop: one that is entered while another thread is in
    ///   one of its name is refused.
    /// - **The program's own thread enters the same scopes in the same order in each run**, whatever its threads do: where
    ///   it stands still in a worker at what the driver has not come to, while the driver waits for it elsewhere, the job
    ///   fails after half a minute. What comes of threads in the order in which they end is sorted before it is used.
    /// - **When two threads run actions of one scope at once**, both fail with [`ProgramError::Concurrent`], and every later
    ///   action of that scope does.
    /// - **Who comes late passes over it**: a worker that joins a job, or a driver that is started anew, takes what a scope
    ///   that has ended came to, and does not run it. So **`body` has no effect but what it returns**: what it changes
    ///   outside, or sends to another thread, is missing there. One that is still in a scope when that has ended in the driver
    ///   leaves `body` at the next action, by unwinding as a panic does but without a message: no error is seen in it.
    ///
    /// On the thread that runs `body`, every dataset that is made and every action that is run belongs to the scope, whoever
    /// made what they start from. Threads that `body` starts use the context that it is given, and enter scopes of that.
    ///
    /// ```
    /// # let directory = std::env::temp_dir().join(format!("situ-doc-scope-{}", std::process::id()));
    /// # let context = situ_compute::testing::context(&directory);
    /// let points = context.parallelize(vec![1.0, 2.0, 7.0, 8.0, 9.0], 2).persist();
    /// let mut center = 0.0;
    /// for _ in 0..10 {
    ///     center = context.scope("round", |_| {
    ///         let sum = points.map(move |point| point + center).reduce(|one, other| one + other)?;
    ///         Ok(sum.unwrap_or_default() / 10.0)
    ///     })?;
    /// }
    /// // Two actions at once.
    /// let (fewest, most) = std::thread::scope(|threads| {
    ///     let fewest = threads.spawn(|| context.scope("fewest", |_| points.reduce(f64::min)));
    ///     let most = threads.spawn(|| context.scope("most", |_| points.reduce(f64::max)));
    ///     (fewest.join().unwrap(), most.join().unwrap())
    /// });
    /// assert_eq!((fewest?, most?), (Some(1.0), Some(9.0)));
    /// # std::fs::remove_dir_all(&directory).ok();
    /// # Ok::<(), situ_compute::ProgramError>(())
    /// ```
    ///
    /// # Errors
    /// [`ProgramError::Scope`] when `body` has failed or panicked in the driver, or has returned more than 15 MiB; in every
    /// process then.
    /// [`ProgramError::ScopeOpen`] when, in the driver, another thread is in a scope of that name within the same one (where
    /// the program only follows its driver that is [`ProgramError::Scope`]), and [`ProgramError::OutOfScope`] when a thread
    /// enters it that was started within another scope of the same one.
    #[track_caller]
    pub fn scope<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        body: impl Fn(&Self) -> Result<T, ProgramError>,
    ) -> Result<T, ProgramError> {
        let entered = self.here().enter(name, Location::caller())?;
        let (path, shown) = (entered.scope.path.clone(), entered.scope.name.clone());
        if let Some(outcome) = self.backend().scope_outcome(&path, &shown)? {
            return decode(&shown, &outcome);
        }
        if entered.is_other_open && self.backend().driver_files().is_some() {
            return self.refuse_scope(&path, shown);
        }
        let context = self.within(Arc::clone(&entered.scope));
        let result = {
            let _here = InScope::of(&context);
            catch_unwind(AssertUnwindSafe(|| {
                let value = body(&context)?;
                context.end().map(|()| value)
            }))
        };
        drop(context);
        entered.end();
        let own: Outcome = match &result {
            Ok(Ok(value)) => encode(&shown, value),
            Ok(Err(error)) => Err(shortened(&error.to_string()).into_owned()),
            Err(payload) if payload.is::<ScopeLeft>() => Err("it has ended in the driver before".to_owned()),
            Err(panic) => Err(shortened(&format!("it panicked: {}", panic_message(panic.as_ref()))).into_owned()),
        };
        let outcome = self.backend().end_scope(&path, &shown, own.as_ref().err().map(String::as_str), encoded(&own));
        if outcome.is_ok() && entered.scope.stores.load(Ordering::Relaxed) {
            self.forget_results(path.id());
        }
        match (outcome, result) {
            // The job has ended, or nobody can be told: what happened here first says more.
            (Err(_), Ok(Err(own))) => Err(own),
            (Err(error), Ok(Ok(_))) => Err(error),
            (Err(error), Err(payload)) if payload.is::<ScopeLeft>() => Err(error),
            (Err(_), Err(panic)) => resume_unwind(panic),
            // The driver's counts.
            (Ok(outcome), _) => decode(&shown, &outcome),
        }
    }

    /// Ends a scope in the driver whose name is in use. Every process hears so, whatever the order in which its threads come.
    fn refuse_scope<T>(&self, path: &ScopePath, shown: String) -> Result<T, ProgramError> {
        let error = ProgramError::ScopeOpen { scope: shown.clone() };
        let message = error.to_string();
        self.backend().end_scope(path, &shown, Some(&message), encoded(&Err(message.clone())))?;
        Err(error)
    }

    /// This thread runs the program.
    pub(crate) fn take_over(&self) {
        self.own_scope().take_over();
    }

    /// The scope that this thread is in, or that this context is of.
    pub(super) fn here(&self) -> Arc<Scope> {
        let innermost = |entered: &Vec<Self>| {
            let mine = entered.iter().rev().find(|context| self.is_same_program(context));
            mine.map(|context| Arc::clone(context.own_scope()))
        };
        ENTERED.with_borrow(innermost).unwrap_or_else(|| Arc::clone(self.own_scope()))
    }
}

/// How much of its name a scope is called by.
fn told(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS).map_or(name, |(end, _)| &name[..end])
}

fn encode<T: Serialize>(name: &str, value: &T) -> Outcome {
    let mut bytes = Vec::new();
    match records::append(value, &mut bytes) {
        Ok(()) if bytes.len() > RETURNED_LEN_BYTES => Err(format!(
            "what {name} returns has {} bytes, and at most {RETURNED_LEN_BYTES} can be kept with the scheduler; return less, or \
             save it with save_as_text_file and return where it is",
            bytes.len()
        )),
        Ok(()) => Ok(bytes.into()),
        Err(error) => {
            Err(format!("what {name} returns, a {}, cannot be serialized: {error}", std::any::type_name::<T>()))
        }
    }
}

/// An outcome as it goes to other processes.
fn encoded(outcome: &Outcome) -> Bytes {
    let mut bytes = Vec::new();
    let encodable = outcome.as_ref().map(Bytes::as_ref);
    records::append(&encodable, &mut bytes).expect("bytes and a text can be serialized");
    bytes.into()
}

fn decode<T: DeserializeOwned>(name: &str, outcome: &Bytes) -> Result<T, ProgramError> {
    let unreadable = |message: String| ProgramError::Result { action: name.to_owned(), message };
    let outcome: Outcome = records::take(&mut outcome.as_ref()).map_err(|error| unreadable(error.to_string()))?;
    match outcome {
        Ok(value) => records::take(&mut value.as_ref()).map_err(|error| unreadable(error.to_string())),
        Err(message) => Err(ProgramError::Scope { scope: name.to_owned(), message }),
    }
}
