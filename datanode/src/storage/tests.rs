use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::disk::faulty::{Fault, Faults, FaultyDisk, Operation, Rule};
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode};
use situ_wire::block::Block;
use situ_wire::ids::{BlockId, ClusterId, GenerationStamp, StorageId};
use situ_wire::messages::datanode::Durability;
use situ_wire::tree::{Tree, TreeBuilder};

use super::names::Part;
use super::{
    Health, IndexedReplica, OpenVolumes, Place, Prior, ReadError, ReplicaWriter, ScannedReplica, Verdict, Verifier,
    Volume, format, open_volumes,
};
use crate::error::StartError;

const CLUSTER: ClusterId = ClusterId(1);

fn open<D: Disk>(disk: &D) -> Arc<Volume<D>> {
    Arc::new(try_open(disk).unwrap().volumes.remove(0))
}

/// Opens the volume `/v`, made before if there was none.
fn try_open<D: Disk>(disk: &D) -> Result<OpenVolumes<D>, StartError> {
    let roots = [PathBuf::from("/v")];
    format(disk, &roots, CLUSTER, counter())?;
    open_volumes(disk, &roots, CLUSTER)
}

fn counter() -> impl FnMut() -> u128 {
    let mut next = 100;
    move || {
        next += 1;
        next
    }
}

fn block(id: u64, generation: u64) -> Block {
    Block { id: BlockId(id), generation: GenerationStamp(generation) }
}

fn content(block: Block, len: usize) -> Bytes {
    (0..len as u64).map(|at| (at * 31 + at / 253 + block.id.0 + block.generation.0).to_le_bytes()[0]).collect()
}

fn tree(bytes: &[u8]) -> Tree {
    let mut builder = TreeBuilder::new();
    builder.update(bytes);
    builder.finish()
}

fn append_and_finalize<D: Disk>(mut writer: ReplicaWriter<D>, bytes: &Bytes) -> Result<(), DiskError> {
    let at = usize::try_from(writer.len_bytes()).unwrap();
    for at in (at..bytes.len()).step_by(50_000) {
        writer.append(&[bytes.slice(at..bytes.len().min(at + 50_000))])?;
    }
    let tree = tree(bytes);
    writer.finalize(tree.root, tree.leaves)
}

fn write<D: Disk>(volume: &Arc<Volume<D>>, block: Block, len: usize) -> Result<Bytes, DiskError> {
    let bytes = content(block, len);
    let writer = ReplicaWriter::open(Arc::clone(volume), block, Prior::Nothing, 0, Durability::Durable)?;
    append_and_finalize(writer, &bytes)?;
    Ok(bytes)
}

fn read<D: Disk>(volume: &Arc<Volume<D>>, block: Block) -> Result<Vec<u8>, ReadError> {
    let mut verifier = Verifier::open(volume, block)?;
    let mut bytes = Vec::new();
    while let Some(piece) = verifier.next_piece()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn flip<D: Disk>(volume: &Volume<D>, block: Block, part: Part, at: u64) {
    let file = volume.disk.open(&volume.path(Place::Current, block, part), OpenMode::Write).unwrap();
    let byte = file.read_at(at, 1).unwrap()[0] ^ 1;
    file.write_at(at, &[byte]).unwrap();
}

#[test]
fn what_was_final_is_there_after_a_power_cut_at_any_step_and_what_is_there_is_whole() {
    let mut finals = 0;
    for steps in 4..120 {
        for seed in 0..8 {
            let memory = MemoryDisk::default();
            let disk = FaultyDisk::new(memory.clone(), Faults::new(seed));
            disk.faults().add(Rule { under: PathBuf::from("/"), ..Rule::new(Operation::Any, steps, Fault::Die) });
            let mut acknowledged = BTreeMap::new();
            // As far as the disk lets it: three replicas, one reopened into a new life, one deleted.
            let mut work = || -> Result<(), DiskError> {
                let OpenVolumes { mut volumes, .. } = match try_open(&disk) {
                    Ok(volumes) => volumes,
                    Err(StartError::Disk { error, .. }) => return Err(error),
                    Err(error) => panic!("{error}"),
                };
                let volume = Arc::new(volumes.remove(0));
                for (id, len) in [(1, 0), (2, 70_000), (300, 200_000)] {
                    acknowledged.insert(block(id, 5), write(&volume, block(id, 5), len)?);
                }
                let bytes = acknowledged.remove(&block(2, 5)).unwrap();
                let prior = Prior::Final(GenerationStamp(5));
                let writer = ReplicaWriter::open(volume, block(2, 6), prior, 70_000, Durability::Durable)?;
                append_and_finalize(writer, &bytes)?;
                acknowledged.insert(block(2, 6), bytes);
                Ok(())
            };
            let _ = work();
            memory.crash(seed);
            let volume = open(&memory);
            let found = volume.scan(&BTreeMap::new()).unwrap();
            for replica in &found {
                assert_eq!(replica.health, Health::Final, "cut after {steps}, seed {seed}: {}", replica.block);
                let bytes = read(&volume, replica.block).unwrap();
                assert_eq!(bytes.len() as u64, replica.len_bytes);
            }
            for (block, bytes) in &acknowledged {
                let there = found.iter().any(|replica| replica.block == *block);
                assert!(there, "cut after {steps}, seed {seed}: {block} was acknowledged and is lost");
                assert_eq!(read(&volume, *block).unwrap(), bytes[..]);
                finals += 1;
            }
            // What the scan saw stays: nothing more goes when the power is cut again.
            memory.crash(seed + 1);
            drop(volume);
            assert_eq!(open(&memory).scan(&BTreeMap::new()).unwrap(), found);
        }
    }
    assert!(finals > 500, "the cuts came too early to show anything: {finals}");
}

#[test]
fn a_resumed_replica_is_cut_to_the_agreed_length_and_lives_on_in_its_new_life() {
    let disk = MemoryDisk::default();
    let volume = open(&disk);
    let bytes = content(block(9, 1), 150_000);
    let begin = |block, prior, len| ReplicaWriter::open(Arc::clone(&volume), block, prior, len, Durability::Durable);
    let mut writer = begin(block(9, 1), Prior::Nothing, 0).unwrap();
    writer.append(&[bytes.slice(..90_000), Bytes::from_static(b"beyond what was acknowledged")]).unwrap();
    drop(writer);
    let error = begin(block(9, 2), Prior::BeingWritten(GenerationStamp(1)), 100_000).unwrap_err();
    assert!(error.to_string().contains("it has 90028 bytes; 100000 were acknowledged"), "{error}");
    let writer = begin(block(9, 3), Prior::BeingWritten(GenerationStamp(2)), 90_000).unwrap();
    append_and_finalize(writer, &bytes).unwrap();
    assert_eq!(read(&volume, block(9, 3)).unwrap(), bytes);
    // Open readers of a life that is over keep what they have; nobody else gets it.
    let reader = volume.open_final(block(9, 3)).unwrap();
    let writer = begin(block(9, 4), Prior::Final(GenerationStamp(3)), 150_000).unwrap();
    append_and_finalize(writer, &bytes).unwrap();
    assert_eq!(reader.file.read_at(0, 200_000).unwrap(), bytes);
    assert!(matches!(Verdict::from(&volume.open_final(block(9, 3)).unwrap_err()), Verdict::Gone));
    let expected = ScannedReplica { block: block(9, 4), len_bytes: 150_000, health: Health::Final };
    assert_eq!(volume.scan(&BTreeMap::new()).unwrap(), [expected]);
}

#[test]
fn the_scan_keeps_the_newest_life_and_moves_what_is_damaged_aside() {
    let disk = MemoryDisk::default();
    let volume = open(&disk);
    for (id, generation) in [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (5, 1)] {
        write(&volume, block(id, generation), 70_000).unwrap();
    }
    flip(&volume, block(2, 1), Part::Meta, 40);
    volume
        .disk
        .open(&volume.path(Place::Current, block(3, 1), Part::Data), OpenMode::Write)
        .unwrap()
        .set_len(9)
        .unwrap();
    disk.remove_file(&volume.path(Place::Current, block(4, 1), Part::Meta)).unwrap();
    ReplicaWriter::open(Arc::clone(&volume), block(6, 1), Prior::Nothing, 0, Durability::Durable).unwrap();
    let known = IndexedReplica { generation: GenerationStamp(1), len_bytes: 70_000 };
    // What the index says of a replica whose files look otherwise does not count.
    let index = [1, 2, 3, 4, 6].map(|id| (BlockId(id), known));
    let index: BTreeMap<_, _> = index.into_iter().filter(|(id, _)| id.0 != 2).collect();
    let found = volume.scan(&index).unwrap();
    let replica =
        |id, generation, len_bytes, health| ScannedReplica { block: block(id, generation), len_bytes, health };
    let expected = [
        replica(1, 2, 70_000, Health::Final),
        replica(2, 1, 70_000, Health::Corrupt),
        replica(3, 1, 9, Health::Corrupt),
        replica(5, 1, 70_000, Health::Final),
    ];
    assert_eq!(found, expected);
    assert!(matches!(volume.open_final(block(2, 1)), Err(ReadError::Disk(_))), "what is aside is not served");
    assert_eq!(volume.scan(&BTreeMap::new()).unwrap(), expected, "it stays aside");
    volume.delete(block(2, 1)).unwrap();
    volume.delete(block(3, 1)).unwrap();
    assert_eq!(volume.scan(&BTreeMap::new()).unwrap(), [expected[0], expected[3]]);
}

#[test]
fn the_scan_leaves_what_it_cannot_read_where_it_is() {
    let disk = FaultyDisk::new(MemoryDisk::default(), Faults::new(1));
    let volume = open(&disk);
    let bytes = write(&volume, block(1, 1), 70_000).unwrap();
    let meta = volume.path(Place::Current, block(1, 1), Part::Meta);
    disk.faults().add(Rule { under: meta, ..Rule::new(Operation::Open, 0, Fault::Fail) });
    let replica = |health| ScannedReplica { block: block(1, 1), len_bytes: 70_000, health };
    assert_eq!(volume.scan(&BTreeMap::new()).unwrap(), [replica(Health::Unreadable)]);
    assert_eq!(volume.scan(&BTreeMap::new()).unwrap(), [replica(Health::Final)]);
    assert_eq!(read(&volume, block(1, 1)).unwrap(), bytes);
}

#[test]
fn a_process_without_open_files_says_nothing_of_its_disks() {
    let disk = FaultyDisk::new(MemoryDisk::default(), Faults::new(1));
    let volume = open(&disk);
    write(&volume, block(1, 1), 70_000).unwrap();
    let exhaust = || disk.faults().add(Rule::new(Operation::Open, 0, Fault::Exhaust));
    exhaust();
    let error = read(&volume, block(1, 1)).unwrap_err();
    assert!(matches!(Verdict::from(&error), Verdict::Undecided(_)), "{error}");
    exhaust();
    assert!(volume.scan(&BTreeMap::new()).is_err());
    exhaust();
    volume.probe().unwrap();
    disk.faults().add(Rule::new(Operation::Open, 0, Fault::Fail));
    assert!(volume.probe().is_err());
}

#[test]
fn a_flipped_bit_shows_before_its_bytes_are_given_out() {
    let volume = open(&MemoryDisk::default());
    for (id, at) in [(1, 0), (2, 69_999), (3, 1_100_000)] {
        write(&volume, block(id, 1), 1_200_000).unwrap();
        flip(&volume, block(id, 1), Part::Data, at);
        assert!(matches!(read(&volume, block(id, 1)), Err(ReadError::Corrupt { .. })), "byte {at}");
    }
    write(&volume, block(4, 1), 5).unwrap();
    flip(&volume, block(4, 1), Part::Meta, 70);
    assert!(matches!(volume.open_final(block(4, 1)), Err(ReadError::Meta { .. })));
}

fn roots(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn volumes_that_do_not_belong_here_are_refused() {
    let disk = MemoryDisk::default();
    let mut random = counter();
    let mut make = |names: &[&str], cluster| format(&disk, &roots(names), cluster, &mut random);
    let start = |names: &[&str], cluster| open_volumes(&disk, &roots(names), cluster);
    assert_eq!(make(&["/a", "/b"], CLUSTER).unwrap(), roots(&["/a", "/b"]));
    let one = start(&["/a", "/b"], CLUSTER).unwrap();
    assert_ne!(one.volumes[0].storage(), one.volumes[1].storage());
    for error in [start(&["/a"], CLUSTER).unwrap_err(), make(&["/a"], CLUSTER).unwrap_err()] {
        assert!(matches!(error, StartError::Disk { error, .. } if error.kind == DiskErrorKind::Locked));
    }
    let (id, storage) = (one.datanode, one.volumes[1].storage());
    drop(one);
    make(&["/c"], CLUSTER).unwrap();
    assert_ne!(id, start(&["/c"], CLUSTER).unwrap().datanode);
    for error in [start(&["/a", "/b"], ClusterId(2)).unwrap_err(), make(&["/d", "/b"], ClusterId(2)).unwrap_err()] {
        assert!(matches!(error, StartError::WrongCluster { .. }), "{error}");
    }
    for error in [start(&["/a", "/c"], CLUSTER).unwrap_err(), make(&["/a", "/c"], CLUSTER).unwrap_err()] {
        assert!(matches!(error, StartError::WrongDatanode { .. }), "{error}");
    }
    disk.create_directory(Path::new("/home/user")).unwrap();
    disk.write_atomically(Path::new("/c/VERSION"), b"situ volume 9\n").unwrap();
    for error in [start(&["/home"], CLUSTER).unwrap_err(), make(&["/a", "/home"], CLUSTER).unwrap_err()] {
        assert!(matches!(error, StartError::NotEmpty { found, .. } if found == "user"));
    }
    for error in [start(&["/c"], CLUSTER).unwrap_err(), make(&["/a", "/c"], CLUSTER).unwrap_err()] {
        assert!(matches!(error, StartError::Version { .. }), "{error}");
    }
    assert!(!disk.exists(Path::new("/d/VERSION")).unwrap(), "what was refused is not done in part");
    assert_eq!(make(&["/b", "/a", "/new"], CLUSTER).unwrap(), roots(&["/new"]));
    let again = start(&["/b", "/a", "/new"], CLUSTER).unwrap();
    assert_eq!((again.datanode, again.volumes[0].storage()), (id, storage));
    assert_ne!(again.volumes[2].storage(), StorageId(0));
}

#[test]
fn a_directory_without_a_good_volume_is_left_out_and_never_made_one_by_itself() {
    let disk = MemoryDisk::default();
    let names = ["/empty", "/gone", "/fresh-disk", "/damaged", "/cut", "/not-ours", "/good"];
    let good = roots(&names[6..]);
    format(&disk, &good, CLUSTER, counter()).unwrap();
    for directory in ["/empty", "/fresh-disk/lost+found", "/damaged", "/cut", "/not-ours/current"] {
        disk.create_directory(Path::new(directory)).unwrap();
    }
    let whole = disk.read(Path::new("/good/VERSION"), 1000).unwrap();
    disk.write_atomically(Path::new("/damaged/VERSION"), &whole[..whole.len() - 3]).unwrap();
    disk.write_atomically(Path::new("/cut/VERSION"), b"").unwrap();
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let opened = open_volumes(&disk, &roots(&names), CLUSTER).unwrap();
            assert_eq!(opened.volumes.iter().map(Volume::root).collect::<Vec<_>>(), [Path::new("/good")]);
            let reasons: Vec<String> = opened.failed.iter().map(|volume| volume.error.to_string()).collect();
            let expected = [
                "found an empty directory: if its disk is not mounted, mount it",
                "found no such directory",
                "found an empty directory",
                "it is damaged",
                "it does not begin with",
                "but holds \"current\"",
            ];
            for ((reason, expected), name) in reasons.iter().zip(expected).zip(names) {
                assert!(reason.contains(expected) && reason.contains(name), "{reason}");
            }
            assert_eq!(reasons.len(), 6);
            opened.failed.iter().map(|volume| volume.storage).collect::<std::collections::BTreeSet<_>>()
        })
        .collect();
    assert_eq!((ids[0].len(), &ids[0]), (6, &ids[1]), "each has an id of its own, the same at each start");
    assert!(!disk.exists(Path::new("/gone")).unwrap());
    assert_eq!(disk.list(Path::new("/empty")).unwrap(), []);
    // Without any good one there is no datanode.
    let error = open_volumes(&disk, &roots(&names[..2]), CLUSTER).unwrap_err();
    assert!(matches!(error, StartError::NoVolume { .. }), "{error}");
}

#[test]
fn a_volume_whose_disk_is_unmounted_fails_its_probe() {
    let disk = MemoryDisk::default();
    let volume = open(&disk);
    volume.probe().unwrap();
    volume.space().unwrap();
    disk.rename(Path::new("/v"), Path::new("/elsewhere")).unwrap();
    disk.create_directory(Path::new("/v")).unwrap();
    assert!(volume.probe().unwrap_err().to_string().contains("/v/VERSION: there is no such file"));
    assert!(volume.space().is_err());
    format(&disk, &roots(&["/other"]), CLUSTER, || 7).unwrap();
    disk.rename(Path::new("/other/VERSION"), Path::new("/v/VERSION")).unwrap();
    assert!(volume.probe().unwrap_err().to_string().contains("is another disk mounted?"));
    disk.rename(Path::new("/elsewhere/VERSION"), Path::new("/v/VERSION")).unwrap();
    volume.probe().unwrap();
}
