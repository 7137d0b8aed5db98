//! The journal of jobs.
//!
//! Every [`JobRecord`] is one record of a [`Journal`], encoded as its variant's number and fields in postcard; the journal
//! frames, hashes and versions them. When much has been appended, a snapshot is appended too, which repeats all that is
//! still remembered, and the segments before it are dropped. Records may be read twice then, which changes nothing.

use std::path::Path;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::disk::Disk;
use situ_runtime::journal::{Journal, JournalOptions};
use situ_wire::codec;
use situ_wire::ids::ClusterId;
use tokio::sync::mpsc;

use super::SchedulerError;
use super::server::ToOwner;
use crate::core::{JobRecord, RecordId};

/// How long a segment becomes.
const SEGMENT_LEN_BYTES: u64 = 16 << 20;
/// How much is written ahead.
const AHEAD_LEN_BYTES: u64 = 1 << 20;
/// When so much has been appended since the last snapshot, there is another one; but not before as much as that one was, or
/// the journal would hold more repetitions than news.
const SNAPSHOT_EVERY_LEN_BYTES: u64 = 128 << 20;
/// The most that is appended with one sync.
const BATCH_LEN_BYTES: usize = 32 << 20;

/// What the journal's task is told, in order.
#[derive(Debug)]
pub(super) enum ToLog {
    /// Append this and say when it is on the disk.
    Append(RecordId, Box<JobRecord>),
    /// Append this, which repeats all that counts, and drop what stands before.
    Snapshot(Vec<JobRecord>),
}

/// The journal of jobs, with its disk. Its calls block.
pub(super) struct JobLog<D: Disk> {
    journal: Journal<D>,
    /// How much was appended since the last snapshot.
    appended_len_bytes: u64,
    /// How long that was.
    snapshot_len_bytes: u64,
    snapshot_every_len_bytes: u64,
}

impl<D: Disk> JobLog<D> {
    /// Opens the journal in `directory`, or begins one; and all its records.
    pub(super) fn open(
        disk: D,
        directory: &Path,
        cluster: ClusterId,
    ) -> Result<(Self, Vec<JobRecord>), SchedulerError> {
        let options = JournalOptions {
            segment_len_bytes: SEGMENT_LEN_BYTES,
            preallocate_len_bytes: AHEAD_LEN_BYTES,
            ..JournalOptions::new(cluster.0.to_be_bytes())
        };
        let (journal, opened) = Journal::open(disk, directory, options)?;
        if let Some(cut) = opened.cut {
            tracing::info!(?cut, "cut off what a crash had left unfinished in the journal of jobs");
        }
        let mut records = Vec::new();
        let mut appended_len_bytes = 0;
        journal.replay(opened.first, |sequence, bytes| {
            appended_len_bytes += bytes.len() as u64;
            records.push(decode(sequence, bytes)?);
            Ok::<_, SchedulerError>(())
        })?;
        let snapshot_every_len_bytes = SNAPSHOT_EVERY_LEN_BYTES;
        Ok((Self { journal, appended_len_bytes, snapshot_len_bytes: 0, snapshot_every_len_bytes }, records))
    }

    /// Appends records and waits until they are on the disk.
    fn append(&mut self, records: &[JobRecord]) -> Result<(), SchedulerError> {
        let mut batch = Vec::new();
        let mut len = 0;
        for record in records {
            let bytes = encode(record)?;
            if len + bytes.len() > BATCH_LEN_BYTES {
                self.journal.append(&std::mem::take(&mut batch))?;
                len = 0;
            }
            len += bytes.len();
            self.appended_len_bytes += bytes.len() as u64;
            batch.push(bytes);
        }
        self.journal.append(&batch)?;
        Ok(())
    }

    fn snapshot(&mut self, records: &[JobRecord]) -> Result<(), SchedulerError> {
        let first = self.journal.last() + 1;
        self.appended_len_bytes = 0;
        self.append(records)?;
        self.journal.drop_before(first)?;
        self.snapshot_len_bytes = std::mem::take(&mut self.appended_len_bytes);
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        self.appended_len_bytes > self.snapshot_every_len_bytes.max(self.snapshot_len_bytes)
    }
}

/// Appends what the owner says, all that waits with one sync; ends when the owner is gone, or with what went wrong.
pub(super) async fn write<R: Runtime>(
    runtime: R,
    mut log: JobLog<R::Disk>,
    mut inbox: mpsc::UnboundedReceiver<ToLog>,
    owner: mpsc::Sender<ToOwner>,
) {
    let mut asked = false;
    while let Some(first) = inbox.recv().await {
        let mut work = vec![first];
        while let Ok(more) = inbox.try_recv() {
            work.push(more);
        }
        let done = runtime.blocking(move || {
            let result = carry_out(&mut log, work);
            (log, result)
        });
        let (back, result) = done.await;
        log = back;
        let message = match result {
            Ok(Done { synced, snapshot }) => {
                asked &= !snapshot;
                synced.map(ToOwner::Synced)
            }
            Err(error) => Some(ToOwner::Failed(error)),
        };
        if let Some(message) = message
            && owner.send(message).await.is_err()
        {
            return;
        }
        if !asked && log.wants_snapshot() {
            asked = true;
            // The owner is gone: nothing is left to do.
            let _ = owner.send(ToOwner::Snapshot).await;
        }
    }
}

struct Done {
    synced: Option<RecordId>,
    snapshot: bool,
}

fn carry_out<D: Disk>(log: &mut JobLog<D>, work: Vec<ToLog>) -> Result<Done, SchedulerError> {
    let mut done = Done { synced: None, snapshot: false };
    let mut batch = Vec::new();
    for item in work {
        match item {
            ToLog::Append(id, record) => {
                assert!(done.synced < Some(id), "records come in order");
                done.synced = Some(id);
                batch.push(*record);
            }
            ToLog::Snapshot(records) => {
                log.append(&std::mem::take(&mut batch))?;
                log.snapshot(&records)?;
                done.snapshot = true;
            }
        }
    }
    log.append(&batch)?;
    Ok(done)
}

fn encode(record: &JobRecord) -> Result<Bytes, SchedulerError> {
    codec::encode(record).map_err(|reason| SchedulerError::Encode { reason })
}

fn decode(sequence: u64, bytes: &[u8]) -> Result<JobRecord, SchedulerError> {
    codec::decode(bytes).map_err(|reason| SchedulerError::Record { sequence, reason })
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;
    use situ_wire::ids::{ActionId, ClientId, JobId, NodeName, OperationId, ScopeId, ShuffleId};
    use situ_wire::messages::executor::LogName;
    use situ_wire::messages::scheduler::{
        DriverPlace, JobOptions, JobState, JobStatus, JobSummary, Program, TaskMetrics,
    };
    use situ_wire::path::DfsPath;
    use situ_wire::time::TimeMs;

    use super::*;
    use crate::core::{SecretKey, Submission};

    fn submitted(job: u64) -> JobRecord {
        JobRecord::Submitted(Submission {
            job: JobId(job),
            operation: OperationId { client: ClientId(5), sequence: job },
            user: "ada".to_owned(),
            program: Program::BuiltIn { name: "grep".to_owned() },
            arguments: vec!["x".to_owned()],
            submitted: TimeMs(300),
            options: JobOptions { task_limit_ms: Some(300), check_replay: true },
            driver: DriverPlace::Attached,
        })
    }

    /// The format is pinned: what older programs wrote must be read.
    #[test]
    fn records_are_encoded_as_ever() {
        let summary = JobSummary {
            job: JobId(2),
            program: Program::BuiltIn { name: "grep".to_owned() },
            arguments: Vec::new(),
            user: "ada".to_owned(),
            state: JobState::Failed { reason: "no".to_owned() },
            submitted: TimeMs(1),
            ended: Some(TimeMs(2)),
        };
        let status = JobStatus {
            summary,
            revision: 3,
            stages: Vec::new(),
            stages_dropped: 0,
            recoveries: Vec::new(),
            recoveries_dropped: 0,
            metrics: TaskMetrics::default(),
            driver: DriverPlace::Attached,
            options: JobOptions { task_limit_ms: Some(300), check_replay: false },
            waiting: None,
            last_failure: None,
        };
        let logs = vec![(LogName::DriverOut(1), NodeName("n1".to_owned()))];
        let golden: [(JobRecord, &[u8]); 15] = [
            (JobRecord::Began { life: 1, next: JobId(300) }, b"\x00\x01\xac\x02"),
            (submitted(2), b"\x01\x02\x05\x02\x03ada\x00\x04grep\x01\x01x\xac\x02\x01\xac\x02\x01\x01"),
            (
                JobRecord::Driver { job: JobId(2), attempt: 1, node: NodeName("n1".to_owned()) },
                b"\x02\x02\x01\x02n1",
            ),
            (
                JobRecord::Ended { status: Box::new(status), logs },
                b"\x03\x02\x00\x04grep\x00\x03ada\x03\x02no\x01\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xac\x02\x00\x00\x00\x01\x00\x01\x02n1",
            ),
            (
                JobRecord::WritesAside {
                    job: JobId(2),
                    user: "ada".to_owned(),
                    output: DfsPath::parse("/out").unwrap(),
                },
                b"\x04\x02\x03ada\x04/out",
            ),
            (JobRecord::Cleaned { job: JobId(2) }, b"\x05\x02"),
            (
                JobRecord::ActionDone {
                    job: JobId(2),
                    action: ActionId(ScopeId::ROOT, 1),
                    name: "count".to_owned(),
                    digest: [7; 32],
                    results: vec![Bytes::from_static(b"ab")],
                    given: vec![(ShuffleId(ScopeId::ROOT, 3), 300)],
                },
                b"\x06\x02\x00\x01\x05count\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x01\x02ab\x01\x00\x03\xac\x02",
            ),
            (
                JobRecord::Recorded { job: JobId(2), action: ActionId(ScopeId::ROOT, 1), value: Bytes::from_static(b"ab") },
                b"\x07\x02\x00\x01\x02ab",
            ),
            (
                JobRecord::Publishing {
                    job: JobId(2),
                    action: ActionId(ScopeId::ROOT, 1),
                    output: DfsPath::parse("/out").unwrap(),
                },
                b"\x08\x02\x00\x01\x04/out",
            ),
            (JobRecord::Published { job: JobId(2), action: ActionId(ScopeId::ROOT, 1) }, b"\x09\x02\x00\x01"),
            (JobRecord::Key(SecretKey([7; 32])), b"\x0a\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07"),
            (JobRecord::Shuffled { job: JobId(2), shuffle: ShuffleId(ScopeId::ROOT, 3), digest: 300 }, b"\x0b\x02\x00\x03\xac\x02"),
            (JobRecord::Varies { job: JobId(2) }, b"\x0c\x02"),
            (JobRecord::Given { job: JobId(2), given: vec![(ShuffleId(ScopeId::ROOT, 3), 5)] }, b"\x0d\x02\x01\x00\x03\x05"),
            (
                JobRecord::ScopeEnded {
                    job: JobId(2),
                    scope: ScopeId(300),
                    outer: ScopeId::ROOT,
                    outcome: Bytes::from_static(b"ab"),
                },
                b"\x0e\x02\xac\x02\x00\x02ab",
            ),
        ];
        for (record, bytes) in golden {
            assert_eq!(encode(&record).unwrap().as_ref(), bytes, "{record:?}");
            assert_eq!(decode(1, bytes).unwrap(), record);
        }
        let error = decode(7, b"\x0b").unwrap_err().to_string();
        assert!(error.contains("record 7") && error.contains("a later one"), "{error}");
    }

    #[test]
    fn a_snapshot_takes_the_place_of_what_stood_before() {
        let (disk, cluster) = (MemoryDisk::default(), ClusterId(1));
        let open = || JobLog::open(disk.clone(), Path::new("/jobs"), cluster).unwrap();
        let (mut log, records) = open();
        assert_eq!(records, []);
        log.append(&[submitted(1), submitted(2)]).unwrap();
        log.snapshot(&[submitted(2)]).unwrap();
        log.append(&[submitted(3)]).unwrap();
        drop(log);
        let (log, records) = open();
        // The last segment stays whole.
        assert_eq!(records, [submitted(1), submitted(2), submitted(2), submitted(3)]);
        assert!(!log.wants_snapshot());
    }
}
