use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::JournalError;
use super::format::{
    Chain, FRAME_LEN_BYTES, FRAMES_AT, LogKey, Place, RECORD_LEN_BYTES, SegmentHeader, payload_len, records,
};
use super::reader::{Found, SegmentReader};
use super::recovery::{FIRST_SEQUENCE, Inspector, Opened, segment_path};
use crate::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode, Space};

/// An append-only log in a directory that nobody else uses. See the [module](super) for what it promises.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    directory: PathBuf,
    options: JournalOptions,
    key: LogKey,
    /// The numbers of the segments' first records, ascending; never empty.
    segments: Vec<u64>,
    /// The last segment.
    file: D::File,
    /// Where its next frame goes.
    end: u64,
    /// Up to where it has zeros from there on.
    allocated: u64,
    /// The number of the next record.
    next: u64,
    /// The chain hash so far.
    chain: Chain,
    /// Where frames are made.
    frame: Vec<u8>,
    /// What went wrong, once something has.
    poisoned: Option<String>,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Whose log it is, and which of theirs: a segment of another log is refused.
    pub log_id: [u8; 16],
    /// How long a segment may become before the next one is begun. A frame that is longer gets a segment of its own.
    pub segment_len_bytes: u64,
    /// How much is written ahead at a time.
    pub preallocate_len_bytes: u64,
}

impl JournalOptions {
    /// The options of the log with that id, with sizes that serve most.
    #[must_use]
    pub fn new(log_id: [u8; 16]) -> Self {
        Self { log_id, segment_len_bytes: 64 << 20, preallocate_len_bytes: 4 << 20 }
    }
}

impl<D: Disk> Journal<D> {
    /// Opens the log in `directory`, or begins one there. The newest segment is read and checked, of the others the
    /// headers: their frames are checked by [`Journal::replay`].
    ///
    /// # Errors
    /// When it is damaged, is another log, has another version, or the disk fails.
    pub fn open(disk: D, directory: &Path, options: JournalOptions) -> Result<(Self, Opened), JournalError> {
        disk.create_directory(directory)?;
        let key = LogKey::new(options.log_id);
        let inspector = Inspector { disk: &disk, directory, log_id: options.log_id, key: &key };
        let found = inspector.recover()?;
        let (segments, file, end, allocated, next, chain, cut) = match found {
            Some(tail) => (tail.segments, tail.file, tail.end, tail.allocated, tail.next, tail.chain, tail.cut),
            None => {
                let chain = key.start();
                let header = SegmentHeader { log_id: options.log_id, first: FIRST_SEQUENCE, previous_first: 0, chain };
                let file = begin_segment(&disk, directory, &header)?;
                (vec![FIRST_SEQUENCE], file, FRAMES_AT, FRAMES_AT, FIRST_SEQUENCE, chain, None)
            }
        };
        let opened = Opened { first: segments[0], last: next - 1, cut };
        let directory = directory.to_owned();
        let (frame, poisoned) = (Vec::new(), None);
        let journal =
            Self { disk, directory, options, key, segments, file, end, allocated, next, chain, frame, poisoned };
        Ok((journal, opened))
    }

    /// The number of the first record that is there; one more than [`Journal::last`] if there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments[0]
    }

    /// The number of the last record; 0 if there never was one.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// How much more the log can take: what its disk has free, and what is written ahead.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn room(&self) -> Result<Space, DiskError> {
        let space = self.disk.space(&self.directory)?;
        Ok(Space { free_bytes: space.free_bytes.saturating_add(self.allocated.saturating_sub(self.end)), ..space })
    }

    /// Gives all records from number `from` on to `each`, in order, with their numbers, and checks every frame on the
    /// way.
    ///
    /// # Errors
    /// When records are damaged, were dropped, or the disk fails; or what `each` says: it ends there.
    pub fn replay<E: From<JournalError>>(
        &self,
        from: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if from < self.first() {
            let (directory, first) = (self.directory.clone(), self.first());
            return Err(JournalError::Dropped { directory, wanted: from, first }.into());
        }
        let begin = self.segments.partition_point(|first| *first <= from) - 1;
        let mut chain = None;
        for index in begin..self.segments.len() {
            chain = Some(self.replay_segment(index, from, chain, &mut each)?);
        }
        Ok(())
    }

    /// Replays one segment, which must go on from `chain` if that is known; gives back the chain hash after it.
    fn replay_segment<E: From<JournalError>>(
        &self,
        index: usize,
        from: u64,
        chain: Option<Chain>,
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Chain, E> {
        let inspector =
            Inspector { disk: &self.disk, directory: &self.directory, log_id: self.options.log_id, key: &self.key };
        let first = self.segments[index];
        let (opened, len_bytes);
        let (file, segment_end) = match self.segments.get(index + 1) {
            None => {
                len_bytes = self.end;
                (&self.file, self.next)
            }
            Some(next) => {
                let path = segment_path(&self.directory, first);
                opened = self.disk.open(&path, OpenMode::Read).map_err(JournalError::from)?;
                len_bytes = opened.len().map_err(JournalError::from)?;
                (&opened, *next)
            }
        };
        let damaged = |offset, sequence, reason| E::from(inspector.damaged(first, offset, sequence, reason));
        let header = inspector.header(file, first)?;
        let header = header.ok_or_else(|| damaged(0, first, "the segment has no valid header"))?;
        if chain.is_some_and(|chain| chain != header.chain) {
            return Err(damaged(0, first, "the segment does not continue the one before"));
        }
        let mut reader = SegmentReader::new(file, &self.key, first, len_bytes);
        let (mut at, mut next, mut chain) = (FRAMES_AT, first, header.chain);
        while next < segment_end {
            match reader.frame(at, next, &chain).map_err(JournalError::from)? {
                Found::Nothing => return Err(damaged(at, next, "there is nothing")),
                Found::Broken { reason, .. } => return Err(damaged(at, next, reason)),
                Found::Frame { header, payload, chain: after, end } => {
                    let frame_end = next + u64::from(header.count);
                    let mut sequence = next;
                    for record in records(&payload) {
                        let record = record.ok_or_else(|| damaged(at, sequence, "its frame is not made of records"))?;
                        if sequence >= from {
                            each(sequence, record)?;
                        }
                        sequence += 1;
                    }
                    if sequence != frame_end || frame_end > segment_end {
                        return Err(damaged(at, sequence, "its frame has another number of records"));
                    }
                    (at, next, chain) = (end, frame_end, after);
                }
            }
        }
        Ok(chain)
    }

    /// Appends records and waits until they are on the disk, with one sync; gives back the number of the last.
    ///
    /// # Errors
    /// When they are too long, which changes nothing; when the disk fails, after which the journal is poisoned and what
    /// is there shows only when it is opened again; when it is poisoned.
    pub fn append(&mut self, records: &[Bytes]) -> Result<u64, JournalError> {
        if let Some(reason) = &self.poisoned {
            return Err(JournalError::Poisoned { directory: self.directory.clone(), reason: reason.clone() });
        }
        if records.is_empty() {
            return Ok(self.last());
        }
        within("a record", records.iter().map(Bytes::len).max().unwrap_or(0), RECORD_LEN_BYTES)?;
        within("a batch of records", payload_len(records), FRAME_LEN_BYTES)?;
        self.write(records).inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    fn write(&mut self, records: &[Bytes]) -> Result<u64, JournalError> {
        let mut chain = self.encode(records);
        if self.end > FRAMES_AT && self.end + self.frame.len() as u64 > self.options.segment_len_bytes {
            self.roll()?;
            chain = self.encode(records);
        }
        let end = self.end + self.frame.len() as u64;
        self.file.write_at(self.end, &self.frame)?;
        if end > self.allocated {
            // Not before the frame: on a disk that is almost full it would take the room of that.
            self.preallocate(end)?;
        }
        self.file.sync()?;
        self.end = end;
        self.chain = chain;
        self.next += records.len() as u64;
        if self.frame.capacity() > FRAME_KEPT_LEN_BYTES {
            self.frame = Vec::new();
        }
        Ok(self.last())
    }

    /// Makes the frame of `records` for where the log ends; gives back the chain hash after it.
    fn encode(&mut self, records: &[Bytes]) -> Chain {
        let place = Place { segment_first: self.newest(), offset: self.end };
        self.key.encode_frame(&mut self.frame, records, self.next, place, &self.chain)
    }

    fn newest(&self) -> u64 {
        *self.segments.last().expect("a log always has a segment")
    }

    /// Begins the next segment.
    fn roll(&mut self) -> Result<(), JournalError> {
        // What was written ahead is not needed there any more.
        self.file.set_len(self.end)?;
        let header = SegmentHeader {
            log_id: self.options.log_id,
            first: self.next,
            previous_first: self.newest(),
            chain: self.chain,
        };
        self.file = begin_segment(&self.disk, &self.directory, &header)?;
        self.segments.push(self.next);
        (self.end, self.allocated) = (FRAMES_AT, FRAMES_AT);
        Ok(())
    }

    /// Writes zeros from `from`, where the frame that is being written ends, on ahead: to overwrite blocks costs a sync half of what it
    /// costs to append them. The sync of that frame carries them.
    fn preallocate(&mut self, from: u64) -> Result<(), JournalError> {
        let to = (from + self.options.preallocate_len_bytes).min(self.options.segment_len_bytes.max(from));
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
            match self.file.write_at(at, &ZEROS[..len]) {
                Ok(()) => at += len as u64,
                // What there is, later frames have.
                Err(error) if error.kind == DiskErrorKind::Full => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.allocated = at;
        Ok(())
    }

    /// Drops whole segments that hold only records before number `sequence`; the newest one always stays. After a crash
    /// some of them may be there again, never with a gap.
    ///
    /// # Errors
    /// When the disk fails; what was not dropped can be dropped later.
    pub fn drop_before(&mut self, sequence: u64) -> Result<(), JournalError> {
        while self.segments.get(1).is_some_and(|second| *second <= sequence) {
            self.disk.remove_file(&segment_path(&self.directory, self.segments[0]))?;
            self.segments.remove(0);
            // One by one: none may outlive a later one.
            self.disk.sync_directory(&self.directory)?;
        }
        Ok(())
    }
}

/// Makes the file of a segment. It is on the disk, with its name, before anything is written into it.
fn begin_segment<D: Disk>(disk: &D, directory: &Path, header: &SegmentHeader) -> Result<D::File, JournalError> {
    let file = disk.open(&segment_path(directory, header.first), OpenMode::CreateNew)?;
    file.write_at(0, &header.encode())?;
    file.sync()?;
    disk.sync_directory(directory)?;
    Ok(file)
}

fn within(what: &'static str, found_bytes: usize, limit_bytes: usize) -> Result<(), JournalError> {
    if found_bytes > limit_bytes {
        return Err(JournalError::TooLong { what, found_bytes, limit_bytes });
    }
    Ok(())
}

/// What is written ahead.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// How large the place where frames are made may stay.
const FRAME_KEPT_LEN_BYTES: usize = 1 << 20;
