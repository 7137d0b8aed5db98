//! The frames of a piece; see [`format`](super::format).

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records;

/// The bytes before a frame's block.
const HEADER_LEN_BYTES: usize = 16;
/// A reader's buffer that one frame made longer than this is not kept for the next.
const BUFFER_LEN_BYTES: usize = 1 << 20;
/// The longest frame. A frame ends after the first record that makes it long enough, so only a record of about this
/// length reaches it.
pub(crate) const FRAME_LEN_MAX_BYTES: usize = 1 << 30;

/// Why bytes are not frames of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// They end in the middle of a frame.
    #[error("a frame of {expected_bytes} bytes ends after {found_bytes}")]
    Cut {
        /// How long it should be.
        expected_bytes: usize,
        /// How much there is.
        found_bytes: usize,
    },
    /// A length cannot be.
    #[error("a frame claims {raw_bytes} bytes in {compressed_bytes}")]
    Length {
        /// How long it claims to be when unpacked.
        raw_bytes: usize,
        /// How long it claims to be as it stands.
        compressed_bytes: usize,
    },
    /// It is not what was written.
    #[error("the checksum of a frame is {found:08x}, {expected:08x} was written")]
    Checksum {
        /// What was written.
        expected: u32,
        /// That of what is there.
        found: u32,
    },
    /// LZ4 cannot unpack it.
    #[error("a frame cannot be unpacked: {0}")]
    Packed(String),
    /// It does not hold the records that it should.
    #[error("a frame does not hold the records that it should: {0}")]
    Records(String),
}

/// Gathers records into the frames of a piece, one after the other.
#[derive(Default)]
pub(crate) struct FrameBuffer {
    raw: Vec<u8>,
    records: u32,
    /// Which frame of its piece this is.
    number: u64,
    /// The longest so far.
    longest_bytes: usize,
}

impl FrameBuffer {
    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be encoded, or the frame becomes too long for its format.
    pub(crate) fn push<T: Serialize>(&mut self, record: &T) -> Result<(), String> {
        records::append(record, &mut self.raw).map_err(|error| format!("a record cannot be serialized: {error}"))?;
        self.records += 1;
        if self.raw.len() > FRAME_LEN_MAX_BYTES {
            return Err(format!("a record is too long: at most {FRAME_LEN_MAX_BYTES} bytes can be moved at once"));
        }
        Ok(())
    }

    /// Takes the bytes of a whole frame, which hold so many records.
    ///
    /// # Errors
    /// When they are too long for its format.
    pub(crate) fn fill(&mut self, records: u32, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > FRAME_LEN_MAX_BYTES {
            return Err(format!(
                "a frame has {} bytes; at most {FRAME_LEN_MAX_BYTES} can be moved at once",
                bytes.len()
            ));
        }
        self.raw.extend_from_slice(bytes);
        self.records = records;
        Ok(())
    }

    /// Whether a frame of about `target_bytes` is full. Records may take no byte, so their number counts too.
    pub(crate) fn is_full(&self, target_bytes: usize) -> bool {
        self.raw.len() >= target_bytes || self.records == 1 << 20
    }

    /// How much memory it takes.
    #[inline]
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.raw.capacity()
    }

    /// How long the longest of the frames is that were finished.
    pub(crate) fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Appends the frame to `out`, gives the number of its records, and is empty again. Of its memory it keeps
    /// `kept_bytes`: one long record must not hold what it took to the end.
    pub(crate) fn finish(&mut self, kept_bytes: usize, out: &mut Vec<u8>) -> u64 {
        if self.records == 0 {
            return 0;
        }
        let start = out.len();
        let bound = lz4_flex::block::get_maximum_output_size(self.raw.len());
        out.resize(start + HEADER_LEN_BYTES + bound, 0);
        let block = &mut out[start + HEADER_LEN_BYTES..];
        let compressed = match lz4_flex::block::compress_into(&self.raw, block) {
            Ok(len) if len < self.raw.len() => len,
            _ => {
                block[..self.raw.len()].copy_from_slice(&self.raw);
                self.raw.len()
            }
        };
        let length = |len: usize| u32::try_from(len).expect("a frame has at most FRAME_LEN_MAX_BYTES").to_le_bytes();
        out[start..start + 4].copy_from_slice(&length(self.raw.len()));
        out[start + 4..start + 8].copy_from_slice(&length(compressed));
        out[start + 8..start + 12].copy_from_slice(&self.records.to_le_bytes());
        out.truncate(start + HEADER_LEN_BYTES + compressed);
        let crc = checksum(self.number, &out[start..]);
        out[start + 12..start + HEADER_LEN_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.longest_bytes = self.longest_bytes.max(self.raw.len());
        self.number += 1;
        empty(&mut self.raw, kept_bytes);
        u64::from(std::mem::take(&mut self.records))
    }
}

/// Empties a buffer, and lets go of it if it is longer than `kept_bytes`.
fn empty(buffer: &mut Vec<u8>, kept_bytes: usize) {
    if buffer.capacity() > kept_bytes { *buffer = Vec::new() } else { buffer.clear() }
}

/// The checksum of a frame: of its place among those of its piece, and of all of it but the checksum.
fn checksum(number: u64, frame: &[u8]) -> u32 {
    let place = crc32c::crc32c(&number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, &frame[..12]), &frame[HEADER_LEN_BYTES..])
}

/// What the header of a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FrameHeader {
    raw: usize,
    compressed: usize,
    records: u32,
    crc32c: u32,
}

impl FrameHeader {
    /// None while there are too few bytes.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN_BYTES>() else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (raw, compressed) = (word(0) as usize, word(4) as usize);
        // LZ4 makes at most 255 bytes of one: what claims more is not unpacked.
        if compressed > raw || raw > FRAME_LEN_MAX_BYTES || raw / 256 > compressed {
            return Err(FrameError::Length { raw_bytes: raw, compressed_bytes: compressed });
        }
        Ok(Some(Self { raw, compressed, records: word(8), crc32c: word(12) }))
    }

    fn frame_len_bytes(&self) -> usize {
        HEADER_LEN_BYTES + self.compressed
    }
}

/// Takes records out of the frames of a piece, whose bytes come in whatever parts. No record is given before the checksum of
/// its frame was found right.
#[derive(Default)]
pub(crate) struct FrameReader {
    /// Bytes still to be taken.
    packed: Bytes,
    /// The beginning of a frame that goes on in the next part.
    begun: Vec<u8>,
    /// The frame that is being taken.
    raw: Vec<u8>,
    at: usize,
    left: u32,
    /// How many frames there were, and how many records they said that they hold.
    frames: u64,
    records: u64,
}

impl FrameReader {
    /// Adds the bytes that come next.
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        debug_assert!(self.packed.is_empty(), "the next bytes are wanted when all before are taken");
        self.packed = bytes;
    }

    /// The next record; none when more bytes are needed, or at the end.
    ///
    /// # Errors
    /// When the bytes are not frames of such records.
    #[inline]
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        while self.left == 0 {
            if self.at < self.raw.len() {
                return Err(FrameError::Records(format!("{} bytes too many", self.raw.len() - self.at)));
            }
            if !self.unpack()? {
                return Ok(None);
            }
        }
        let mut rest = &self.raw[self.at..];
        let record = records::take(&mut rest).map_err(|error| FrameError::Records(error.to_string()))?;
        self.at = self.raw.len() - rest.len();
        self.left -= 1;
        Ok(Some(record))
    }

    /// The next frame as it was filled, with how many records it holds; none when more bytes are needed, or at the end.
    ///
    /// # Errors
    /// When the bytes are not frames.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u32, Bytes)>, FrameError> {
        if !self.unpack()? {
            return Ok(None);
        }
        let mut raw = Bytes::from(std::mem::take(&mut self.raw));
        let frame = raw.split_off(std::mem::take(&mut self.at));
        Ok(Some((std::mem::take(&mut self.left), frame)))
    }

    /// Accepts that no more bytes of the piece come, and says how many records it had; the next piece may follow.
    ///
    /// # Errors
    /// When they end within a frame.
    pub(crate) fn finish(&mut self) -> Result<u64, FrameError> {
        if !self.begun.is_empty() {
            let header = FrameHeader::decode(&self.begun)?;
            return Err(FrameError::Cut {
                expected_bytes: header.map_or(HEADER_LEN_BYTES, |header| header.frame_len_bytes()),
                found_bytes: self.begun.len(),
            });
        }
        self.frames = 0;
        Ok(std::mem::take(&mut self.records))
    }

    /// How much memory it takes.
    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.raw.capacity() + self.begun.capacity() + self.packed.len()
    }

    /// Unpacks the next frame, if all of it is there.
    fn unpack(&mut self) -> Result<bool, FrameError> {
        empty(&mut self.raw, BUFFER_LEN_BYTES);
        self.at = 0;
        if self.begun.is_empty()
            && let Some(header) = FrameHeader::decode(&self.packed)?
            && self.packed.len() >= header.frame_len_bytes()
        {
            let frame = self.packed.split_to(header.frame_len_bytes());
            return self.open(header, &frame).map(|()| true);
        }
        loop {
            let header = FrameHeader::decode(&self.begun)?;
            let len = header.map_or(HEADER_LEN_BYTES, |header| header.frame_len_bytes());
            if let Some(header) = header
                && self.begun.len() == len
            {
                let mut frame = std::mem::take(&mut self.begun);
                if header.compressed == header.raw {
                    // It stands there as it is.
                    self.check(header, &frame)?;
                    self.begun = std::mem::replace(&mut self.raw, frame);
                    self.at = HEADER_LEN_BYTES;
                } else {
                    self.open(header, &frame)?;
                    empty(&mut frame, BUFFER_LEN_BYTES);
                    self.begun = frame;
                }
                return Ok(true);
            }
            if self.packed.is_empty() {
                return Ok(false);
            }
            let more = self.packed.split_to((len - self.begun.len()).min(self.packed.len()));
            // No more room than the frame takes, and none for what only a damaged header claims.
            let grown = len.min((2 * self.begun.len()).max(BUFFER_LEN_BYTES)).max(self.begun.len() + more.len());
            self.begun.reserve_exact(grown - self.begun.len());
            self.begun.extend_from_slice(&more);
        }
    }

    /// Checks a frame.
    fn check(&mut self, header: FrameHeader, frame: &[u8]) -> Result<(), FrameError> {
        let found = checksum(self.frames, frame);
        if found != header.crc32c {
            return Err(FrameError::Checksum { expected: header.crc32c, found });
        }
        self.frames += 1;
        self.records += u64::from(header.records);
        self.left = header.records;
        Ok(())
    }

    /// Checks a frame and unpacks it.
    fn open(&mut self, header: FrameHeader, frame: &[u8]) -> Result<(), FrameError> {
        self.check(header, frame)?;
        let block = &frame[HEADER_LEN_BYTES..];
        if header.compressed == header.raw {
            self.raw.extend_from_slice(block);
        } else {
            self.raw.resize(header.raw, 0);
            let len = lz4_flex::block::decompress_into(block, &mut self.raw)
                .map_err(|error| FrameError::Packed(error.to_string()))?;
            if len != header.raw {
                return Err(FrameError::Packed(format!("{len} bytes instead of {}", header.raw)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(values: &[(String, u64)], frame_bytes: usize) -> Vec<u8> {
        let (mut out, mut buffer) = (Vec::new(), FrameBuffer::default());
        for value in values {
            buffer.push(value).unwrap();
            if buffer.is_full(frame_bytes) {
                buffer.finish(frame_bytes, &mut out);
            }
        }
        buffer.finish(frame_bytes, &mut out);
        out
    }

    /// What stands in `bytes`, of which `part_bytes` come at a time.
    fn unpacked_in_parts(bytes: &[u8], part_bytes: usize) -> Result<Vec<(String, u64)>, FrameError> {
        let (mut reader, mut values) = (FrameReader::default(), Vec::new());
        for part in bytes.chunks(part_bytes) {
            reader.feed(Bytes::copy_from_slice(part));
            while let Some(value) = reader.next()? {
                values.push(value);
            }
        }
        assert_eq!(reader.finish()?, values.len() as u64);
        Ok(values)
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<(String, u64)>, FrameError> {
        unpacked_in_parts(bytes, bytes.len().max(1))
    }

    /// A first frame with its checksum, the four bytes behind the first twelve.
    fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
        frame.splice(12..12, [0; 4]);
        let crc = checksum(0, &frame);
        frame[12..16].copy_from_slice(&crc.to_le_bytes());
        frame
    }

    #[test]
    fn golden() {
        assert_eq!(
            packed(&[("ab".to_owned(), 1), ("c".to_owned(), 300)], 1 << 10),
            sealed(vec![8, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 2, b'a', b'b', 1, 1, b'c', 0xac, 2])
        );
        // How well LZ4 packs may change, how it unpacks may not.
        let repeated = [102, 0, 0, 0, 13, 0, 0, 0, 1, 0, 0, 0, 47, 100, 97, 1, 0, 75, 96, 97, 97, 97, 97, 97, 1];
        assert_eq!(unpacked(&sealed(repeated.to_vec())).unwrap(), [("a".repeat(100), 1)]);
        assert_eq!(checksum(0, &sealed(repeated.to_vec())), 0xee6ff5c3);
    }

    #[test]
    fn what_is_packed_is_unpacked_at_every_frame_length_from_every_part() {
        let values: Vec<_> = (0..200).map(|n| ("word ".repeat(n % 7) + &n.to_string(), n as u64)).collect();
        for frame_bytes in [1, 10, 100, 1 << 20] {
            let bytes = packed(&values, frame_bytes);
            for part_bytes in [1, 7, 16, 100, 1 << 20] {
                assert_eq!(unpacked_in_parts(&bytes, part_bytes).unwrap(), values);
            }
        }
        assert_eq!(unpacked(&[]).unwrap(), []);
    }

    #[test]
    fn records_without_bytes_are_counted() {
        let (mut out, mut buffer) = (Vec::new(), FrameBuffer::default());
        for _ in 0..5 {
            buffer.push(&()).unwrap();
        }
        assert_eq!(buffer.finish(1 << 20, &mut out), 5);
        let mut reader = FrameReader::default();
        reader.feed(out.into());
        assert_eq!(std::iter::from_fn(|| reader.next::<()>().unwrap()).count(), 5);
    }

    #[test]
    fn frames_that_have_changed_places_are_found() {
        let values: Vec<_> = (0..50_u64).map(|n| (n.to_string(), n)).collect();
        let bytes = packed(&values, 64);
        let first = FrameHeader::decode(&bytes).unwrap().unwrap().frame_len_bytes();
        let second = FrameHeader::decode(&bytes[first..]).unwrap().unwrap().frame_len_bytes();
        let swapped = [&bytes[first..first + second], &bytes[..first], &bytes[first + second..]].concat();
        assert!(matches!(unpacked(&swapped), Err(FrameError::Checksum { .. })));
        assert!(matches!(unpacked(&bytes[first..]), Err(FrameError::Checksum { .. })), "the first is missing");
    }

    #[test]
    fn a_long_record_holds_no_more_memory_than_it_takes() {
        let (mut out, mut buffer) = (Vec::new(), FrameBuffer::default());
        let noise: Vec<u64> = (0..500_000).map(|n| crate::shuffle::hash_key(&n)).collect();
        buffer.push(&noise).unwrap();
        buffer.finish(64 << 10, &mut out);
        assert_eq!(buffer.capacity_bytes(), 0, "one long record must not hold its memory to the end");
        let mut reader = FrameReader::default();
        for part in out.chunks(100_000) {
            reader.feed(Bytes::copy_from_slice(part));
            let found = reader.next::<Vec<u64>>().unwrap();
            assert!(reader.capacity_bytes() <= out.len() + 100_000, "{} of {}", reader.capacity_bytes(), out.len());
            assert!(found.is_none_or(|found| found == noise));
        }
        assert!(reader.next::<Vec<u64>>().unwrap().is_none() && reader.capacity_bytes() == 0);
    }

    #[test]
    fn no_record_of_a_damaged_frame_is_given() {
        let values: Vec<_> = (0..50).map(|n| ("word ".repeat(n % 7), n as u64)).collect();
        let bytes = packed(&values, 64);
        for at in 0..bytes.len() {
            match unpacked(&bytes[..at]) {
                // Cut between two frames: the piece's own length shows that.
                Ok(found) => assert!(values.starts_with(&found) && found.len() < 50),
                Err(error) => assert!(matches!(error, FrameError::Cut { .. }), "{error}"),
            }
            for flip in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let mut reader = FrameReader::default();
                reader.feed(damaged.into());
                let found: Vec<(String, u64)> = std::iter::from_fn(|| reader.next().unwrap_or(None)).collect();
                assert!(values.starts_with(&found) && found.len() < 50, "a flip in byte {at}");
            }
        }
    }
}
