//! Which records changed since each of the two images was brought forward.

use std::collections::VecDeque;
use std::sync::Arc;

use super::digest::RecordRef;
use super::image::{ImageKey, ImageRecord, ImageSlot};

/// How many keys are gathered before repeated ones are looked for.
const SEGMENT_KEYS: usize = 1 << 13;
/// From how many segments on they are merged; that takes a moment, and happens only when images are not brought forward
/// for long.
const SEGMENTS_MIN: usize = 1 << 11;

/// A list of keys that does not change any more. Both images may lack the same one.
pub(super) type Segment = Arc<[ImageKey]>;

/// What one image lacks.
#[derive(Debug)]
enum Lack {
    /// These; some perhaps more than once.
    Keys(VecDeque<Segment>),
    /// Everything.
    All,
}

/// The keys of records that changed, for each image.
#[derive(Debug)]
pub(super) struct Changes {
    /// What both images lack beside the rest.
    recent: Vec<ImageKey>,
    lacks: [Lack; 2],
    merge_at: usize,
}

impl Default for Changes {
    fn default() -> Self {
        let lacks = std::array::from_fn(|_| Lack::Keys(VecDeque::new()));
        Self { recent: Vec::new(), lacks, merge_at: SEGMENTS_MIN }
    }
}

impl Changes {
    /// Notes that a record came, changed or went.
    pub(super) fn push(&mut self, record: &RecordRef<'_>) {
        if self.lacks.iter().all(|lack| matches!(lack, Lack::All))
            || self.recent.last().is_some_and(|key| is_of(key, record))
        {
            return;
        }
        self.recent.push(key_of(record));
        if self.recent.len() >= SEGMENT_KEYS {
            self.freeze();
        }
    }

    /// Makes a segment of the recent keys.
    fn freeze(&mut self) {
        let mut keys = std::mem::take(&mut self.recent);
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return;
        }
        let segment: Segment = keys.into();
        let mut longest = 0;
        for lack in &mut self.lacks {
            if let Lack::Keys(segments) = lack {
                segments.push_back(segment.clone());
                longest = longest.max(segments.len());
            }
        }
        if longest >= self.merge_at {
            self.merge();
        }
    }

    /// Merges the segments of each image, so that they grow with the namespace and not with time.
    fn merge(&mut self) {
        let mut longest = 0;
        for lack in &mut self.lacks {
            if let Lack::Keys(segments) = lack {
                let mut keys: Vec<ImageKey> = segments.drain(..).flat_map(|segment| segment.to_vec()).collect();
                keys.sort_unstable();
                keys.dedup();
                segments.extend(keys.chunks(SEGMENT_KEYS).map(Segment::from));
                longest = longest.max(segments.len());
            }
        }
        self.merge_at = SEGMENTS_MIN.max(longest * 2);
    }

    /// Takes what `image` lacks, which is then nothing; none if it is everything.
    pub(super) fn take(&mut self, image: ImageSlot) -> Option<VecDeque<Segment>> {
        self.freeze();
        match std::mem::replace(&mut self.lacks[index(image)], Lack::Keys(VecDeque::new())) {
            Lack::Keys(segments) => Some(segments),
            Lack::All => None,
        }
    }

    /// Says that `image` lacks everything.
    pub(super) fn reset(&mut self, image: ImageSlot) {
        self.freeze();
        self.lacks[index(image)] = Lack::All;
    }
}

fn index(image: ImageSlot) -> usize {
    match image {
        ImageSlot::A => 0,
        ImageSlot::B => 1,
    }
}

/// What names a record.
pub(super) fn key_of(record: &RecordRef<'_>) -> ImageKey {
    match record {
        ImageRecord::Meta(_) => ImageKey::Meta,
        ImageRecord::INode(inode) => ImageKey::INode(inode.id),
        ImageRecord::Edge(edge) => ImageKey::Edge(edge.parent, edge.name.into()),
        ImageRecord::Block(block) => ImageKey::Block(block.id),
        ImageRecord::Operation(operation) => ImageKey::Operation(operation.client, operation.sequence),
        ImageRecord::Epoch(epoch) => ImageKey::Epoch(epoch.epoch),
    }
}

/// Whether a key names a record; without making the record's own.
fn is_of(key: &ImageKey, record: &RecordRef<'_>) -> bool {
    match (key, record) {
        (ImageKey::INode(id), ImageRecord::INode(inode)) => *id == inode.id,
        (ImageKey::Block(id), ImageRecord::Block(block)) => *id == block.id,
        (ImageKey::Edge(parent, name), ImageRecord::Edge(edge)) => *parent == edge.parent && **name == *edge.name,
        (ImageKey::Operation(client, sequence), ImageRecord::Operation(operation)) => {
            (*client, *sequence) == (operation.client, operation.sequence)
        }
        _ => false,
    }
}
