//! A file system that may be away for a while.
//!
//! A task that cannot reach it ends, and is tried again. What the program itself asks for, in its driver and where a worker
//! follows it, cannot be tried again from outside: it waits here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_wire::error::Retry;
use situ_wire::ids::OperationId;
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::error::StorageError;
use super::world::{Entry, Files, Input, InputBlock, InputStatistics, Output};

/// The first and the longest wait before the file system is asked again. The client has waited already.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Who waits for the file system.
pub(super) trait Waiting: Send + Sync + 'static {
    /// The file system.
    fn files(&self) -> &dyn Files;

    /// The time now.
    fn now(&self) -> TimeMs;

    /// Blocks for so long.
    fn rest(&self, time: Duration);

    /// For how long it bears with a file system that is away.
    fn patience(&self) -> Duration;

    /// It has waited long enough. May not come back.
    fn give_up(&self, error: &StorageError);
}

/// A file system whose calls are made again while it is away.
pub(super) struct PatientFiles<W>(pub(super) Arc<W>);

fn patiently<W: Waiting, T>(
    waiting: &W,
    mut call: impl FnMut(&dyn Files) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let (begun, mut rest) = (waiting.now(), BACKOFF.0);
    loop {
        match call(waiting.files()) {
            Err(error) if error.code.retry() == Retry::Later => {
                if waiting.now().since(begun) >= waiting.patience() {
                    waiting.give_up(&error);
                    return Err(error);
                }
                tracing::warn!(error = error.message, "the file system is away; asking again");
                waiting.rest(rest);
                rest = (rest * 2).min(BACKOFF.1);
            }
            result => return result,
        }
    }
}

impl<W: Waiting> Files for PatientFiles<W> {
    fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
        patiently(&*self.0, |files| files.stat(path))
    }

    fn list(&self, path: &DfsPath) -> Result<Vec<Entry>, StorageError> {
        patiently(&*self.0, |files| files.list(path))
    }

    fn blocks(&self, path: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
        patiently(&*self.0, |files| files.blocks(path))
    }

    fn open(&self, path: &DfsPath, range: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
        let input = patiently(&*self.0, |files| files.open(path, range.clone()))?;
        Ok(Box::new(PatientInput { waiting: Arc::clone(&self.0), input }))
    }

    fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        patiently(&*self.0, |files| files.make_directory(path))
    }

    fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        patiently(&*self.0, |files| files.make_own_directory(path))
    }

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        let (waiting, path) = (Arc::clone(&self.0), path.clone());
        let mut output = PatientOutput { waiting, path, written: Vec::new(), taken: 0, output: None, is_first: true };
        output.retry(|_| Ok(()))?;
        Ok(Box::new(output))
    }

    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError> {
        patiently(&*self.0, |files| files.publish(moves.clone(), remove.clone(), operation))
    }

    fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
        patiently(&*self.0, |files| files.delete(path, recursive))
    }
}

struct PatientInput<W> {
    waiting: Arc<W>,
    input: Box<dyn Input>,
}

impl<W: Waiting> Input for PatientInput<W> {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, StorageError> {
        patiently(&*self.waiting, |_| self.input.read_at(offset, len_bytes))
    }

    fn statistics(&self) -> InputStatistics {
        self.input.statistics()
    }
}

/// A file that is written from its beginning again when that failed. What is written is in memory anyway, and shared.
struct PatientOutput<W> {
    waiting: Arc<W>,
    path: DfsPath,
    written: Vec<Bytes>,
    /// How many of these the output has taken.
    taken: usize,
    /// None before the file is made, and after something failed.
    output: Option<Box<dyn Output>>,
    is_first: bool,
}

impl<W: Waiting> PatientOutput<W> {
    /// Writes what is not written yet and then does this with the output, until it works.
    fn retry(
        &mut self,
        mut end: impl FnMut(&mut Option<Box<dyn Output>>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let waiting = Arc::clone(&self.waiting);
        patiently(&*waiting, |files| {
            let result = self.bring(files).and_then(|()| end(&mut self.output));
            if result.is_err() {
                self.output = None;
            }
            result
        })
    }

    fn bring(&mut self, files: &dyn Files) -> Result<(), StorageError> {
        let output = match &mut self.output {
            Some(output) => output,
            none => {
                if !std::mem::take(&mut self.is_first) {
                    // What is there of it was begun here.
                    files.delete(&self.path, false)?;
                }
                self.taken = 0;
                none.insert(files.create(&self.path)?)
            }
        };
        while let Some(bytes) = self.written.get(self.taken) {
            output.write(bytes.clone())?;
            self.taken += 1;
        }
        Ok(())
    }
}

impl<W: Waiting> Output for PatientOutput<W> {
    fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.written.push(bytes);
        self.retry(|_| Ok(()))
    }

    fn close(mut self: Box<Self>) -> Result<(), StorageError> {
        self.retry(|output| output.take().map_or(Ok(()), Output::close))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, MutexGuard};

    use situ_wire::error::ErrorCode;

    use super::*;

    /// A file system whose every third call fails while it flickers, and every call while it is away.
    #[derive(Default)]
    struct Flickering(Mutex<Inner>);

    #[derive(Default)]
    struct Inner {
        calls: u32,
        /// Until when it is away, in ms.
        away_until: u64,
        now: u64,
        gave_up: u32,
        files: BTreeMap<DfsPath, Vec<u8>>,
        /// The directories that nobody else may look into.
        own: Vec<DfsPath>,
    }

    impl Flickering {
        fn lock(&self) -> MutexGuard<'_, Inner> {
            self.0.lock().unwrap()
        }

        fn call(&self) -> Result<MutexGuard<'_, Inner>, StorageError> {
            let mut inner = self.lock();
            inner.calls += 1;
            if inner.calls.is_multiple_of(3) || inner.now < inner.away_until {
                return Err(StorageError { code: ErrorCode::Unavailable, message: "it is away".to_owned() });
            }
            Ok(inner)
        }
    }

    /// The files, and those of the test.
    struct Clocked(Arc<Flickering>, FlickeringFiles);

    struct FlickeringFiles(Arc<Flickering>);

    impl Waiting for Clocked {
        fn files(&self) -> &dyn Files {
            &self.1
        }

        fn now(&self) -> TimeMs {
            TimeMs(self.0.lock().now)
        }

        fn rest(&self, time: Duration) {
            self.0.lock().now += u64::try_from(time.as_millis()).unwrap();
        }

        fn patience(&self) -> Duration {
            Duration::from_secs(600)
        }

        fn give_up(&self, _: &StorageError) {
            self.0.lock().gave_up += 1;
        }
    }

    impl Files for FlickeringFiles {
        fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
            let there = self.0.call()?.files.contains_key(path);
            Ok(there.then(|| Entry { path: path.clone(), is_directory: false, is_open: false }))
        }

        fn list(&self, _: &DfsPath) -> Result<Vec<Entry>, StorageError> {
            unreachable!("nothing is listed")
        }

        fn blocks(&self, _: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
            unreachable!("nothing is listed")
        }

        fn open(&self, path: &DfsPath, _: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
            drop(self.0.call()?);
            Ok(Box::new(OneFile(Arc::clone(&self.0), path.clone())))
        }

        fn make_directory(&self, _: &DfsPath) -> Result<(), StorageError> {
            self.0.call().map(drop)
        }

        fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
            self.0.call()?.own.push(path.clone());
            Ok(())
        }

        fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
            let mut inner = self.0.lock();
            inner.calls += 1;
            // Also when nobody hears of it.
            if inner.files.insert(path.clone(), Vec::new()).is_some() {
                return Err(StorageError { code: ErrorCode::AlreadyExists, message: "it is there".to_owned() });
            }
            if inner.calls.is_multiple_of(3) {
                return Err(StorageError { code: ErrorCode::DeadlineExceeded, message: "no answer".to_owned() });
            }
            Ok(Box::new(OneFile(Arc::clone(&self.0), path.clone())))
        }

        fn publish(&self, _: Vec<(DfsPath, DfsPath)>, _: DfsPath, _: OperationId) -> Result<(), StorageError> {
            unreachable!("nothing is published")
        }

        fn delete(&self, path: &DfsPath, _: bool) -> Result<bool, StorageError> {
            Ok(self.0.call()?.files.remove(path).is_some())
        }
    }

    struct OneFile(Arc<Flickering>, DfsPath);

    impl Input for OneFile {
        fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, StorageError> {
            let inner = self.0.call()?;
            let bytes = &inner.files[&self.1][usize::try_from(offset).unwrap()..];
            Ok(Bytes::copy_from_slice(&bytes[..len_bytes.min(bytes.len())]))
        }

        fn statistics(&self) -> InputStatistics {
            InputStatistics::default()
        }
    }

    impl Output for OneFile {
        fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
            // Only now and then, or none would ever be whole.
            let mut inner = self.0.lock();
            inner.calls += 1;
            if inner.calls.is_multiple_of(7) {
                return Err(StorageError { code: ErrorCode::Unavailable, message: "it is away".to_owned() });
            }
            inner.files.get_mut(&self.1).unwrap().extend(bytes);
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<(), StorageError> {
            Ok(())
        }
    }

    fn patient() -> (Arc<Flickering>, PatientFiles<Clocked>) {
        let flickering = Arc::<Flickering>::default();
        let files = FlickeringFiles(Arc::clone(&flickering));
        (Arc::clone(&flickering), PatientFiles(Arc::new(Clocked(flickering, files))))
    }

    #[test]
    fn a_file_is_written_and_read_whole_however_the_file_system_comes_and_goes() {
        let (flickering, files) = patient();
        let path = DfsPath::parse("/value").unwrap();
        let directory = DfsPath::parse("/job").unwrap();
        files.make_directory(&directory).unwrap();
        assert_eq!(flickering.lock().own, []);
        files.make_own_directory(&directory).unwrap();
        assert_eq!(flickering.lock().own, [directory]);
        let mut output = files.create(&path).unwrap();
        for part in ["one ", "two ", "three ", "four"] {
            output.write(part.into()).unwrap();
        }
        output.close().unwrap();
        assert_eq!(flickering.lock().files[&path], b"one two three four");
        assert!(files.stat(&path).unwrap().is_some());
        let mut input = files.open(&path, 0..18).unwrap();
        for at in 0..18_u8 {
            assert_eq!(input.read_at(at.into(), 1).unwrap(), b"one two three four"[usize::from(at)..][..1]);
        }
        assert_eq!(flickering.lock().gave_up, 0);
    }

    #[test]
    fn it_is_borne_for_minutes_and_no_longer() {
        let (flickering, files) = patient();
        let path = DfsPath::parse("/value").unwrap();
        flickering.lock().away_until = 9 * 60_000;
        assert_eq!(files.stat(&path), Ok(None));
        flickering.lock().away_until = u64::MAX;
        let error = files.stat(&path).unwrap_err();
        assert_eq!((error.code, flickering.lock().gave_up), (ErrorCode::Unavailable, 1));
        assert!(flickering.lock().now < 20 * 60_000);
    }
}
