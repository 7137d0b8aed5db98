use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::limits::PARTITIONS;
use situ_wire::messages::scheduler::TaskFailure;

use super::graph::{Node, NodeKind};
use super::values::EncodedValue;
use super::{Context, Dataset, Records};
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::shuffle::records;

impl Context {
    /// A dataset of these records, cut into `partitions` parts of about the same length.
    ///
    /// They are the driver's: it sends them to the workers, which do not use what they have computed themselves. So they may
    /// come from whatever is another in each run of the program, as the order of a `HashMap`. Many records are read from a
    /// file by each worker; what the workers can make themselves is cheaper made there, from a range for each partition.
    ///
    /// When they cannot be sent, the actions on the dataset fail.
    #[track_caller]
    pub fn parallelize<T>(&self, records: Vec<T>, partitions: u32) -> Dataset<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let partitions = partitions.clamp(1, PARTITIONS);
        let name = Self::name("parallelize", Location::caller());
        let encoded = self.ship(&name, &mut || encode(&records, partitions));
        // A worker's own are not needed, the driver's are on their way.
        drop(records);
        let (value, broken, parts) = match encoded {
            Ok(encoded) => (Some(encoded.hash), None, Ok(Parts { encoded, read: Mutex::default() })),
            Err(error) => (None, Some(error.clone()), Err(error)),
        };
        let node = self.node(self.next_dataset(1), name, Vec::new(), partitions, None, NodeKind::Narrow);
        let node = Node { value, broken, ..node };
        let compute = move |task: &TaskContext, partition: u32| match &parts {
            Ok(parts) => parts.records(task, partition),
            Err(error) => abort(TaskFailure::Program { message: error.to_string() }),
        };
        Dataset::new(self.clone(), Arc::new(node), Arc::new(compute))
    }
}

/// The records of each partition, one behind the other, behind an index that says how many there are and how long they are
/// together, behind the length of that index.
fn encode<T: Serialize>(records: &[T], partitions: u32) -> Result<Vec<u8>, String> {
    let cut = |partition: u32| {
        let cut = records.len() as u128 * u128::from(partition) / u128::from(partitions);
        usize::try_from(cut).expect("a cut is within the records")
    };
    let mut index: Vec<(u64, u64)> = Vec::with_capacity(partitions as usize);
    let mut encoded = Vec::new();
    for partition in 0..partitions {
        let (start, part) = (encoded.len(), &records[cut(partition)..cut(partition + 1)]);
        for record in part {
            records::append(record, &mut encoded).map_err(|error| {
                format!("a record, a {}, cannot be serialized: {error}", std::any::type_name::<T>())
            })?;
        }
        index.push((part.len() as u64, (encoded.len() - start) as u64));
    }
    let mut value = vec![0; 8];
    records::append(&index, &mut value).map_err(|error| error.to_string())?;
    let len = value.len() as u64 - 8;
    value[..8].copy_from_slice(&len.to_le_bytes());
    value.append(&mut encoded);
    Ok(value)
}

/// Of each partition, how many records there are, and their bytes.
type Split = Arc<[(u64, Bytes)]>;

/// The records of all partitions as the driver sent them.
struct Parts {
    encoded: EncodedValue,
    /// None before a task has asked.
    read: Mutex<Option<Split>>,
}

impl Parts {
    fn records<T: DeserializeOwned + 'static>(&self, task: &TaskContext, partition: u32) -> Records<T> {
        let (mut left, bytes) = self.parts(task)[partition as usize].clone();
        let mut offset = 0;
        Records::new(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let mut rest = &bytes[offset..];
            match records::take(&mut rest) {
                Ok(record) => {
                    offset = bytes.len() - rest.len();
                    Some(record)
                }
                Err(error) => unreadable(&error.to_string()),
            }
        }))
    }

    /// Reads them once for all tasks of the process.
    fn parts(&self, task: &TaskContext) -> Split {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = read.as_ref() {
            return Arc::clone(parts);
        }
        let bytes = self.encoded.read(task.world().files(), || task.go_on());
        let bytes = bytes.unwrap_or_else(|error| abort_storage(&error));
        let parts = split(&bytes).unwrap_or_else(|message| unreadable(&message));
        Arc::clone(read.insert(parts.into()))
    }
}

fn split(value: &Bytes) -> Result<Vec<(u64, Bytes)>, String> {
    let short = || "it is too short".to_owned();
    let (len, rest) = value.split_first_chunk::<8>().ok_or_else(short)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| short())?;
    let mut index = rest.get(..len).ok_or_else(short)?;
    let index: Vec<(u64, u64)> = records::take(&mut index).map_err(|error| error.to_string())?;
    let mut start = 8 + len;
    let part = |(count, len): (u64, u64)| {
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= value.len());
        let part = value.slice(start..end.ok_or_else(short)?);
        start += part.len();
        Ok((count, part))
    };
    index.into_iter().map(part).collect()
}

fn unreadable(error: &str) -> ! {
    let message =
        format!("a record of parallelize cannot be read back: {error}; does its type serialize as it deserializes?");
    abort(TaskFailure::Program { message })
}
