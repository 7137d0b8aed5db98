use std::path::{Path, PathBuf};

use super::JournalError;
use super::format::{Chain, FRAMES_AT, LogKey, NoHeader, SECTOR_LEN_BYTES, SegmentHeader, VERSION};
use super::reader::{Found, SegmentReader};
use crate::disk::{Disk, File, OpenMode};

/// What was found when a log was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The number of the first record that is there; one more than `last` if there is none.
    pub first: u64,
    /// The number of the last record; 0 if there never was one.
    pub last: u64,
    /// What a crash had left unfinished, and was cut off. None of it was ever acknowledged.
    pub cut: Option<TornTail>,
}

/// An unfinished end of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// In which file.
    pub segment: PathBuf,
    /// From where on.
    pub offset: u64,
    /// How many bytes.
    pub len_bytes: u64,
}

/// The end of a log, from where it goes on.
pub(super) struct Tail<F> {
    /// The numbers of the segments' first records.
    pub(super) segments: Vec<u64>,
    /// The last segment.
    pub(super) file: F,
    /// Where its next frame goes.
    pub(super) end: u64,
    /// Up to where it has zeros from there on.
    pub(super) allocated: u64,
    /// The number of the next record.
    pub(super) next: u64,
    /// The chain hash so far.
    pub(super) chain: Chain,
    /// What was cut off.
    pub(super) cut: Option<TornTail>,
}

/// What looks into the segments of a log.
pub(super) struct Inspector<'a, D> {
    pub(super) disk: &'a D,
    pub(super) directory: &'a Path,
    pub(super) log_id: [u8; 16],
    pub(super) key: &'a LogKey,
}

impl<D: Disk> Inspector<'_, D> {
    /// Finds the end of the log, and cuts off what a crash has left there. None if there is no log yet.
    pub(super) fn recover(&self) -> Result<Option<Tail<D::File>>, JournalError> {
        let mut segments = self.segments()?;
        let unfinished = self.check_headers(&segments)?;
        if unfinished.is_some() {
            segments.pop();
        }
        let Some(&newest) = segments.last() else {
            if let Some(unfinished) = unfinished {
                self.remove(unfinished)?;
            }
            return Ok(None);
        };
        let file = self.disk.open(&segment_path(self.directory, newest), OpenMode::Write)?;
        let mut tail = self.find_end(newest, file, segments, unfinished)?;
        if let Some(unfinished) = unfinished {
            let len_bytes = self.remove(unfinished)?;
            let segment = segment_path(self.directory, unfinished);
            tail.cut = (len_bytes > 0).then_some(TornTail { segment, offset: 0, len_bytes });
        }
        Ok(Some(tail))
    }

    /// The numbers of the first records of all segments, ascending.
    fn segments(&self) -> Result<Vec<u64>, JournalError> {
        let entries = self.disk.list(self.directory)?;
        let mut segments = entries.iter().filter_map(|entry| segment_first(&entry.name)).collect::<Vec<_>>();
        segments.sort_unstable();
        Ok(segments)
    }

    /// Checks that the segments belong together. Gives back the last one if a crash has kept it from being finished.
    fn check_headers(&self, segments: &[u64]) -> Result<Option<u64>, JournalError> {
        let mut previous = None;
        for (index, &first) in segments.iter().enumerate() {
            let file = self.disk.open(&segment_path(self.directory, first), OpenMode::Read)?;
            match self.header(&file, first)? {
                Some(header) if previous.is_some_and(|previous| previous != header.previous_first) => {
                    return Err(self.damaged(first, 0, header.first, "a segment before this one is missing"));
                }
                Some(_) => {}
                None => {
                    let is_last = index + 1 == segments.len();
                    // The only segment of a log whose beginning was dropped was finished long ago.
                    let is_fresh = index > 0 || first == FIRST_SEQUENCE;
                    // A header is on the disk before anything is written behind it.
                    if !is_last || !is_fresh || file.len()? > FRAMES_AT {
                        return Err(self.damaged(first, 0, first, "the segment has no valid header"));
                    }
                    return Ok(Some(first));
                }
            }
            previous = Some(first);
        }
        Ok(None)
    }

    /// The header of a segment; none if there is no valid one.
    pub(super) fn header(&self, file: &D::File, first: u64) -> Result<Option<SegmentHeader>, JournalError> {
        let bytes = file.read_at(0, usize::try_from(FRAMES_AT).unwrap_or(usize::MAX))?;
        match SegmentHeader::decode(&bytes) {
            Err(NoHeader::Invalid) => Ok(None),
            Err(NoHeader::UnknownVersion(found)) => Err(JournalError::UnknownVersion {
                segment: segment_path(self.directory, first),
                found,
                supported: VERSION,
            }),
            Ok(header) if header.log_id != self.log_id => Err(JournalError::Foreign {
                segment: segment_path(self.directory, first),
                found: header.log_id,
                expected: self.log_id,
            }),
            Ok(header) if header.first != first => {
                Err(self.damaged(first, 0, first, "the segment has the name of another one"))
            }
            Ok(header) => Ok(Some(header)),
        }
    }

    /// Reads the newest segment to its end.
    fn find_end(
        &self,
        newest: u64,
        file: D::File,
        segments: Vec<u64>,
        unfinished: Option<u64>,
    ) -> Result<Tail<D::File>, JournalError> {
        let header = self
            .header(&file, newest)?
            .ok_or_else(|| self.damaged(newest, 0, newest, "the segment has no valid header"))?;
        let len_bytes = file.len()?;
        let mut reader = SegmentReader::new(&file, self.key, newest, len_bytes);
        let (mut end, mut next, mut chain) = (FRAMES_AT, newest, header.chain);
        let mut last_at = 0;
        let (reason, search_from) = loop {
            match reader.frame(end, next, &chain)? {
                Found::Frame { header, chain: after, end: frame_end, .. } => {
                    last_at = end;
                    (end, next, chain) = (frame_end, next + u64::from(header.count), after);
                }
                Found::Nothing => break ("its frame has no valid header", end),
                Found::Broken { reason, search_from } => break (reason, search_from),
            }
        };
        let written_end = reader.written_end(end)?;
        if written_end.is_some() && (unfinished.is_some() || reader.has_later_frame(search_from, next)?) {
            return Err(self.damaged(newest, end, next, reason));
        }
        if let Some(first) = unfinished.filter(|first| *first != next) {
            return Err(self.damaged(first, 0, next, "a segment before this one is missing, or its end is"));
        }
        // The system may hold the last frame in memory and take it for written though it is not, after a failed sync or
        // a kill. Nobody may append after a frame that is not there.
        let last_len = usize::try_from(if last_at == 0 { FRAMES_AT } else { end - last_at }).unwrap_or(usize::MAX);
        let last = reader.bytes(last_at, last_len)?;
        file.write_at(last_at, &last)?;
        let mut allocated = len_bytes;
        let mut cut = None;
        if let Some(written_end) = written_end {
            file.set_len(end)?;
            allocated = end;
            let segment = segment_path(self.directory, newest);
            cut = Some(TornTail { segment, offset: end, len_bytes: written_end - end });
        }
        file.sync()?;
        self.disk.sync_directory(self.directory)?;
        Ok(Tail { segments, file, end, allocated, next, chain, cut })
    }

    /// Removes a segment that was never finished; gives back its length.
    fn remove(&self, first: u64) -> Result<u64, JournalError> {
        let path = segment_path(self.directory, first);
        let len_bytes = self.disk.open(&path, OpenMode::Read)?.len()?;
        self.disk.remove_file(&path)?;
        self.disk.sync_directory(self.directory)?;
        Ok(len_bytes)
    }

    pub(super) fn damaged(&self, segment: u64, offset: u64, sequence: u64, reason: &'static str) -> JournalError {
        JournalError::Damaged { segment: segment_path(self.directory, segment), offset, sequence, reason }
    }
}

/// The file of the segment whose first record has that number.
pub(super) fn segment_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{SEGMENT_PREFIX}{first:020}"))
}

/// The number of the first record of the segment with that name; none if it is no segment's name.
fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The number of the first record of a log.
pub(super) const FIRST_SEQUENCE: u64 = 1;
const SEGMENT_PREFIX: &str = "segment-";
const _: () = assert!(FRAMES_AT.is_multiple_of(SECTOR_LEN_BYTES), "frames begin at sectors");
