use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fastrand::Rng;

use super::*;
use crate::disk::faulty::{Fault, Faults, FaultyDisk, Operation, Rule};
use crate::disk::memory::MemoryDisk;
use crate::disk::{Disk, File, OpenMode, Space};

const LOG: &str = "/log";

/// Small, so that segments end often.
fn options() -> JournalOptions {
    JournalOptions { log_id: *b"a test's own log", segment_len_bytes: 4096, preallocate_len_bytes: 1500 }
}

fn open<D: Disk>(disk: &D) -> Result<(Journal<D>, Opened), JournalError> {
    Journal::open(disk.clone(), Path::new(LOG), options())
}

/// Everything in the log from `from` on.
fn read<D: Disk>(journal: &Journal<D>, from: u64) -> Result<Vec<Vec<u8>>, JournalError> {
    let mut all = Vec::new();
    journal.replay(from, |sequence, record| {
        assert_eq!(sequence, from + all.len() as u64);
        all.push(record.to_vec());
        Ok::<_, JournalError>(())
    })?;
    Ok(all)
}

/// Some records, told apart by their number.
fn batch(first: u64, count: u64, len: usize) -> Vec<Bytes> {
    (first..first + count).map(|number| [number.to_le_bytes().as_slice(), &vec![7; len]].concat().into()).collect()
}

fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.list(Path::new(LOG)).unwrap().into_iter().map(|entry| Path::new(LOG).join(entry.name)).collect()
}

fn flip(disk: &MemoryDisk, path: &Path, bit: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    let byte = file.read_at(bit / 8, 1).unwrap()[0];
    file.write_at(bit / 8, &[byte ^ (1 << (bit % 8))]).unwrap();
}

/// A log of frames of three records each, all in one sector; as many segments as that takes.
fn log_of(frames: u64) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk).unwrap();
    for frame in 0..frames {
        assert_eq!(journal.append(&batch(1 + 3 * frame, 3, 60)).unwrap(), 3 + 3 * frame);
    }
    disk
}

#[test]
fn a_segment_has_the_documented_bytes() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&["one".into(), "".into()]).unwrap();
    journal.append(&["three".into()]).unwrap();
    let bytes = disk.read(Path::new("/log/segment-00000000000000000001"), 1 << 20).unwrap();
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let golden = [
        (
            0..80,
            "534954554c4f4731 01000000 00000000 6120746573742773206f776e206c6f67 0100000000000000 0000000000000000 b3e2ae47b1821d70e470030dfb388016184d10f62440e71a8bb603e15d8ee243",
        ),
        (480..512, "0133a5de6bf93f96a9b5526fff1faa485381005f72b6e425586758e325079729"),
        (
            512..595,
            "5346524d 0b000000 0100000000000000 02000000 00000000 6b1c98f09ebe46ed366d4c9db2f76632 030000006f6e6500000000 fba748700b1eadb7c78b928eaa3d01668ec7a35a41ad6a483a24437a27f0d5a5",
        ),
        (
            1024..1105,
            "5346524d 09000000 0300000000000000 01000000 00000000 d477d6c0bd6bb248c5484f816e7d557c 050000007468726565 aee0930fa2c54fc8421ac576705b0aeadfd4d4c6f010049b291447d80ebbd3f4",
        ),
    ];
    let mut end = 0;
    for (range, expected) in golden {
        assert!(bytes[end..range.start].iter().all(|byte| *byte == 0), "not zero before {range:?}");
        end = range.end;
        assert_eq!(hex(range.clone()), expected.replace(' ', ""), "at {range:?}");
    }
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
    assert_eq!(bytes.len(), 1024 + 1500);
}

#[test]
fn records_come_back_in_their_order() {
    let disk = MemoryDisk::default();
    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!(opened, Opened { first: 1, last: 0, cut: None });
    assert_eq!(journal.append(&[]).unwrap(), 0);
    let mut expected = Vec::new();
    for round in 0..40_u64 {
        let records = batch(expected.len() as u64, 1 + round % 7, usize::try_from(round * 13 % 400).unwrap());
        expected.extend(records.iter().map(|record| record.to_vec()));
        assert_eq!(journal.append(&records).unwrap(), expected.len() as u64);
    }
    // Longer than a segment.
    expected.push(vec![1; 10_000]);
    assert_eq!(journal.append(&[vec![1; 10_000].into()]).unwrap(), expected.len() as u64);
    assert!(segments(&disk).len() > 5);
    assert_eq!(read(&journal, 1).unwrap(), expected);
    drop(journal);

    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!(opened, Opened { first: 1, last: expected.len() as u64, cut: None });
    journal.append(&["last".into()]).unwrap();
    expected.push(b"last".to_vec());
    for from in [1, 2, 50, expected.len() as u64, expected.len() as u64 + 1] {
        assert_eq!(read(&journal, from).unwrap(), expected[usize::try_from(from).unwrap() - 1..]);
    }
}

#[test]
fn what_the_reader_says_ends_the_replay() {
    let (journal, _) = open(&log_of(3)).unwrap();
    let mut seen = 0;
    let result = journal.replay(1, |sequence, _| {
        seen = sequence;
        if sequence == 4 { Err(JournalError::Dropped { directory: LOG.into(), wanted: 0, first: 0 }) } else { Ok(()) }
    });
    assert!(matches!(result, Err(JournalError::Dropped { wanted: 0, .. })));
    assert_eq!(seen, 4);
}

/// Whatever happens to a process and its machine at whatever moment, what was acknowledged is there, and what was not is
/// there as a whole or not at all.
#[test]
fn no_crash_loses_what_was_acknowledged() {
    let (mut cut, mut whole, mut nothing, mut in_opening) = (0, 0, 0, 0);
    for seed in 0..2000 {
        let mut rng = Rng::with_seed(seed);
        let disk = MemoryDisk::default();
        // The records from `first` on; what was under way when it ended.
        let (mut first, mut acknowledged, mut pending) = (1, Vec::<Vec<u8>>::new(), Vec::<Vec<u8>>::new());
        for _ in 0..4 {
            let faulty = FaultyDisk::new(disk.clone(), Faults::new(rng.u64(..)));
            faulty.faults().add(Rule::new(Operation::Any, rng.u64(..80), Fault::Die));
            match open(&faulty) {
                Err(JournalError::Disk(_)) => in_opening += 1,
                Err(error) => panic!("seed {seed}: {error}"),
                Ok((mut journal, opened)) => {
                    cut += u32::from(opened.cut.is_some());
                    assert!(opened.first <= first, "seed {seed}: {opened:?}, but nothing before {first} was dropped");
                    let Ok(found) = read(&journal, first) else { continue };
                    let (old, new) = found.split_at_checked(acknowledged.len()).unwrap_or_else(|| {
                        panic!("seed {seed}: of {} records {} are there", acknowledged.len(), found.len())
                    });
                    assert!(old == acknowledged, "seed {seed}: records differ");
                    assert!(new.is_empty() || new == pending, "seed {seed}: a part of a batch");
                    if !pending.is_empty() {
                        *(if new.is_empty() { &mut nothing } else { &mut whole }) += 1;
                    }
                    acknowledged = found;
                    loop {
                        let next = first + acknowledged.len() as u64;
                        let records = batch(next, rng.u64(1..6), rng.usize(..500));
                        pending = records.iter().map(|record| record.to_vec()).collect();
                        match journal.append(&records) {
                            Ok(last) => assert_eq!(last, next + pending.len() as u64 - 1),
                            Err(_) => break,
                        }
                        acknowledged.append(&mut pending);
                        if rng.u8(..10) == 0 {
                            let before = first + rng.u64(..=acknowledged.len() as u64);
                            // It fails when the process dies; what counts as dropped is what was let go.
                            let _dies_then = journal.drop_before(before);
                            acknowledged.drain(..usize::try_from(before - first).unwrap());
                            first = before;
                        }
                    }
                }
            }
            // Else only the process was killed.
            if rng.u8(..3) > 0 {
                disk.crash(rng.u64(..));
            }
        }
    }
    println!("cut {cut}, whole {whole}, nothing {nothing}, in opening {in_opening}");
    assert!(cut > 100 && whole > 100 && nothing > 100 && in_opening > 100);
}

#[test]
fn one_wrong_bit_before_the_last_frame_is_damage() {
    let disk = log_of(4);
    let path = &segments(&disk)[0];
    for frame in 0..3 {
        for bit in 0..512 * 8 {
            let offset = 512 + 512 * frame;
            flip(&disk, path, offset * 8 + bit);
            match open(&disk).map(|(_, opened)| opened).unwrap_err() {
                JournalError::Damaged { segment, offset: at, sequence, .. } => {
                    assert_eq!((&segment, at, sequence), (path, offset, 1 + 3 * frame), "bit {bit}");
                }
                error => panic!("bit {bit} of frame {frame}: {error}"),
            }
            flip(&disk, path, offset * 8 + bit);
        }
    }
    for bit in 0..512 * 8 {
        flip(&disk, path, bit);
        let error = open(&disk).map(|(_, opened)| opened).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { offset: 0, .. } | JournalError::UnknownVersion { .. }));
        flip(&disk, path, bit);
    }
    let (journal, _) = open(&disk).unwrap();
    assert_eq!(read(&journal, 1).unwrap().len(), 12, "refusing has changed something");
}

#[test]
fn one_wrong_bit_in_the_last_frame_is_reported() {
    for bit in (0..512 * 8).step_by(7) {
        let disk = log_of(3);
        let path = &segments(&disk)[0];
        flip(&disk, path, (512 + 1024) * 8 + bit);
        let (journal, opened) = open(&disk).unwrap();
        let cut = opened.cut.unwrap();
        assert_eq!((opened.last, &cut.segment, cut.offset), (6, path, 1536), "bit {bit}");
        assert_eq!(read(&journal, 1).unwrap().len(), 6);
    }
}

#[test]
fn a_wrong_bit_in_an_older_segment_is_found_by_whoever_reads_it() {
    let disk = log_of(30);
    let second = &segments(&disk)[1];
    let len_bytes = disk.open(second, OpenMode::Read).unwrap().len().unwrap();
    assert_eq!(len_bytes % 512, 0, "what was written ahead is still there");
    for bit in (512 * 8..len_bytes * 8).step_by(31) {
        flip(&disk, second, bit);
        let (journal, _) = open(&disk).unwrap();
        let error = read(&journal, 1).unwrap_err();
        assert!(matches!(&error, JournalError::Damaged { segment, .. } if segment == second), "{error}");
        flip(&disk, second, bit);
    }
}

#[test]
fn the_end_of_an_older_segment_is_missed() {
    let disk = log_of(30);
    let second = &segments(&disk)[1];
    let file = disk.open(second, OpenMode::Write).unwrap();
    file.set_len(file.len().unwrap() - 512).unwrap();
    let (journal, _) = open(&disk).unwrap();
    assert!(matches!(read(&journal, 1), Err(JournalError::Damaged { segment, .. }) if segment == *second));
}

#[test]
fn a_missing_segment_is_missed() {
    let disk = log_of(30);
    let all = segments(&disk);
    assert!(all.len() > 3);
    disk.remove_file(&all[all.len() - 2]).unwrap();
    let error = open(&disk).map(|(_, opened)| opened).unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { segment, .. } if *segment == all[all.len() - 1]), "{error}");
}

#[test]
fn segments_cannot_change_places() {
    let disk = log_of(30);
    let all = segments(&disk);
    disk.rename(&all[1], &all[2]).unwrap();
    assert!(matches!(open(&disk).map(|(_, opened)| opened), Err(JournalError::Damaged { .. })));
}

#[test]
fn old_segments_are_dropped_whole() {
    let disk = log_of(30);
    let (mut journal, _) = open(&disk).unwrap();
    let before = segments(&disk).len();
    journal.drop_before(1).unwrap();
    assert_eq!(segments(&disk).len(), before);
    journal.drop_before(40).unwrap();
    let first = journal.first();
    assert!(first > 1 && first <= 40 && segments(&disk).len() < before);
    assert!(matches!(read(&journal, first - 1), Err(JournalError::Dropped { wanted, first: f, .. })
        if wanted == first - 1 && f == first));
    assert_eq!(read(&journal, first).unwrap().len() as u64, 91 - first);

    journal.drop_before(u64::MAX).unwrap();
    assert_eq!(segments(&disk).len(), 1);
    drop(journal);
    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!((opened.last, opened.cut), (90, None));
    assert_eq!(journal.append(&batch(91, 1, 1)).unwrap(), 91);
}

#[test]
fn after_a_failed_sync_or_write_nothing_more_is_taken() {
    for on in [Operation::Sync, Operation::Write] {
        let disk = FaultyDisk::new(MemoryDisk::default(), Faults::new(1));
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(&batch(1, 2, 10)).unwrap();
        disk.faults().add(Rule::new(on, 0, Fault::Fail));
        assert!(matches!(journal.append(&batch(3, 1, 10)), Err(JournalError::Disk(_))));
        let operations = disk.faults().operations();
        let error = journal.append(&batch(3, 1, 10)).unwrap_err();
        assert!(matches!(&error, JournalError::Poisoned { reason, .. } if reason.contains("injected")), "{error}");
        assert_eq!(disk.faults().operations(), operations, "it tried again");
        assert_eq!(journal.last(), 2);
        drop(journal);

        // Opening settles what became of it, though the system takes it for written when it is not.
        let path = &segments(disk.inner())[0];
        disk.inner().fail_write_back(path).unwrap();
        let (mut journal, opened) = open(&disk).unwrap();
        assert_eq!(opened.last, if on == Operation::Sync { 3 } else { 2 });
        journal.append(&batch(opened.last + 1, 1, 10)).unwrap();
        let found = read(&journal, 1).unwrap();
        disk.inner().crash(5);
        assert_eq!(read(&open(&disk).unwrap().0, 1).unwrap(), found);
    }
}

#[test]
fn a_full_disk_refuses_and_keeps_what_was_acknowledged() {
    let disk = MemoryDisk::new(20_000);
    let (mut journal, _) = open(&disk).unwrap();
    let mut last = 0;
    let error = loop {
        match journal.append(&batch(last + 1, 1, 700)) {
            Ok(acknowledged) => last = acknowledged,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Disk(error) if error.kind == crate::disk::DiskErrorKind::Full));
    assert!(last > 10, "what was written ahead took the room: {last}");
    drop(journal);
    let (journal, opened) = open(&disk).unwrap();
    assert_eq!((opened.last, read(&journal, 1).unwrap().len() as u64), (last, last));
}

#[test]
fn what_is_written_ahead_takes_no_room_from_its_frame() {
    let disk = FaultyDisk::new(MemoryDisk::default(), Faults::new(0));
    let (mut journal, _) = open(&disk).unwrap();
    // Room for one frame and some zeros.
    disk.faults().limit_written(1000);
    assert_eq!(journal.append(&batch(1, 1, 60)).unwrap(), 1);
}

#[test]
fn what_was_written_ahead_is_room_for_the_log() {
    let disk = MemoryDisk::new(20_000);
    let (mut journal, _) = open(&disk).unwrap();
    let (before, mut taken) = (journal.room().unwrap(), 0);
    assert_eq!(before, Space { capacity_bytes: 20_000, free_bytes: 20_000 - 512 });
    for number in 1..=12 {
        let segments_before = segments(&disk).len();
        journal.append(&batch(number, 1, 60)).unwrap();
        let headers = 512 * (segments(&disk).len() - segments_before) as u64;
        assert!(512 + headers <= growth_len_bytes(68));
        taken += 512;
        // A new segment has a header.
        let headers = 512 * (segments(&disk).len() as u64 - 1);
        assert_eq!(journal.room().unwrap().free_bytes, before.free_bytes - taken - headers);
    }
    assert!(segments(&disk).len() > 1 && disk.space(Path::new(LOG)).unwrap().free_bytes < before.free_bytes - taken);
}

#[test]
fn another_log_or_version_is_refused() {
    let disk = log_of(2);
    let other = JournalOptions { log_id: [0; 16], ..options() };
    let error = Journal::open(disk.clone(), Path::new(LOG), other).map(|(_, opened)| opened).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the log /log/segment-00000000000000000001 belongs to 6120746573742773206f776e206c6f67, \
         not to 00000000000000000000000000000000: name the right directory"
    );

    let file = disk.open(&segments(&disk)[0], OpenMode::Write).unwrap();
    file.write_at(8, &[2]).unwrap();
    let error = open(&disk).map(|(_, opened)| opened).unwrap_err();
    assert!(matches!(error, JournalError::UnknownVersion { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn too_much_is_refused_and_changes_nothing() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk).unwrap();
    let long = Bytes::from(vec![0; RECORD_LEN_BYTES + 1]);
    assert!(matches!(journal.append(std::slice::from_ref(&long)), Err(JournalError::TooLong { what: "a record", .. })));
    let longest = long.slice(1..);
    let error = journal.append(&[longest.clone(), longest.clone(), longest.clone(), longest.clone()]).unwrap_err();
    assert!(matches!(error, JournalError::TooLong { what: "a batch of records", .. }));
    assert_eq!(journal.append(&[longest]).unwrap(), 1);
    drop(journal);
    assert_eq!(read(&open(&disk).unwrap().0, 1).unwrap()[0].len(), RECORD_LEN_BYTES);
}

#[test]
fn other_files_do_not_matter() {
    let disk = log_of(2);
    for name in ["in_use.lock", "segment-1", "segment-0000000000000000000x", "segment-99999999999999999999"] {
        disk.open(&Path::new(LOG).join(name), OpenMode::CreateNew).unwrap();
    }
    assert_eq!(open(&disk).unwrap().1.last, 6);
}

#[test]
fn every_seed_gives_another_history() {
    // The test above is worth what its crashes are worth: they must leave many different ends.
    let mut ends = BTreeSet::new();
    for seed in 0..100 {
        let disk = log_of(1);
        let faulty = FaultyDisk::new(disk.clone(), Faults::new(seed));
        let (mut journal, _) = open(&faulty).unwrap();
        faulty.faults().add(Rule::new(Operation::Sync, 0, Fault::Die));
        journal.append(&batch(4, 3, 900)).unwrap_err();
        disk.crash(seed);
        let (mut journal, opened) = open(&disk).unwrap();
        ends.insert(opened.cut.map(|cut| cut.len_bytes));
        journal.append(&batch(opened.last + 1, 1, 1)).unwrap();
        assert_eq!(open(&disk).unwrap().1, Opened { first: 1, last: opened.last + 1, cut: None }, "cut again");
    }
    assert!(ends.len() > 5, "{ends:?}");
}
