use std::ops::Range;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
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
        let (value, failed, parts) = match encoded {
            Ok((encoded, _)) => (Some(encoded.hash), None, Ok(Parts::new(encoded))),
            Err(error) => (None, Some(error.clone()), Err(error)),
        };
        let node = self.node(self.next_dataset(1), name, Vec::new(), partitions, None, NodeKind::Narrow);
        let node = Node { value, broken: failed.or(node.broken.clone()), ..node };
        let compute = move |task: &TaskContext, partition: u32| match &parts {
            Ok(parts) => parts.records(task, partition),
            Err(error) => abort(TaskFailure::Program { message: error.to_string() }),
        };
        Dataset::new(self.clone(), Arc::new(node), Arc::new(compute))
    }
}

/// How long the records of neighbouring partitions may be together that are read at once. Small partitions are not worth
/// a look at the file system each.
const CHUNK_LEN_BYTES: usize = 64 << 10;

/// What the index says of each partition: how many records it has, and how long they are together.
type Part = (u64, u64);

/// What the index says of each chunk: how many partitions it has, and the hash of their bytes.
type Chunk = (u32, [u8; 32]);

/// The records of each partition, one behind the other, behind an index of them, behind the length of that index.
fn encode<T: Serialize>(records: &[T], partitions: u32) -> Result<Encoded, String> {
    let cut = |partition: u32| {
        let cut = records.len() as u128 * u128::from(partition) / u128::from(partitions);
        usize::try_from(cut).expect("a cut is within the records")
    };
    let mut parts: Vec<Part> = Vec::with_capacity(partitions as usize);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut encoded = Vec::new();
    let (mut chunk_start, mut chunk_parts) = (0, 0);
    for partition in 0..partitions {
        let (start, part) = (encoded.len(), &records[cut(partition)..cut(partition + 1)]);
        for record in part {
            records::append(record, &mut encoded).map_err(|error| {
                format!("a record, a {}, cannot be serialized: {error}", std::any::type_name::<T>())
            })?;
        }
        if chunk_parts > 0 && encoded.len() - chunk_start > CHUNK_LEN_BYTES {
            chunks.push((chunk_parts, *blake3::hash(&encoded[chunk_start..start]).as_bytes()));
            (chunk_start, chunk_parts) = (start, 0);
        }
        chunk_parts += 1;
        parts.push((part.len() as u64, (encoded.len() - start) as u64));
    }
    chunks.push((chunk_parts, *blake3::hash(&encoded[chunk_start..]).as_bytes()));
    let mut bytes = Vec::new();
    records::append(&(parts, chunks), &mut bytes).map_err(|error| error.to_string())?;
    let head_len = bytes.len();
    bytes.append(&mut encoded);
    Ok(Encoded { bytes, head_len })
}

/// Where the records of a partition are.
struct Span {
    records: u64,
    /// In which chunk, and where in it.
    chunk: usize,
    bytes: Range<usize>,
}

/// Where every record is.
struct Index {
    spans: Vec<Span>,
    /// Where each chunk is in the value, and the hash of its bytes.
    chunks: Vec<(Range<u64>, [u8; 32])>,
}

impl Index {
    /// From what [`encode`] has put in front. None if that does not fit together.
    fn new(parts: &[Part], chunks: &[Chunk], mut start: u64) -> Option<Self> {
        let (mut index, mut parts) = (Self { spans: Vec::new(), chunks: Vec::new() }, parts.iter());
        for (chunk, (count, hash)) in chunks.iter().enumerate() {
            let mut len = 0_usize;
            for &(records, part_len) in parts.by_ref().take(usize::try_from(*count).ok()?) {
                let begin = len;
                len = len.checked_add(usize::try_from(part_len).ok()?)?;
                index.spans.push(Span { records, chunk, bytes: begin..len });
            }
            let end = start.checked_add(len as u64)?;
            index.chunks.push((start..end, *hash));
            start = end;
        }
        parts.next().is_none().then_some(index)
    }
}

/// The records of all partitions as the driver sent them.
struct Parts {
    encoded: EncodedValue,
    /// None before a task has asked.
    index: Mutex<Option<Arc<Index>>>,
    /// The chunk of several partitions that was read last: the next task is likely to ask for it.
    last: Mutex<Option<(usize, Bytes)>>,
}

impl Parts {
    fn new(encoded: EncodedValue) -> Self {
        Self { encoded, index: Mutex::default(), last: Mutex::default() }
    }

    /// The records of one partition. Only these and small neighbours of them are read.
    fn records<T: DeserializeOwned + 'static>(&self, task: &TaskContext, partition: u32) -> Records<T> {
        let index = self.index(task);
        let Some(Span { records: count, chunk, bytes: span }) = index.spans.get(partition as usize) else {
            unreadable(&format!("it has {} partitions", index.spans.len()))
        };
        let bytes = self.chunk(task, &index, *chunk).slice(span.clone());
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

    /// The bytes of a chunk.
    fn chunk(&self, task: &TaskContext, index: &Index, chunk: usize) -> Bytes {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last().as_ref().filter(|(known, _)| *known == chunk) {
            return bytes.clone();
        }
        let (range, hash) = &index.chunks[chunk];
        let bytes = self.encoded.read_part(task.world().files(), range.clone(), hash, || task.go_on());
        let bytes = bytes.unwrap_or_else(|error| abort_storage(&error));
        // A longer one is of one partition.
        if bytes.len() <= CHUNK_LEN_BYTES {
            *last() = Some((chunk, bytes.clone()));
        }
        bytes
    }

    /// Reads it once for all tasks of the process.
    fn index(&self, task: &TaskContext) -> Arc<Index> {
        let mut read = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = read.as_ref() {
            return Arc::clone(index);
        }
        let head = self.encoded.read(task.world().files(), || task.go_on());
        let head = head.unwrap_or_else(|error| abort_storage(&error));
        let (parts, chunks): (Vec<Part>, Vec<Chunk>) =
            records::take(&mut head.as_ref()).unwrap_or_else(|error| unreadable(&error.to_string()));
        let index = Index::new(&parts, &chunks, head.len() as u64);
        let index = Arc::new(index.unwrap_or_else(|| unreadable("its index does not fit together")));
        Arc::clone(read.insert(index))
    }
}

fn unreadable(error: &str) -> ! {
    let message =
        format!("a record of parallelize cannot be read back: {error}; does its type serialize as it deserializes?");
    abort(TaskFailure::Program { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index_of(records: &[String], partitions: u32) -> (Index, Vec<u8>) {
        let Encoded { bytes, head_len } = encode(records, partitions).unwrap();
        let (parts, chunks): (Vec<Part>, Vec<Chunk>) = records::take(&mut &bytes[..head_len]).unwrap();
        (Index::new(&parts, &chunks, head_len as u64).unwrap(), bytes)
    }

    #[test]
    fn small_partitions_are_read_together_and_a_large_one_alone() {
        let mut records: Vec<String> = (0..10_000).map(|number| format!("{number:05}")).collect();
        records[7] = "x".repeat(3 * CHUNK_LEN_BYTES);
        let (index, bytes) = index_of(&records, 10_000);
        assert_eq!(index.chunks.len(), 3, "seven, the large one, the others, of six bytes each");
        let mut read = Vec::new();
        for Span { records: count, chunk, bytes: span } in &index.spans {
            let (range, hash) = &index.chunks[*chunk];
            let chunk = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert_eq!(blake3::hash(chunk).as_bytes(), hash);
            let mut rest = &chunk[span.clone()];
            read.extend((0..*count).map(|_| records::take::<String>(&mut rest).unwrap()));
            assert!(rest.is_empty());
        }
        assert_eq!(read, records);
        assert!(index.chunks.iter().all(|(range, _)| range.end - range.start <= 3 * CHUNK_LEN_BYTES as u64 + 3));
    }

    #[test]
    fn an_index_that_does_not_fit_together_is_refused() {
        let hash = [0; 32];
        assert!(Index::new(&[(1, 2), (1, 3)], &[(2, hash)], 9).is_some());
        for (parts, chunks, start) in [
            (vec![(1, 2), (1, 3)], vec![(1, hash)], 9),
            (vec![(1, u64::MAX), (1, 1)], vec![(2, hash)], 9),
            (vec![(1, u64::MAX)], vec![(1, hash)], 9),
            (vec![(1, 2)], vec![], 9),
        ] {
            assert!(Index::new(&parts, &chunks, start).is_none(), "{parts:?} {chunks:?}");
        }
    }
}
