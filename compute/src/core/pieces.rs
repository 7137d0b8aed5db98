use std::ops::Range;

use situ_wire::messages::executor::ShufflePiece;

/// What a map task wrote, one piece a reduce partition. There may be millions in all: half of their size is saved where
/// their numbers are small, as most are.
#[derive(Debug)]
pub(super) struct Pieces(Packed);

#[derive(Debug)]
enum Packed {
    /// Length, checksum and records of each.
    Small(Box<[[u32; 3]]>),
    Large(Box<[ShufflePiece]>),
}

impl From<Vec<ShufflePiece>> for Pieces {
    fn from(pieces: Vec<ShufflePiece>) -> Self {
        let small = |piece: &ShufflePiece| {
            let len_bytes = u32::try_from(piece.len_bytes).ok()?;
            Some([len_bytes, piece.crc32c, u32::try_from(piece.records).ok()?])
        };
        let packed: Option<Box<[_]>> = pieces.iter().map(small).collect();
        Self(packed.map_or_else(|| Packed::Large(pieces.into()), Packed::Small))
    }
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Packed::Small(pieces) => pieces.len(),
            Packed::Large(pieces) => pieces.len(),
        }
    }

    /// All of them, as they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = ShufflePiece> {
        let (small, large): (&[_], &[_]) = match &self.0 {
            Packed::Small(pieces) => (pieces, &[]),
            Packed::Large(pieces) => (&[], pieces),
        };
        small.iter().map(unpacked).chain(large.iter().copied())
    }

    /// Those for a range of reduce partitions; none if there are not so many.
    pub(super) fn get(&self, range: Range<usize>) -> Option<Vec<ShufflePiece>> {
        match &self.0 {
            Packed::Small(pieces) => pieces.get(range).map(|pieces| pieces.iter().map(unpacked).collect()),
            Packed::Large(pieces) => pieces.get(range).map(<[_]>::to_vec),
        }
    }
}

fn unpacked([len_bytes, crc32c, records]: &[u32; 3]) -> ShufflePiece {
    ShufflePiece { len_bytes: (*len_bytes).into(), crc32c: *crc32c, records: (*records).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_come_back_as_they_were() {
        for len_bytes in [0, 70_000, u64::from(u32::MAX), 1 << 40] {
            let pieces: Vec<ShufflePiece> =
                (0..5).map(|records| ShufflePiece { len_bytes, crc32c: u32::MAX, records }).collect();
            let packed = Pieces::from(pieces.clone());
            assert_eq!(packed.len(), 5);
            assert!(packed.iter().eq(pieces.iter().copied()));
            assert_eq!(packed.get(1..3), Some(pieces[1..3].to_vec()));
            assert_eq!(packed.get(4..6), None);
        }
    }
}
