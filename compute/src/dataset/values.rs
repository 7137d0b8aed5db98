//! Values of the driver that every process of its job gets.

use std::ops::{Deref, Range};
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::error::ErrorCode;
use situ_wire::ids::{ActionId, ScopeId};
use situ_wire::messages::scheduler::TaskFailure;
use situ_wire::path::DfsPath;

use super::Context;
use super::scope::Scope;
use crate::program::error::{ProgramError, StorageError};
use crate::program::own::results_directory;
use crate::program::task::{abort, abort_storage};
use crate::program::world::Files;
use crate::shuffle::records;

/// The longest value that goes by way of the scheduler, which keeps all of them until the job ends; a longer one goes by way
/// of the file system.
const INLINE_LEN_BYTES: usize = 4 << 10;
/// How much of a value is written or read at a time.
const PIECE_LEN_BYTES: usize = 1 << 20;
/// How much memory is taken at once for what is read, whose length another process has told.
const RESERVED_LEN_BYTES: usize = 64 << 20;

impl Context {
    /// What `value` gives in the driver, which alone computes it: every process of the job gets that value, a driver that is
    /// started anew too. For whatever is not the same in each run of the program: the time, random numbers, files outside
    /// Situ, the order of a `HashMap`.
    ///
    /// The value is what it is when it has been serialized and deserialized: of a `HashMap` the entries are the same
    /// everywhere and their order is not; give a `Vec` or a `BTreeMap` where the order counts.
    ///
    /// ```
    /// # let directory = std::env::temp_dir().join(format!("situ-doc-once-{}", std::process::id()));
    /// # let context = situ_compute::testing::context(&directory);
    /// let begun = context.once(|| std::time::SystemTime::now())?;
    /// let stamped = context.parallelize(vec![1, 2, 3], 2).map(move |number| (number, begun));
    /// assert_eq!(stamped.filter(move |(_, stamp)| *stamp == begun).count()?, 3);
    /// # std::fs::remove_dir_all(&directory).ok();
    /// # Ok::<(), situ_compute::ProgramError>(())
    /// ```
    ///
    /// # Errors
    /// When the value cannot be serialized, or the job fails.
    #[track_caller]
    pub fn once<T: Serialize + DeserializeOwned>(&self, value: impl FnOnce() -> T) -> Result<T, ProgramError> {
        self.driver_value(Self::name("once", Location::caller()), value)
    }

    /// This value as the driver has it, in every process of the job: where another one has computed another value, the
    /// driver's counts. As for [`Context::once`], it is what it is when it has been serialized and deserialized.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # let directory = std::env::temp_dir().join(format!("situ-doc-share-{}", std::process::id()));
    /// # let context = situ_compute::testing::context(&directory);
    /// let words = ["a", "b", "c"].map(str::to_owned);
    /// // The order of a HashMap is another one in each process: so are these numbers, but for the driver's.
    /// let set: HashMap<String, ()> = words.iter().map(|word| (word.clone(), ())).collect();
    /// let numbers: HashMap<String, u64> = context.share(set.into_keys().zip(0..).collect())?;
    /// let numbered = context.parallelize(words.to_vec(), 3).map(move |word| numbers[&word]);
    /// assert_eq!(numbered.distinct(2).count()?, 3);
    /// # std::fs::remove_dir_all(&directory).ok();
    /// # Ok::<(), situ_compute::ProgramError>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Context::once`].
    #[track_caller]
    pub fn share<T: Serialize + DeserializeOwned>(&self, value: T) -> Result<T, ProgramError> {
        self.driver_value(Self::name("share", Location::caller()), move || value)
    }

    /// As [`Context::share`], for large values that only tasks use: a worker fetches it once, when a task first uses it.
    ///
    /// # Errors
    /// As for [`Context::once`].
    #[track_caller]
    pub fn broadcast<T>(&self, value: T) -> Result<Broadcast<T>, ProgramError>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let name = Self::name("broadcast", Location::caller());
        let (encoded, is_own) = self.ship(&name, &mut || encode(&value))?;
        let known = OnceLock::new();
        // What a driver that was started anew has computed need not be what was recorded: it reads that, as workers do.
        if is_own {
            drop(known.set(value));
        }
        let (scope, context) = (self.here(), self.clone());
        Ok(Broadcast(Arc::new(Inner { name, context, scope, encoded, value: known })))
    }

    fn driver_value<T: Serialize + DeserializeOwned>(
        &self,
        name: String,
        value: impl FnOnce() -> T,
    ) -> Result<T, ProgramError> {
        let mut value = Some(value);
        let (encoded, _) = self.ship(&name, &mut || match value.take() {
            Some(value) => encode(&value()),
            None => Err("it was computed already".to_owned()),
        })?;
        let result = |message| ProgramError::Result { action: name.clone(), message };
        let bytes = encoded.read(self.backend().files(), || ()).map_err(|error| result(error.message))?;
        records::take(&mut bytes.as_ref()).map_err(|error| result(error.to_string()))
    }

    /// Sends what `encode` gives in the driver on its way to all processes, or finds out where it is; and whether it is what
    /// `encode` has just given here.
    pub(super) fn ship(
        &self,
        name: &str,
        encode: &mut dyn FnMut() -> Result<Encoded, String>,
    ) -> Result<(EncodedValue, bool), ProgramError> {
        let mut own = None;
        let recorded = self.record(name, |action, files| {
            let value = encode().and_then(|encoded| self.put(action, files, encoded));
            own = value.as_ref().ok().map(|value| value.hash);
            codec::encode(&value).expect("a short value and a path fit into a message")
        })?;
        let value: Result<EncodedValue, String> = codec::decode(&recorded)
            .map_err(|error| ProgramError::Result { action: name.to_owned(), message: error.to_string() })?;
        let value = value.map_err(|message| ProgramError::Argument { operation: name.to_owned(), message })?;
        let is_own = own == Some(value.hash);
        Ok((value, is_own))
    }

    /// Puts a value where every process finds it.
    fn put(&self, action: ActionId, files: &dyn Files, encoded: Encoded) -> Result<EncodedValue, String> {
        let Encoded { bytes, head_len } = encoded;
        let (hash, head_len_bytes) = (*blake3::hash(&bytes[..head_len]).as_bytes(), head_len as u64);
        if bytes.len() <= INLINE_LEN_BYTES {
            return Ok(EncodedValue { hash, head_len_bytes, place: Place::Inline(bytes.into()) });
        }
        let backend = self.backend();
        let directory = backend.own_directory().map_err(|error| error.to_string())?;
        self.here().stores_results();
        let bytes = Bytes::from(bytes);
        let write = || {
            files.make_own_directory(&directory)?;
            let values = match action.0 {
                ScopeId::ROOT => directory.join("values")?,
                // It goes when the scope ends.
                scope => results_directory(&directory, scope)?,
            };
            files.make_directory(&values)?;
            // Each attempt at the driver writes its own: what counts is recorded.
            let path = values.join(&format!("{action}-attempt-{}", backend.attempt()))?;
            // What lies there is of this attempt, which tries again, or of an earlier test.
            files.delete(&path, false)?;
            let mut output = files.create(&path)?;
            for start in (0..bytes.len()).step_by(PIECE_LEN_BYTES) {
                output.write(bytes.slice(start..bytes.len().min(start + PIECE_LEN_BYTES)))?;
            }
            output.close()?;
            Ok(path)
        };
        let path = write().map_err(|error: StorageError| format!("the value cannot be stored: {}", error.message))?;
        Ok(EncodedValue { hash, head_len_bytes, place: Place::Stored { path } })
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Encoded, String> {
    let mut bytes = Vec::new();
    match records::append(value, &mut bytes) {
        Ok(()) => Ok(Encoded { head_len: bytes.len(), bytes }),
        Err(error) => Err(format!("the value, a {}, cannot be serialized: {error}", std::any::type_name::<T>())),
    }
}

/// The bytes of a value.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// How long its head is, which is read at once. It holds the hashes of what is behind it.
    pub(super) head_len: usize,
}

/// A value of the driver, encoded.
#[derive(Serialize, Deserialize)]
pub(super) struct EncodedValue {
    /// The BLAKE3 hash of its head.
    pub(super) hash: [u8; 32],
    /// How long that is: all of it, for most values.
    head_len_bytes: u64,
    place: Place,
}

/// Where the bytes of a value are.
#[derive(Serialize, Deserialize)]
enum Place {
    Inline(Bytes),
    Stored { path: DfsPath },
}

impl EncodedValue {
    /// A value in a file of which length and hash are known.
    pub(super) fn stored(path: DfsPath, len_bytes: u64, hash: [u8; 32]) -> Self {
        Self { hash, head_len_bytes: len_bytes, place: Place::Stored { path } }
    }

    /// The file that it is in, if it is in one.
    pub(super) fn stored_at(&self) -> Option<&DfsPath> {
        match &self.place {
            Place::Inline(_) => None,
            Place::Stored { path } => Some(path),
        }
    }

    /// Its head, checked. Calls `go_on` now and then.
    pub(super) fn read(&self, files: &dyn Files, go_on: impl FnMut()) -> Result<Bytes, StorageError> {
        self.read_part(files, 0..self.head_len_bytes, &self.hash, go_on)
    }

    /// A part of it whose hash is known, checked. Calls `go_on` now and then.
    pub(super) fn read_part(
        &self,
        files: &dyn Files,
        range: Range<u64>,
        hash: &[u8; 32],
        go_on: impl FnMut(),
    ) -> Result<Bytes, StorageError> {
        let inline = match &self.place {
            Place::Stored { path } => return read_checked(files, path, range, hash, go_on),
            Place::Inline(bytes) => bytes,
        };
        let damaged = |found: &str| StorageError {
            code: ErrorCode::Corrupt,
            message: format!("a value that the scheduler has recorded: {found}"),
        };
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        let bytes = match (start, end) {
            (Ok(start), Ok(end)) if start <= end && end <= inline.len() => inline.slice(start..end),
            _ => return Err(damaged(&format!("of bytes {range:?} not all are there"))),
        };
        if *blake3::hash(&bytes).as_bytes() != *hash {
            return Err(damaged("its bytes are not those of the value that the driver stored"));
        }
        Ok(bytes)
    }
}

/// A part of a file whose hash is known, checked. Calls `go_on` now and then.
pub(super) fn read_checked(
    files: &dyn Files,
    path: &DfsPath,
    range: Range<u64>,
    hash: &[u8; 32],
    mut go_on: impl FnMut(),
) -> Result<Bytes, StorageError> {
    let damaged = |found: String| StorageError { code: ErrorCode::Corrupt, message: format!("{path}: {found}") };
    let Ok(len) = usize::try_from(range.end.saturating_sub(range.start)) else {
        return Err(damaged(format!("bytes {range:?} do not fit into memory")));
    };
    // An empty part at the end has no block that could be read.
    let mut input = if len == 0 { None } else { Some(files.open(path, range.clone())?) };
    let mut bytes = BytesMut::with_capacity(len.min(RESERVED_LEN_BYTES));
    while let Some(input) = input.as_mut().filter(|_| bytes.len() < len) {
        let wanted = PIECE_LEN_BYTES.min(len - bytes.len());
        let piece = input.read_at(range.start + bytes.len() as u64, wanted)?;
        if piece.is_empty() {
            return Err(damaged(format!("of bytes {range:?} {} are there", bytes.len())));
        }
        bytes.extend_from_slice(&piece);
        go_on();
    }
    if *blake3::hash(&bytes).as_bytes() != *hash {
        return Err(damaged("its bytes are not those of the value that was stored".to_owned()));
    }
    Ok(bytes.freeze())
}

/// A value of the driver in every process of its job; made by [`Context::broadcast`]. Cheap to clone.
///
/// It is used as a reference to the value. The first use in a worker fetches it; when that fails, the task that uses it
/// fails and is tried again.
pub struct Broadcast<T>(Arc<Inner<T>>);

struct Inner<T> {
    name: String,
    context: Context,
    /// It goes with it.
    scope: Arc<Scope>,
    encoded: EncodedValue,
    value: OnceLock<T>,
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broadcast").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Broadcast<T> {
    /// The value. A task that asks for it after the end of the scope that it was made in fails.
    #[must_use]
    pub fn value(&self) -> &T {
        let Inner { name, context, scope, encoded, value } = self.0.as_ref();
        if let Some(over) = scope.over() {
            abort(TaskFailure::Program { message: format!("{name}: {over}") });
        }
        value.get_or_init(|| {
            let bytes = encoded.read(context.backend().files(), || ()).unwrap_or_else(|error| abort_storage(&error));
            records::take(&mut bytes.as_ref()).unwrap_or_else(|error| {
                let message =
                    format!("{name} cannot be read back: {error}; does its type serialize as it deserializes?");
                abort(TaskFailure::Program { message })
            })
        })
    }
}

impl<T: DeserializeOwned> Deref for Broadcast<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value()
    }
}
