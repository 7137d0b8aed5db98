//! A disk that fails: a decorator on any other, with scripted faults and seeded ones.
//!
//! A failed [`File::sync`] behaves as it does on Linux: what was not on the disk may never get there, and later syncs of
//! that open file say that all is well.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fastrand::Rng;

use super::{DirectoryEntry, Disk, DiskError, DiskErrorKind, File, OpenMode, Space};

/// A disk that does what another does, but for its [`Faults`].
#[derive(Clone, Debug)]
pub struct FaultyDisk<D> {
    inner: D,
    faults: Faults,
}

/// What goes wrong, and when. Every clone is the same.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: Rng,
    rules: Vec<Rule>,
    rates: Rates,
    /// How much may still be written.
    left_bytes: Option<u64>,
    /// What is under these fails for good.
    dead: Vec<PathBuf>,
    operations: u64,
    injected: u64,
}

/// One fault, once.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which operations count.
    pub on: Operation,
    /// Only those on this file, or on what is in this directory.
    pub under: PathBuf,
    /// How many of them go well before.
    pub skip: u64,
    /// What then happens.
    pub fault: Fault,
}

/// What a disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Any of the others.
    Any,
    /// [`Disk::open`] and [`Disk::lock`].
    Open,
    /// [`File::read_at`] and [`Disk::list`].
    Read,
    /// [`File::write_at`] and [`File::set_len`].
    Write,
    /// [`File::sync`].
    Sync,
    /// [`Disk::rename`], [`Disk::remove_file`], [`Disk::remove_directory`] and [`Disk::create_directory`].
    Names,
    /// [`Disk::sync_directory`].
    SyncDirectory,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails, without effect.
    Fail,
    /// It fails, and so does every later operation under [`Rule::under`]: the disk is gone, or the process is. Of a
    /// write a part may be done.
    Die,
    /// The disk is full, for once.
    Full,
    /// The process has no more open files to give, for once.
    Exhaust,
    /// A write is done in part and then fails.
    Short,
    /// A read gives one wrong bit.
    FlipBit,
}

/// How often something goes wrong by itself, in a million operations of a kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rates {
    /// Reads that fail.
    pub read_fails: u32,
    /// Reads with a wrong bit.
    pub read_flips: u32,
    /// Writes that fail, half of them after a part.
    pub write_fails: u32,
    /// Syncs that fail, of files and of directories.
    pub sync_fails: u32,
}

impl<D: Disk> FaultyDisk<D> {
    /// Lets `inner` fail as `faults` says.
    pub fn new(inner: D, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The disk behind it.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// Lets an operation happen, or fail.
    fn step<T>(
        &self,
        on: Operation,
        name: &'static str,
        path: &Path,
        act: impl FnOnce(&D) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        match self.faults.decide(on, path) {
            None => act(&self.inner),
            Some(fault) => Err(fault.error(path, name)),
        }
    }
}

impl Faults {
    /// None yet; what is left to chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::with_seed(seed),
            rules: Vec::new(),
            rates: Rates::default(),
            left_bytes: None,
            dead: Vec::new(),
            operations: 0,
            injected: 0,
        })))
    }

    /// Adds a fault.
    pub fn add(&self, rule: Rule) {
        self.locked().rules.push(rule);
    }

    /// Lets things go wrong by themselves that often.
    pub fn set_rates(&self, rates: Rates) {
        self.locked().rates = rates;
    }

    /// Lets the disk be full once so many more bytes are written.
    pub fn limit_written(&self, len_bytes: u64) {
        self.locked().left_bytes = Some(len_bytes);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        let mut state = self.locked();
        state.rules.clear();
        state.dead.clear();
        state.rates = Rates::default();
        state.left_bytes = None;
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.locked().operations
    }

    /// How many of them went wrong.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.locked().injected
    }

    /// What goes wrong with this operation.
    fn decide(&self, on: Operation, path: &Path) -> Option<Fault> {
        let mut state = self.locked();
        state.operations += 1;
        let fault = state.decide(on, path);
        state.injected += u64::from(fault.is_some());
        fault
    }

    /// How much of a write of `len` bytes the disk has room for.
    fn take_room(&self, len: usize) -> usize {
        let mut state = self.locked();
        let Some(left) = &mut state.left_bytes else { return len };
        let fitting = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
        *left -= fitting as u64;
        state.injected += u64::from(fitting < len);
        fitting
    }

    /// A number below `limit`, or 0 if that is 0.
    fn random_below(&self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.locked().rng.usize(..limit) }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nobody panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn decide(&mut self, on: Operation, path: &Path) -> Option<Fault> {
        if self.dead.iter().any(|dead| path.starts_with(dead)) {
            return Some(Fault::Fail);
        }
        let mut due = None;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            if rule.matches(on, path) {
                match rule.skip.checked_sub(1) {
                    Some(skip) => rule.skip = skip,
                    None => due = due.or(Some(index)),
                }
            }
        }
        if let Some(index) = due {
            let rule = self.rules.remove(index);
            if rule.fault == Fault::Die {
                self.dead.push(rule.under);
            }
            return Some(rule.fault);
        }
        let rates = self.rates;
        match on {
            Operation::Read if self.happens(rates.read_fails) => Some(Fault::Fail),
            Operation::Read if self.happens(rates.read_flips) => Some(Fault::FlipBit),
            Operation::Write if self.happens(rates.write_fails) => {
                Some(if self.rng.bool() { Fault::Fail } else { Fault::Short })
            }
            Operation::Sync | Operation::SyncDirectory if self.happens(rates.sync_fails) => Some(Fault::Fail),
            _ => None,
        }
    }

    fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.rng.u32(..1_000_000) < per_million
    }
}

impl Rule {
    /// `fault` on the operation `on`, on whatever path, when `skip` of them have gone well.
    #[must_use]
    pub fn new(on: Operation, skip: u64, fault: Fault) -> Self {
        Self { on, under: PathBuf::new(), skip, fault }
    }

    fn matches(&self, on: Operation, path: &Path) -> bool {
        let fits = match self.fault {
            Fault::Fail | Fault::Die | Fault::Exhaust => true,
            Fault::Full => matches!(on, Operation::Write | Operation::Open | Operation::Names),
            Fault::Short => on == Operation::Write,
            Fault::FlipBit => on == Operation::Read,
        };
        fits && (self.on == Operation::Any || self.on == on) && path.starts_with(&self.under)
    }
}

impl Fault {
    fn error(self, path: &Path, operation: &'static str) -> DiskError {
        let kind = match self {
            Self::Full => DiskErrorKind::Full,
            Self::Exhaust => DiskErrorKind::Exhausted("too many open files (injected)".to_owned()),
            _ => DiskErrorKind::Other("input/output error (injected)".to_owned()),
        };
        DiskError::new(path, operation, kind)
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    type File = FaultyFile<D::File>;
    type Lock = D::Lock;

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Self::File, DiskError> {
        let inner = self.step(Operation::Open, "open", path, |disk| disk.open(path, mode))?;
        Ok(FaultyFile { inner, path: path.to_owned(), faults: self.faults.clone(), lost: AtomicBool::new(false) })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.step(Operation::Names, "rename", from, |disk| disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        self.step(Operation::Names, "remove", path, |disk| disk.remove_file(path))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(Operation::Names, "remove directory", path, |disk| disk.remove_directory(path))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(Operation::Names, "create directory", path, |disk| disk.create_directory(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        match self.faults.decide(Operation::Read, path) {
            // A listing has no bits that could be wrong and yet be a listing.
            None | Some(Fault::FlipBit) => self.inner.list(path),
            Some(fault) => Err(fault.error(path, "list")),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.step(Operation::Any, "look for", path, |disk| disk.exists(path))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(Operation::SyncDirectory, "sync directory", path, |disk| disk.sync_directory(path))
    }

    fn space(&self, path: &Path) -> Result<Space, DiskError> {
        self.step(Operation::Any, "measure", path, |disk| disk.space(path))
    }

    fn lock(&self, directory: &Path) -> Result<Self::Lock, DiskError> {
        self.step(Operation::Open, "lock", directory, |disk| disk.lock(directory))
    }
}

/// An open file of a disk that fails.
#[derive(Debug)]
pub struct FaultyFile<F> {
    inner: F,
    path: PathBuf,
    faults: Faults,
    /// A sync has failed: the system holds what was written for clean and does not write it any more.
    lost: AtomicBool,
}

impl<F: File> File for FaultyFile<F> {
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        match self.faults.decide(Operation::Read, &self.path) {
            None => self.inner.read_at(offset, len_bytes),
            Some(Fault::FlipBit) => {
                let mut bytes = Vec::from(self.inner.read_at(offset, len_bytes)?);
                let bit = self.faults.random_below(bytes.len() * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                Ok(bytes.into())
            }
            Some(fault) => Err(fault.error(&self.path, "read")),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let fault = self.faults.decide(Operation::Write, &self.path);
        if let Some(Fault::Short | Fault::Die) = fault {
            let done = self.faults.random_below(bytes.len());
            self.inner.write_at(offset, &bytes[..done])?;
        }
        if let Some(fault) = fault {
            return Err(fault.error(&self.path, "write"));
        }
        let fitting = self.faults.take_room(bytes.len());
        self.inner.write_at(offset, &bytes[..fitting])?;
        if fitting < bytes.len() {
            return Err(Fault::Full.error(&self.path, "write"));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        if let Some(fault) = self.faults.decide(Operation::Sync, &self.path) {
            self.lost.store(true, Ordering::Relaxed);
            return Err(fault.error(&self.path, "sync"));
        }
        if self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.inner.sync()
    }

    fn start_write_back(&self, offset: u64, len_bytes: u64) {
        self.inner.start_write_back(offset, len_bytes);
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.inner.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<(), DiskError> {
        match self.faults.decide(Operation::Write, &self.path) {
            None => self.inner.set_len(len_bytes),
            Some(fault) => Err(fault.error(&self.path, "set the length of")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::disk::suite;

    fn disk() -> FaultyDisk<MemoryDisk> {
        FaultyDisk::new(MemoryDisk::default(), Faults::new(1))
    }

    fn file(disk: &FaultyDisk<MemoryDisk>, path: &str) -> FaultyFile<<MemoryDisk as Disk>::File> {
        disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
    }

    #[test]
    fn without_faults_it_keeps_the_promises_of_a_disk() {
        let disk = disk();
        suite::check(&disk, Path::new("/suite"));
        assert_eq!(disk.faults().injected(), 0);
        assert!(disk.faults().operations() > 100);
    }

    #[test]
    fn the_nth_operation_fails_once_and_only_where_it_should() {
        let disk = disk();
        disk.create_directory(Path::new("/a")).unwrap();
        let (a, b) = (file(&disk, "/a/f"), file(&disk, "/b"));
        disk.faults().add(Rule { under: "/a".into(), ..Rule::new(Operation::Write, 1, Fault::Fail) });
        for _ in 0..3 {
            b.write_at(0, b"b").unwrap();
        }
        a.write_at(0, b"1").unwrap();
        assert!(a.write_at(1, b"2").is_err());
        a.write_at(1, b"3").unwrap();
        assert_eq!(a.read_at(0, 9).unwrap(), "13");
        assert_eq!(disk.faults().injected(), 1);
    }

    #[test]
    fn after_a_failed_sync_the_next_one_lies() {
        let disk = disk();
        let file = file(&disk, "/f");
        disk.sync_directory(Path::new("/")).unwrap();
        disk.faults().add(Rule::new(Operation::Sync, 0, Fault::Fail));
        file.write_at(0, b"x").unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let lost = (0..20).any(|seed| {
            disk.inner().crash(seed);
            disk.inner().read(Path::new("/f"), 9).unwrap().is_empty()
        });
        assert!(lost, "it was on the disk");
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_a_dead_one_nothing() {
        let disk = disk();
        let file = file(&disk, "/f");
        disk.faults().limit_written(5);
        assert_eq!(file.write_at(0, b"1234567").unwrap_err().kind, DiskErrorKind::Full);
        assert_eq!(file.read_at(0, 9).unwrap(), "12345");
        disk.faults().heal();
        disk.faults().add(Rule::new(Operation::Any, 0, Fault::Die));
        assert!(file.read_at(0, 1).is_err() && file.sync().is_err() && disk.list(Path::new("/")).is_err());
        disk.faults().heal();
        file.write_at(5, b"67").unwrap();
    }

    #[test]
    fn one_bit_flips_and_writes_are_cut_short() {
        let disk = disk();
        let file = file(&disk, "/f");
        file.write_at(0, &[0; 100]).unwrap();
        disk.faults().add(Rule::new(Operation::Any, 0, Fault::FlipBit));
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(&file.read_at(0, 100).unwrap()), 1);
        assert_eq!(ones(&file.read_at(0, 100).unwrap()), 0);
        disk.faults().add(Rule::new(Operation::Any, 0, Fault::Short));
        assert!(file.write_at(0, &[1; 100]).is_err());
        assert!((0..100).contains(&ones(&file.read_at(0, 100).unwrap())));
    }

    #[test]
    fn rates_come_from_the_seed() {
        let run = |seed| {
            let disk = FaultyDisk::new(MemoryDisk::default(), Faults::new(seed));
            let file = file(&disk, "/f");
            disk.faults().set_rates(Rates { write_fails: 200_000, ..Rates::default() });
            (0..100).map(|_| file.write_at(0, b"x").is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
        assert!((5..50).contains(&run(3).iter().filter(|fine| !**fine).count()));
    }
}
