use bytes::Bytes;

use super::format::{Chain, FRAME_HEADER_LEN_BYTES, FrameHeader, LogKey, Place, SECTOR_LEN_BYTES};
use crate::disk::{DiskError, File};

/// Reads the frames of one segment.
pub(super) struct SegmentReader<'a, F> {
    file: &'a F,
    key: &'a LogKey,
    segment_first: u64,
    /// Up to where there is something to read.
    len_bytes: u64,
    /// What was read last, and from where.
    window: Bytes,
    window_at: u64,
}

/// What is at some place.
pub(super) enum Found {
    /// A frame as it was written.
    Frame {
        header: FrameHeader,
        payload: Bytes,
        /// The chain hash after it.
        chain: Chain,
        /// Where the next one begins.
        end: u64,
    },
    /// Zeros where a header would be, or the end of the file.
    Nothing,
    /// Something else.
    Broken {
        reason: &'static str,
        /// From where on a later frame can be.
        search_from: u64,
    },
}

impl<'a, F: File> SegmentReader<'a, F> {
    pub(super) fn new(file: &'a F, key: &'a LogKey, segment_first: u64, len_bytes: u64) -> Self {
        Self { file, key, segment_first, len_bytes, window: Bytes::new(), window_at: 0 }
    }

    /// What is at `at`, where the frame that begins with record `first` is expected.
    pub(super) fn frame(&mut self, at: u64, first: u64, chain: &Chain) -> Result<Found, DiskError> {
        let bytes = self.bytes(at, FRAME_HEADER_LEN_BYTES)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Found::Nothing);
        }
        let Some(header) = self.key.decode_header(&bytes, self.place(at)) else {
            return Ok(Found::Broken { reason: "its frame has no valid header", search_from: at });
        };
        if header.first != first {
            return Ok(Found::Broken { reason: "another record is in its place", search_from: at });
        }
        let end = at + header.frame_len_bytes();
        let frame = self.bytes(at, usize::try_from(header.frame_len_bytes()).unwrap_or(usize::MAX))?;
        Ok(match header.open(&frame, chain) {
            Some((payload, chain)) => Found::Frame { header, payload, chain, end },
            None => Found::Broken { reason: "its frame is not what was written", search_from: end },
        })
    }

    /// Whether, from `from` on, there is the header of a frame later than the one that begins with record `first`.
    pub(super) fn has_later_frame(&mut self, from: u64, first: u64) -> Result<bool, DiskError> {
        let mut at = from;
        while at < self.len_bytes {
            let bytes = self.bytes(at, FRAME_HEADER_LEN_BYTES)?;
            if self.key.decode_header(&bytes, self.place(at)).is_some_and(|header| header.first > first) {
                return Ok(true);
            }
            at += SECTOR_LEN_BYTES;
        }
        Ok(false)
    }

    /// The end of the last byte from `from` on that is not zero.
    pub(super) fn written_end(&mut self, from: u64) -> Result<Option<u64>, DiskError> {
        let mut end = None;
        let mut at = from;
        while at < self.len_bytes {
            let bytes = self.bytes(at, WINDOW_LEN_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = Some(at + last as u64 + 1);
            }
            at += bytes.len() as u64;
        }
        Ok(end)
    }

    /// Up to `len` bytes at `at`; fewer where the segment ends.
    pub(super) fn bytes(&mut self, at: u64, len: usize) -> Result<Bytes, DiskError> {
        let there = usize::try_from(self.len_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(there);
        let start = at.checked_sub(self.window_at).and_then(|start| usize::try_from(start).ok());
        if let Some(start) = start
            && start.saturating_add(len) <= self.window.len()
        {
            return Ok(self.window.slice(start..start + len));
        }
        self.window = self.file.read_at(at, len.max(WINDOW_LEN_BYTES).min(there))?;
        self.window_at = at;
        Ok(self.window.slice(..len.min(self.window.len())))
    }

    fn place(&self, offset: u64) -> Place {
        Place { segment_first: self.segment_first, offset }
    }
}

/// How much is read at once.
const WINDOW_LEN_BYTES: usize = 1 << 20;
