//! Operations that sort.

use std::any::type_name;
use std::panic::Location;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keyed::Operation;
use super::record::FirstRecord;
use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::shuffle::records::encoded_len;
use crate::shuffle::{Order, Settling, Sorter, by_range};

/// How many keys are looked at for each partition that is wanted.
const SAMPLES_PER_PARTITION: usize = 60;
/// How many bytes all of them may take, whatever the keys' length: of many partitions none is to become a file, as longer
/// results do.
const SAMPLES_LEN_BYTES: usize = 3 << 20;
/// A longer key is no bound: every worker holds all bounds.
const BOUND_LEN_BYTES: usize = 1 << 20;

impl<K, V> Dataset<(K, V)>
where
    K: Ord + Serialize + DeserializeOwned + Send + Sync + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    /// All records in the order of their keys: sorted within each of `partitions` partitions, and every key of a partition
    /// greater than those of the partition before. Records with equal keys are all in one partition.
    ///
    /// Runs an action at once, which looks at a sample of the keys to find where to cut: up to 60 for each partition, of 3 MiB
    /// together. The longer keys are, the less equal are the partitions.
    ///
    /// # Errors
    /// When that action fails.
    #[track_caller]
    pub fn sort_by_key(&self, partitions: u32) -> Result<Dataset<(K, V)>, ProgramError> {
        let place = Location::caller();
        let operation = Operation::here("sort_by_key", place, partitions);
        let bounds = if operation.partitions == 1 {
            Vec::new()
        } else {
            self.sample_bounds(&Context::name("sort_by_key (sample)", place), operation.partitions)?
        };
        let order: Order<(K, V)> = Arc::new(|one, other| one.0.cmp(&other.0));
        Ok(self.shuffle(&operation, by_range(bounds), move |task, records| {
            let mut sorter = Sorter::new(task, Arc::clone(&order));
            records.for_each(|record| sorter.push(record));
            sorter.finish()
        }))
    }

    /// Where to cut the keys, so that partitions get about as many records each: at most one cut fewer than partitions.
    fn sample_bounds(&self, name: &str, partitions: u32) -> Result<Vec<K>, ProgramError> {
        let wanted = SAMPLES_PER_PARTITION * partitions as usize;
        // Three times its share, for partitions that hold more than others.
        let limit = (3 * wanted / self.partitions as usize).max(20);
        let limit_bytes = SAMPLES_LEN_BYTES / self.partitions as usize;
        let samples =
            self.reduce_each(name, move |partition, records| Some(sample(partition, records, limit, limit_bytes)))?;
        // A key stands for as many records as its partition has of them for each that was taken.
        let mut weighted: Vec<(K, f64)> = Vec::new();
        let mut total = 0.0;
        for (count, keys) in samples {
            if !keys.is_empty() {
                #[expect(clippy::cast_precision_loss, reason = "a weight needs no more than 52 bits")]
                let weight = count as f64 / keys.len() as f64;
                #[expect(clippy::cast_precision_loss, reason = "as above")]
                let all = count as f64;
                total += all;
                weighted.extend(keys.into_iter().map(|key| (key, weight)));
            }
        }
        weighted.sort_by(|one, other| one.0.cmp(&other.0));
        let step = total / f64::from(partitions);
        let (mut bounds, mut passed, mut target): (Vec<K>, f64, f64) = (Vec::new(), 0.0, step);
        for (key, weight) in weighted {
            passed += weight;
            if passed >= target
                && bounds.len() + 1 < partitions as usize
                && bounds.last().is_none_or(|last| *last < key)
            {
                bounds.push(key);
                target += step;
            }
        }
        Ok(bounds)
    }
}

impl<T: Ord + Serialize + DeserializeOwned + 'static> Dataset<T> {
    /// The same partitions, each sorted. What does not fit into memory is sorted on the worker's disk; whether that happens or
    /// not, records come out as what they serialize to and no more: fields that serde skips have their default.
    #[track_caller]
    pub fn sort_within_partitions(&self) -> Dataset<T> {
        let compute = Arc::clone(&self.compute);
        let order: Order<T> = Arc::new(T::cmp);
        let name = Context::name("sort_within_partitions", Location::caller());
        let operation = name.clone();
        self.context.add(name, self.parent(), self.partitions, self.preferred.clone(), move |task, partition| {
            let mut sorter = Sorter::new(task, Arc::clone(&order));
            let mut first = FirstRecord::of(&operation, type_name::<T>());
            let mut settling = Settling::of::<T>();
            compute(task, partition).for_each(|record| {
                first.check(&record);
                sorter.push(settling.settle(record));
            });
            sorter.finish()
        })
    }
}

/// How many records there are, and the keys of up to `limit` of them that take up to `limit_bytes`, each as likely as any
/// other (Vitter's algorithm R, with a fixed sequence of numbers: every attempt takes the same). Where not one fits, its key
/// is taken with the chance that its part in the bytes gives it.
fn sample<K: Serialize + 'static, V: 'static>(
    partition: u32,
    records: Records<(K, V)>,
    mut limit: usize,
    limit_bytes: usize,
) -> (u64, Vec<K>) {
    let mut keys: Vec<(K, usize)> = Vec::new();
    let (mut count, mut len_bytes) = (0_u64, 0);
    let mut numbers = Numbers(u64::from(partition));
    records.for_each(|(key, _)| {
        count += 1;
        let place = if keys.len() < limit { keys.len() as u64 } else { numbers.below(count) };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if place >= limit {
            return;
        }
        let key_len = encoded_len(&key);
        if key_len > BOUND_LEN_BYTES {
            return;
        }
        len_bytes += key_len;
        match keys.get_mut(place) {
            Some(kept) => len_bytes -= std::mem::replace(kept, (key, key_len)).1,
            None => keys.push((key, key_len)),
        }
        // Some of them, each as likely as any other, stand for all.
        while len_bytes > limit_bytes && keys.len() > 1 {
            let place = numbers.below(keys.len() as u64);
            len_bytes -= keys.swap_remove(usize::try_from(place).unwrap_or(0)).1;
            limit = keys.len();
        }
    });
    if len_bytes > limit_bytes && numbers.below(len_bytes as u64) >= limit_bytes as u64 {
        keys.clear();
    }
    (count, keys.into_iter().map(|(key, _)| key).collect())
}

/// Steele, Lea and Flood's SplitMix64: the numbers that a seed gives.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u64::try_from((u128::from(mixed) * u128::from(limit)) >> 64).expect("it is below `limit`")
    }
}
