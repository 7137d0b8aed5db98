//! What records and keys must be, and finding out at the first record whether they are.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::messages::scheduler::TaskFailure;

use crate::program::task::abort;
use crate::shuffle::records;

/// Records up to this length are tried.
const TRIED_LEN_BYTES: usize = 1 << 20;

/// What can be moved from one process to another: between tasks, and to the driver. Everything that serializes, reads back
/// from that as what it was, and borrows nothing.
///
/// Records are stored in [postcard](https://docs.rs/postcard), which does not store the names and kinds of their parts: types
/// with serde's attributes `untagged`, `tag`, `flatten` or `skip_serializing_if` do not read back.
///
/// Use `BTreeMap` and `BTreeSet` in records, not `HashMap` and `HashSet`: what a task leaves may have to be computed again
/// after a failure and must then be the same to the byte, which the order of a `HashMap` is not. Where it is not the same, what
/// has read the earlier output is computed again too, or the job fails.
///
/// What is no part of what a record serializes is no part of the record: a field with serde's `skip` has its default once the
/// record was moved, and the entries of a hash map are in another order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be moved from one process to another",
    label = "does not serialize and deserialize, or borrows something",
    note = "what is shuffled, collected or reduced needs `#[derive(serde::Serialize, serde::Deserialize)]` on every type of \
            one's own in it (serde with its feature `derive`)",
    note = "`&str` and other references cannot be moved: use `String` or `situ_compute::Text`"
)]
pub trait Record: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Record for T {}

/// What a key of a shuffle must be: a [`Record`] that hashes and equals.
///
/// Floating point numbers do neither, because some of them do not equal themselves: [`OrderedFloat`](crate::OrderedFloat)
/// around one does, and has an order too.
///
/// ```no_run
/// # use situ_compute::{Context, OrderedFloat};
/// # fn count(context: &Context) {
/// let numbers = context.parallelize(vec![(OrderedFloat(0.5), 1_u64)], 1);
/// numbers.reduce_by_key(|one, other| one + other, 4);
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # use situ_compute::Context;
/// # fn count(context: &Context) {
/// let numbers = context.parallelize(vec![(0.5, 1_u64)], 1);
/// numbers.reduce_by_key(|one, other| one + other, 4); // `f64` cannot be a key
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    label = "does not hash, equal, serialize and deserialize",
    note = "a key needs `#[derive(PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]` on every type of one's own in \
            it (serde with its feature `derive`)",
    note = "`f32` and `f64` do not hash or equal: wrap them in `situ_compute::OrderedFloat`",
    note = "`&str` and other references cannot be moved between processes: use `String` or `situ_compute::Text`"
)]
pub trait Key: Hash + Eq + Record {}

#[diagnostic::do_not_recommend]
impl<K: Hash + Eq + Record> Key for K {}

/// Tries the first record that a task writes for an operation, so that a type that does not serialize, or not read back as
/// what it was, is named where it is written and not where bytes make no sense any more.
pub(super) struct FirstRecord<'a> {
    operation: &'a str,
    record_type: &'static str,
    is_tried: bool,
}

impl<'a> FirstRecord<'a> {
    /// `record_type` is what the program knows the records as.
    pub(super) fn of(operation: &'a str, record_type: &'static str) -> Self {
        Self { operation, record_type, is_tried: false }
    }

    /// Ends the task if this is the first record and does not come back as it goes.
    #[inline]
    pub(super) fn check<T: Serialize + DeserializeOwned>(&mut self, record: &T) {
        if !self.is_tried {
            self.is_tried = true;
            self.try_record(record);
        }
    }

    #[cold]
    fn try_record<T: Serialize + DeserializeOwned>(&self, record: &T) {
        if records::encoded_len(record) > TRIED_LEN_BYTES {
            return;
        }
        if let Err(reason) = come_back(record) {
            let Self { operation, record_type, .. } = self;
            abort(TaskFailure::Program {
                message: format!("{operation}: a record of the type {record_type} {reason}"),
            });
        }
    }
}

/// Whether a record reads back as what it was.
fn come_back<T: Serialize + DeserializeOwned>(record: &T) -> Result<(), String> {
    const ADVICE: &str = "serde's attributes untagged, tag, flatten and skip_serializing_if cannot be used in records, which \
                          are stored without the names and kinds of their parts";
    let mut bytes = Vec::new();
    records::append(record, &mut bytes).map_err(|error| format!("cannot be serialized: {error}; {ADVICE}"))?;
    let mut rest = &bytes[..];
    let back: T = records::take(&mut rest)
        .map_err(|error| format!("does not read back from what it serializes to: {error}; {ADVICE}"))?;
    let mut again = Vec::new();
    let other = "reads back as another one than was written";
    records::append(&back, &mut again).map_err(|error| format!("{other}, which cannot be serialized: {error}"))?;
    if rest.is_empty() && bytes == again {
        return Ok(());
    }
    // A map may come back in another order.
    if records::byte_counts(&bytes) == records::byte_counts(&again) {
        Ok(())
    } else {
        Err(format!("{other}; {ADVICE}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_comes_back_as_another_is_found_at_the_first_record() {
        #[derive(Serialize, Deserialize)]
        struct Sparse {
            #[serde(skip_serializing_if = "Option::is_none")]
            first: Option<u8>,
            second: Option<u8>,
        }
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Number(u64),
        }
        #[derive(Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            rest: HashMap<String, u8>,
        }
        #[derive(Serialize, Deserialize)]
        struct Cached {
            value: u8,
            #[serde(skip)]
            cache: Option<String>,
        }

        assert!(come_back(&Sparse { first: None, second: Some(0) }).is_err());
        let error = come_back(&Untagged::Number(1)).unwrap_err();
        assert!(error.contains("does not read back") && error.contains("untagged"), "{error}");
        let error = come_back(&Flat { rest: HashMap::new() }).unwrap_err();
        assert!(error.contains("cannot be serialized") && error.contains("flatten"), "{error}");
        let cached = Cached { value: 1, cache: Some("not moved".to_owned()) };
        assert!(come_back(&cached) == Ok(()) && cached.cache.is_some());
        let map: HashMap<u32, String> = (0..100).map(|n| (n, n.to_string())).collect();
        assert_eq!(come_back(&map), Ok(()), "its order is not part of a map");
        assert_eq!(come_back(&f64::NAN), Ok(()));
        assert_eq!(come_back(&()), Ok(()));
    }
}
