//! Which reduce partition a record goes to.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;

/// How keys are hashed: with fixed constants, so that every worker of a job sends a key to the same place. Within one
/// build of a program only; all processes of a job run the same one.
pub(crate) const HASHER: FixedState = FixedState::with_seed(0x5157_u64);

/// The hash of a key.
#[inline]
#[expect(clippy::manual_hash_one, reason = "that is a call for each record, wherever it is not taken in")]
pub(crate) fn hash_key<K: Hash>(key: &K) -> u64 {
    let mut hasher = HASHER.build_hasher();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The partition, among `partitions`, of a key with that hash.
#[inline]
pub(crate) fn partition_of(hash: u64, partitions: u32) -> u32 {
    // Hash tables take the low and the top bits as they are: mixed, so that the keys of one partition still spread.
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let partition = (u128::from(mixed) * u128::from(partitions)) >> 64;
    u32::try_from(partition).expect("it is below `partitions`")
}

/// The rank of a key with that hash among the keys of its partition: they are handed on in this order, however they were
/// gathered. The finalizer of Austin Appleby's MurmurHash3, in which every bit of the input turns each bit of the output
/// with a chance of about a half: the keys of one partition have much of their mixed hash in common, and what is only a
/// multiplication away from it would be in common too.
#[inline]
pub(crate) fn rank_of(hash: u64) -> u64 {
    let mut mixed = hash ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// How a shuffle splits records of type `R`.
pub(crate) type Partitioner<R> = Arc<dyn Fn(&R) -> u32 + Send + Sync>;

/// Splits by the hash of the key.
pub(crate) fn by_hash<K: Hash + 'static, V: 'static>(partitions: u32) -> Partitioner<(K, V)> {
    Arc::new(move |(key, _)| partition_of(hash_key(key), partitions))
}

/// Splits by ranges of the key: the first partition takes keys up to and with the first bound, and so on.
pub(crate) fn by_range<K: Ord + Send + Sync + 'static, V: 'static>(bounds: Vec<K>) -> Partitioner<(K, V)> {
    Arc::new(move |(key, _)| {
        u32::try_from(bounds.partition_point(|bound| bound < key)).expect("there are fewer bounds than partitions")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    #[test]
    fn golden() {
        let places: Vec<u32> = ["", "a", "the", "of", "a word of more than twenty-three bytes"]
            .map(|word| partition_of(hash_key(&Text::from(word)), 100))
            .to_vec();
        assert_eq!(places, [81, 55, 34, 39, 31]);
        assert_eq!(
            (0..8_u64).map(|key| partition_of(hash_key(&key), 100)).collect::<Vec<_>>(),
            [71, 25, 86, 14, 84, 96, 96, 43]
        );
    }

    #[test]
    fn partitions_are_about_equal() {
        let mut counts = [0_u32; 7];
        for key in 0..70_000_u64 {
            counts[partition_of(hash_key(&key), 7) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_keys_of_one_partition_spread_among_the_ranks() {
        let hashes: Vec<u64> = (0..1_000_000_u64).map(|key| hash_key(&key)).collect();
        for partition in [0, 37, 99] {
            for shift in [60, 56, 52] {
                let mut counts = [0_usize; 16];
                for hash in hashes.iter().filter(|hash| partition_of(**hash, 100) == partition) {
                    counts[usize::try_from((rank_of(*hash) >> shift) % 16).unwrap()] += 1;
                }
                let even = counts.iter().sum::<usize>() / 16;
                assert!(
                    counts.iter().all(|count| count.abs_diff(even) < even / 4),
                    "partition {partition}, bits from {shift} on: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn ranges_take_their_upper_bound() {
        let partition = by_range::<u32, ()>(vec![10, 20]);
        let places = [0, 10, 11, 20, 21].map(|key| partition(&(key, ())));
        assert_eq!(places, [0, 0, 1, 1, 2]);
    }
}
