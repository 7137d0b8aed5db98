use std::ops::Range;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::limits::PARTITIONS;
use situ_wire::messages::scheduler::TaskFailure;

use super::graph::{Node, NodeKind};
use super::values::{Encoded, EncodedValue};
use super::{Context, Dataset, Records};
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::shuffle::records;

impl Context {
    /// A dataset of these records, cut into `partitions` parts of about the same length.
    ///
    /// They are the driver's: it sends them to the workers, which do not use what they have computed themselves. So they may
    /// come from whatever is another in each run of the program, as the order of a `HashMap`. Many records go by way of a
    /// file, of which each task reads its part; what the workers can make themselves is cheaper made there, from a range for
    /// each partition.
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
            Ok((encoded, _)) => (Some(encoded.hash), None, Ok(Parts { encoded, index: Mutex::default() })),
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

/// What the index says of each partition: how many records it has, how long they are together, and the hash of their bytes.
type Part = (u64, u64, [u8; 32]);

/// The records of each partition, one behind the other, behind an index of them, behind the length of that index.
fn encode<T: Serialize>(records: &[T], partitions: u32) -> Result<Encoded, String> {
    let cut = |partition: u32| {
        let cut = records.len() as u128 * u128::from(partition) / u128::from(partitions);
        usize::try_from(cut).expect("a cut is within the records")
    };
    let mut index: Vec<Part> = Vec::with_capacity(partitions as usize);
    let mut encoded = Vec::new();
    for partition in 0..partitions {
        let (start, part) = (encoded.len(), &records[cut(partition)..cut(partition + 1)]);
        for record in part {
            records::append(record, &mut encoded).map_err(|error| {
                format!("a record, a {}, cannot be serialized: {error}", std::any::type_name::<T>())
            })?;
        }
        let hash = *blake3::hash(&encoded[start..]).as_bytes();
        index.push((part.len() as u64, (encoded.len() - start) as u64, hash));
    }
    let mut bytes = Vec::new();
    records::append(&index, &mut bytes).map_err(|error| error.to_string())?;
    let head_len = bytes.len();
    bytes.append(&mut encoded);
    Ok(Encoded { bytes, head_len })
}

/// Where the records of a partition are.
struct Span {
    records: u64,
    bytes: Range<u64>,
    hash: [u8; 32],
}

/// The records of all partitions as the driver sent them.
struct Parts {
    encoded: EncodedValue,
    /// None before a task has asked.
    index: Mutex<Option<Arc<[Span]>>>,
}

impl Parts {
    /// The records of one partition. Only these are read, and nobody keeps them.
    fn records<T: DeserializeOwned + 'static>(&self, task: &TaskContext, partition: u32) -> Records<T> {
        let index = self.index(task);
        let Some(Span { records: count, bytes, hash }) = index.get(partition as usize) else {
            unreadable(&format!("it has {} partitions", index.len()))
        };
        let bytes = self.encoded.read_part(task.world().files(), bytes.clone(), hash, || task.go_on());
        let bytes = bytes.unwrap_or_else(|error| abort_storage(&error));
        let (mut left, mut offset) = (*count, 0);
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

    /// Reads it once for all tasks of the process.
    fn index(&self, task: &TaskContext) -> Arc<[Span]> {
        let mut read = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = read.as_ref() {
            return Arc::clone(index);
        }
        let head = self.encoded.read(task.world().files(), || task.go_on());
        let head = head.unwrap_or_else(|error| abort_storage(&error));
        let index: Vec<Part> = records::take(&mut head.as_ref()).unwrap_or_else(|error| unreadable(&error.to_string()));
        let mut start = head.len() as u64;
        let span = |(records, len, hash): Part| {
            let bytes = start..start.saturating_add(len);
            start = bytes.end;
            Span { records, bytes, hash }
        };
        let index: Arc<[Span]> = index.into_iter().map(span).collect();
        Arc::clone(read.insert(index))
    }
}

fn unreadable(error: &str) -> ! {
    let message =
        format!("a record of parallelize cannot be read back: {error}; does its type serialize as it deserializes?");
    abort(TaskFailure::Program { message })
}
