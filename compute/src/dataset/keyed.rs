//! Operations that bring the records of a key together.

use std::any::type_name;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use situ_wire::ids::{DatasetId, PartitionId, ShuffleId};
use situ_wire::limits::PARTITIONS;
use situ_wire::messages::executor::ShufflePiece;

use super::graph::{Kept, MapTask, NodeKind, Parent, shuffle_of};
use super::record::{FirstRecord, Key, Record};
use super::{Context, Dataset, Records};
use crate::program::task::TaskContext;
use crate::shuffle::{
    Aggregation, COMBINING_TOTAL_BYTES, Gatherer, Partitioner, PieceWriter, Settling, ShuffleRecords, Table, by_hash,
    hash_key, outside_len, partition_of,
};

impl<K: 'static, V: 'static> Dataset<(K, V)> {
    /// Each key once, with its values combined by `function`, which must not depend on their order. Combines in the map
    /// tasks already. The keys go to `partitions` partitions by their hash; within one they stand in an order that means
    /// nothing, and is the same whenever the same program computes the same input.
    #[track_caller]
    pub fn reduce_by_key(
        &self,
        function: impl Fn(V, V) -> V + Send + Sync + 'static,
        partitions: u32,
    ) -> Dataset<(K, V)>
    where
        K: Key,
        V: Record,
    {
        let operation = Operation::here("reduce_by_key", Location::caller(), partitions);
        let aggregation = Arc::new(Reduce { function, values: PhantomData });
        self.aggregate(&operation, type_name::<(K, V)>(), aggregation)
            .strip(|reduced| reduced.0.expect("a state holds its value"))
    }

    /// Each key once, with a state that `start` makes of the first value, `add` takes each further value into, and `merge`
    /// combines. Combines in the map tasks already.
    ///
    /// A state may be moved to the disk and back between any two steps, so the functions must depend only on what it
    /// serializes: not on a field that serde skips, and not on the order of a hash map's entries.
    #[track_caller]
    pub fn combine_by_key<S: Record>(
        &self,
        start: impl Fn(V) -> S + Send + Sync + 'static,
        add: impl Fn(&mut S, V) + Send + Sync + 'static,
        merge: impl Fn(&mut S, S) + Send + Sync + 'static,
        partitions: u32,
    ) -> Dataset<(K, S)>
    where
        K: Key,
        V: Record,
    {
        let operation = Operation::here("combine_by_key", Location::caller(), partitions);
        let aggregation = Arc::new(Combine { start, add, merge, types: PhantomData });
        self.aggregate(&operation, type_name::<(K, S)>(), aggregation).strip(|state| state)
    }

    /// Each key once, with all its values in the order of the partitions that they come from. The values of one key must
    /// fit into what a task has of the worker's memory, or the job fails and says so: [`Dataset::map_groups`] goes through
    /// any number of them, and where they are only to be combined, [`Dataset::reduce_by_key`] moves far less.
    #[track_caller]
    pub fn group_by_key(&self, partitions: u32) -> Dataset<(K, Vec<V>)>
    where
        K: Key,
        V: Record,
    {
        let operation = Operation::here("group_by_key", Location::caller(), partitions);
        self.shuffle(&operation, by_hash(operation.partitions), move |task, records| {
            let mut gatherer = Gatherer::new(task, Arc::new(Group(PhantomData)));
            records.for_each(|(key, value)| gatherer.add(key, value));
            gatherer.finish()
        })
    }

    /// Every value through `function`; the keys stay.
    #[track_caller]
    pub fn map_values<W: 'static>(&self, function: impl Fn(V) -> W + Send + Sync + 'static) -> Dataset<(K, W)> {
        let function = Arc::new(function);
        self.narrow(Context::name("map_values", Location::caller()), move |_, records| {
            let function = Arc::clone(&function);
            Records::new(records.map(move |(key, value)| (key, function(value))))
        })
    }

    /// Aggregates on both sides of a shuffle.
    fn aggregate<A: Aggregation<Value = V>>(
        &self,
        operation: &Operation,
        entry_type: &'static str,
        aggregation: Arc<A>,
    ) -> Dataset<(K, A::State)>
    where
        K: Key,
        V: Record,
    {
        let compute = Arc::clone(&self.compute);
        let (reducers, combining) = (operation.partitions, Arc::clone(&aggregation));
        let name = operation.name.clone();
        let map = move |task: &TaskContext, partition: u32, shuffle: ShuffleId| {
            let memory = task.reserve();
            memory.take(COMBINING_TOTAL_BYTES);
            let mut writer = PieceWriter::output(task, reducers as usize);
            let mut first = FirstRecord::of(&name, entry_type);
            let mut write = |entry: (K, A::State)| {
                first.check(&entry);
                writer.write(partition_of(hash_key(&entry.0), reducers) as usize, &entry);
            };
            let mut table = Table::combining(Arc::clone(&combining));
            compute(task, partition).for_each(|(key, value)| {
                if table.add(key, value) && table.is_full() {
                    table.drain(&mut write);
                }
            });
            table.drain(&mut write);
            table.leave(task.memory().manager());
            drop(memory);
            writer.finish(shuffle, task.attempt())
        };
        self.shuffled(operation, map, move |task, records| {
            let mut gatherer = Gatherer::new(task, Arc::clone(&aggregation));
            records.for_each(|(key, state)| gatherer.merge(key, state));
            gatherer.finish()
        })
    }
}

impl<R: Serialize + DeserializeOwned + 'static> Dataset<R> {
    /// Moves every record to the partition that `partitioner` says, and makes of what arrives what `reduce` says.
    pub(super) fn shuffle<U: 'static>(
        &self,
        operation: &Operation,
        partitioner: Partitioner<R>,
        reduce: impl Fn(&TaskContext, ShuffleRecords<R>) -> Records<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        let (compute, reducers) = (Arc::clone(&self.compute), operation.partitions as usize);
        let name = operation.name.clone();
        let map = move |task: &TaskContext, partition: u32, shuffle: ShuffleId| {
            let mut writer = PieceWriter::output(task, reducers);
            let mut first = FirstRecord::of(&name, type_name::<R>());
            compute(task, partition).for_each(|record| {
                first.check(&record);
                writer.write(partitioner(&record) as usize, &record);
            });
            writer.finish(shuffle, task.attempt())
        };
        self.shuffled(operation, map, reduce)
    }
}

impl<T: 'static> Dataset<T> {
    /// The two nodes of a shuffle: what writes it and what reads it.
    fn shuffled<W: DeserializeOwned + 'static, U: 'static>(
        &self,
        operation: &Operation,
        map: impl Fn(&TaskContext, u32, ShuffleId) -> Vec<ShufflePiece> + Send + Sync + 'static,
        reduce: impl Fn(&TaskContext, ShuffleRecords<W>) -> Records<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        // The shuffle has the id of the dataset that reads it, which comes right behind the one that writes it.
        let map_side = self.context.next_dataset(2);
        let (id, shuffle) = (DatasetId(map_side.0, map_side.1 + 1), shuffle_of(map_side));
        let task: MapTask = Arc::new(move |task, partition| map(task, partition, shuffle));
        let writer = self.context.node(
            map_side,
            format!("{} (map side)", operation.name),
            self.parent(),
            self.partitions,
            self.preferred.clone(),
            NodeKind::MapSide { reducers: operation.partitions, task },
        );
        let parents = vec![Parent::whole(&Arc::new(writer))];
        let kept = self.context.kept(|backend| Kept::shuffle(shuffle, backend));
        let kind = NodeKind::ReduceSide { kept: Arc::clone(&kept) };
        let node = self.context.node(id, operation.name.clone(), parents, operation.partitions, None, kind);
        let compute = move |task: &TaskContext, partition: u32| {
            // As long as this function is there, so are the pieces.
            let _ = &kept;
            reduce(task, ShuffleRecords::fetch(task, shuffle, PartitionId(partition)))
        };
        Dataset::new(self.context.clone(), Arc::new(node), Arc::new(compute))
    }
}

impl<K: 'static, S: 'static> Dataset<(K, S)> {
    /// Takes the wrapping off the states, without a node of its own.
    fn strip<V: 'static>(self, take: impl Fn(S) -> V + Send + Sync + 'static) -> Dataset<(K, V)> {
        let (compute, take) = (self.compute, Arc::new(take));
        let stripped = move |task: &TaskContext, partition: u32| {
            let take = Arc::clone(&take);
            Records::new(compute(task, partition).map(move |(key, state)| (key, take(state))))
        };
        Dataset::new(self.context, self.node, Arc::new(stripped))
    }
}

/// A shuffling operation as the program asks for it.
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) partitions: u32,
}

impl Operation {
    /// Partitions are kept between 1 and [`PARTITIONS`].
    pub(super) fn here(operation: &str, place: &Location<'_>, partitions: u32) -> Self {
        Self { name: Context::name(operation, place), partitions: partitions.clamp(1, PARTITIONS) }
    }
}

/// Combines values by a function that takes and gives them whole. The option is empty only while the function runs.
struct Reduce<F, V> {
    function: F,
    values: PhantomData<fn() -> V>,
}

/// A value that is being reduced; encoded as the value alone.
pub(super) struct Reduced<V>(Option<V>);

impl<V: Serialize> Serialize for Reduced<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => Err(serde::ser::Error::custom("the function that reduces has panicked")),
        }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Reduced<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        V::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

impl<F, V> Aggregation for Reduce<F, V>
where
    F: Fn(V, V) -> V + Send + Sync + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    type Value = V;
    type State = Reduced<V>;

    #[inline]
    fn start(&self, value: V) -> Reduced<V> {
        Reduced(Some(value))
    }

    #[inline]
    fn add(&self, state: &mut Reduced<V>, value: V) {
        state.0 = match state.0.take() {
            Some(before) => Some((self.function)(before, value)),
            None => Some(value),
        };
    }

    #[inline]
    fn merge(&self, state: &mut Reduced<V>, other: Reduced<V>) {
        if let Some(value) = other.0 {
            self.add(state, value);
        }
    }

    // The function may keep all of a value.
    #[inline]
    fn growth_bytes(&self, value: &V) -> usize {
        outside_len(value)
    }

    #[inline]
    fn merge_growth_bytes(&self, state: &Reduced<V>) -> usize {
        state.0.as_ref().map_or(0, |value| self.growth_bytes(value))
    }

    fn settling(&self) -> Settling {
        Settling::of::<V>()
    }
}

/// Combines values by functions of the program.
struct Combine<F, G, H, V, S> {
    start: F,
    add: G,
    merge: H,
    types: PhantomData<fn(V) -> S>,
}

impl<F, G, H, V, S> Aggregation for Combine<F, G, H, V, S>
where
    F: Fn(V) -> S + Send + Sync + 'static,
    G: Fn(&mut S, V) + Send + Sync + 'static,
    H: Fn(&mut S, S) + Send + Sync + 'static,
    V: Serialize + 'static,
    S: Serialize + DeserializeOwned + 'static,
{
    type Value = V;
    type State = S;

    fn start(&self, value: V) -> S {
        (self.start)(value)
    }

    fn add(&self, state: &mut S, value: V) {
        (self.add)(state, value);
    }

    fn merge(&self, state: &mut S, other: S) {
        (self.merge)(state, other);
    }

    // What the program's functions keep of a value is not known: a state that can hold memory may keep all of it.
    fn growth_bytes(&self, value: &V) -> usize {
        if std::mem::needs_drop::<S>() { size_of::<V>() + outside_len(value) } else { 0 }
    }

    fn merge_growth_bytes(&self, state: &S) -> usize {
        outside_len(state)
    }

    fn settling(&self) -> Settling {
        Settling::of::<S>()
    }
}

/// How long the parts are in which a group is moved.
const GROUP_PART_LEN_BYTES: usize = 1 << 20;

/// Gathers values.
struct Group<V>(PhantomData<fn() -> V>);

impl<V: Serialize + DeserializeOwned + 'static> Aggregation for Group<V> {
    type Value = V;
    type State = Vec<V>;

    fn start(&self, value: V) -> Vec<V> {
        vec![value]
    }

    fn add(&self, state: &mut Vec<V>, value: V) {
        state.push(value);
    }

    fn merge(&self, state: &mut Vec<V>, mut other: Vec<V>) {
        state.append(&mut other);
    }

    // A list that has grown may be half empty.
    fn growth_bytes(&self, value: &V) -> usize {
        2 * size_of::<V>() + outside_len(value)
    }

    fn merge_growth_bytes(&self, state: &Vec<V>) -> usize {
        state.iter().map(|value| self.growth_bytes(value)).sum()
    }

    fn parts(&self, state: Vec<V>, sink: &mut dyn FnMut(&Vec<V>)) {
        let (mut part, mut len_bytes) = (Vec::new(), 0);
        for value in state {
            len_bytes += size_of::<V>() + outside_len(&value);
            part.push(value);
            if len_bytes >= GROUP_PART_LEN_BYTES {
                sink(&part);
                part.clear();
                len_bytes = 0;
            }
        }
        if !part.is_empty() {
            sink(&part);
        }
    }

    // One value may be longer than a part.
    fn part_len_bytes(&self) -> usize {
        2 * GROUP_PART_LEN_BYTES
    }
}

impl<T: 'static> Dataset<T> {
    /// Each record once. They go to `partitions` partitions by their hash, and stand there as the keys of
    /// [`Dataset::reduce_by_key`] do.
    #[track_caller]
    pub fn distinct(&self, partitions: u32) -> Dataset<T>
    where
        T: Key,
    {
        let operation = Operation::here("distinct", Location::caller(), partitions);
        let keyed = self.narrow(format!("{} (keys)", operation.name), |_, records| {
            Records::new(records.map(|record| (record, ())))
        });
        let aggregation = Arc::new(Reduce { function: |(), ()| (), values: PhantomData });
        let distinct = keyed.aggregate(&operation, type_name::<T>(), aggregation);
        distinct.narrow(format!("{} (records)", operation.name), |_, records| {
            Records::new(records.map(|(record, _)| record))
        })
    }
}
