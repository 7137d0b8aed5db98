use bytes::{Buf, BufMut, Bytes};

/// The longest record.
pub const RECORD_LEN_BYTES: usize = 16 << 20;
/// The most that all records of one append may be together, with 4 bytes more for each.
pub const FRAME_LEN_BYTES: usize = 64 << 20;

/// The version that is written and read.
pub(super) const VERSION: u32 = 1;
/// What a disk writes in one step, or a part of it. Frames begin at multiples of it.
pub(super) const SECTOR_LEN_BYTES: u64 = 512;
/// Where a segment's first frame is.
pub(super) const FRAMES_AT: u64 = SECTOR_LEN_BYTES;
/// The length of a frame's header.
pub(super) const FRAME_HEADER_LEN_BYTES: usize = CHECKED_LEN_BYTES + CHECK_LEN_BYTES;
/// The length of a chain hash.
pub(super) const CHAIN_LEN_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"SITULOG1";
const FRAME_MAGIC: [u8; 4] = *b"SFRM";
/// How much of a frame's header comes before its check.
const CHECKED_LEN_BYTES: usize = 24;
const CHECK_LEN_BYTES: usize = 16;
const HEADER_LEN_BYTES: usize = 512;
const HEADER_HASH_AT: usize = HEADER_LEN_BYTES - blake3::OUT_LEN;

const _: () = assert!(HEADER_LEN_BYTES as u64 == FRAMES_AT, "frames begin behind the segment's header");
const _: () = assert!(RECORD_LEN_BYTES + 4 <= FRAME_LEN_BYTES, "the longest record fits into a frame");
const _: () = assert!(FRAME_LEN_BYTES < u32::MAX as usize, "a frame's length fits into its header");

/// How much one record lets a log grow at most: alone in its frame, which begins a segment.
#[must_use]
pub fn growth_len_bytes(record_len_bytes: usize) -> u64 {
    let frame_len_bytes = FRAME_HEADER_LEN_BYTES + 4 + record_len_bytes + CHAIN_LEN_BYTES;
    FRAMES_AT + (frame_len_bytes as u64).next_multiple_of(SECTOR_LEN_BYTES)
}

/// The hash of all that the log ever held, up to some frame.
pub(super) type Chain = [u8; CHAIN_LEN_BYTES];

/// What a segment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) log_id: [u8; 16],
    pub(super) first: u64,
    /// 0 if there never was one.
    pub(super) previous_first: u64,
    pub(super) chain: Chain,
}

/// Why there is no segment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoHeader {
    UnknownVersion(u32),
    Invalid,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES);
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u32_le(0);
        bytes.put_slice(&self.log_id);
        bytes.put_u64_le(self.first);
        bytes.put_u64_le(self.previous_first);
        bytes.put_slice(&self.chain);
        bytes.resize(HEADER_HASH_AT, 0);
        let hash = blake3::hash(&bytes);
        bytes.put_slice(hash.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let version = bytes.strip_prefix(&MAGIC).and_then(|mut rest| rest.try_get_u32_le().ok());
        match version {
            None => return Err(NoHeader::Invalid),
            Some(VERSION) => {}
            Some(version) => return Err(NoHeader::UnknownVersion(version)),
        }
        let (Some(hashed), Some(hash)) = (bytes.get(..HEADER_HASH_AT), bytes.get(HEADER_HASH_AT..HEADER_LEN_BYTES))
        else {
            return Err(NoHeader::Invalid);
        };
        if hash != blake3::hash(hashed).as_bytes() {
            return Err(NoHeader::Invalid);
        }
        let mut fields = &hashed[MAGIC.len() + 8..];
        let mut log_id = [0; 16];
        fields.copy_to_slice(&mut log_id);
        let (first, previous_first) = (fields.get_u64_le(), fields.get_u64_le());
        let mut chain = [0; CHAIN_LEN_BYTES];
        fields.copy_to_slice(&mut chain);
        Ok(Self { log_id, first, previous_first, chain })
    }
}

/// What a frame begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHeader {
    /// The length of the payload.
    pub(super) len_bytes: u32,
    /// The number of its first record.
    pub(super) first: u64,
    /// How many records it holds.
    pub(super) count: u32,
}

/// Where a frame is, which its header's check covers: a frame in a wrong place is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment_first: u64,
    pub(super) offset: u64,
}

/// What depends on the log's id.
#[derive(Clone, Debug)]
pub(super) struct LogKey {
    check: [u8; blake3::KEY_LEN],
    start: Chain,
}

impl LogKey {
    pub(super) fn new(log_id: [u8; 16]) -> Self {
        Self {
            check: blake3::derive_key("situ 2026 journal: frame header", &log_id),
            start: blake3::derive_key("situ 2026 journal: start of the chain", &log_id),
        }
    }

    /// The chain hash of the empty log.
    pub(super) fn start(&self) -> Chain {
        self.start
    }

    fn check(&self, header: &[u8], place: Place) -> [u8; CHECK_LEN_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.check);
        hasher.update(header).update(&place.segment_first.to_le_bytes()).update(&place.offset.to_le_bytes());
        let mut check = [0; CHECK_LEN_BYTES];
        hasher.finalize_xof().fill(&mut check);
        check
    }

    /// Makes `frame` the frame of these records, padded to whole sectors; gives back the chain hash after it. The records
    /// are within bounds.
    pub(super) fn encode_frame(
        &self,
        frame: &mut Vec<u8>,
        records: &[Bytes],
        first: u64,
        place: Place,
        chain: &Chain,
    ) -> Chain {
        let len = |len: usize| u32::try_from(len).expect("bounds were checked before");
        frame.clear();
        frame.put_slice(&FRAME_MAGIC);
        frame.put_u32_le(len(payload_len(records)));
        frame.put_u64_le(first);
        frame.put_u32_le(len(records.len()));
        frame.put_u32_le(0);
        let check = self.check(&frame[..CHECKED_LEN_BYTES], place);
        frame.put_slice(&check);
        for record in records {
            frame.put_u32_le(len(record.len()));
            frame.put_slice(record);
        }
        let chain = chain_after(chain, frame, &frame[FRAME_HEADER_LEN_BYTES..]);
        frame.put_slice(&chain);
        frame.resize(frame.len().next_multiple_of(HEADER_LEN_BYTES), 0);
        chain
    }

    /// The header at the beginning of `bytes`, if there is one that belongs in that place.
    pub(super) fn decode_header(&self, bytes: &[u8], place: Place) -> Option<FrameHeader> {
        let (header, rest) = bytes.split_at_checked(CHECKED_LEN_BYTES)?;
        let check = rest.get(..CHECK_LEN_BYTES)?;
        if !header.starts_with(&FRAME_MAGIC) || check != self.check(header, place) {
            return None;
        }
        let mut fields = &header[FRAME_MAGIC.len()..];
        let header =
            FrameHeader { len_bytes: fields.get_u32_le(), first: fields.get_u64_le(), count: fields.get_u32_le() };
        (header.len_bytes as usize <= FRAME_LEN_BYTES && header.count > 0).then_some(header)
    }
}

impl FrameHeader {
    /// The length of the whole frame, with what pads it.
    pub(super) fn frame_len_bytes(&self) -> u64 {
        let len = FRAME_HEADER_LEN_BYTES as u64 + u64::from(self.len_bytes) + CHAIN_LEN_BYTES as u64;
        len.next_multiple_of(SECTOR_LEN_BYTES)
    }

    /// The payload and the chain hash after it, if the whole `frame` is as it was written.
    pub(super) fn open(&self, frame: &Bytes, chain: &Chain) -> Option<(Bytes, Chain)> {
        let payload_end = FRAME_HEADER_LEN_BYTES + self.len_bytes as usize;
        let chain_end = payload_end + CHAIN_LEN_BYTES;
        if frame.len() as u64 != self.frame_len_bytes() || frame[chain_end..].iter().any(|byte| *byte != 0) {
            return None;
        }
        let payload = frame.slice(FRAME_HEADER_LEN_BYTES..payload_end);
        let chain = chain_after(chain, frame, &payload);
        (frame[payload_end..chain_end] == chain).then_some((payload, chain))
    }
}

/// How long the payload of a frame with these records is.
pub(super) fn payload_len(records: &[Bytes]) -> usize {
    records.iter().map(|record| 4 + record.len()).sum()
}

/// The records of a payload; none where it is not made of records.
pub(super) fn records(mut payload: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let record = payload.try_get_u32_le().ok().and_then(|len| payload.split_at_checked(len as usize));
        payload = record.map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record))
    })
}

fn chain_after(chain: &Chain, frame: &[u8], payload: &[u8]) -> Chain {
    *blake3::Hasher::new().update(chain).update(&frame[..CHECKED_LEN_BYTES]).update(payload).finalize().as_bytes()
}
