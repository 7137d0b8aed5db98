//! What every disk promises, short of a power cut.

use std::path::Path;

use super::{DirectoryEntry, Disk, DiskErrorKind, File, LOCK_NAME, OpenMode};

/// Checks the promises on `disk`, in the directory `root`, which may be missing but must be empty.
pub(crate) fn check<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    assert_eq!(disk.list(root).unwrap(), []);
    bytes(disk, &root.join("bytes"));
    opening(disk, &root.join("opening"));
    names(disk, &root.join("names"));
    directories(disk, &root.join("directories"));
    small_files(disk, &root.join("small"));
    locks(disk, &root.join("locks"));
    threads(disk, &root.join("threads"));
    let space = disk.space(root).unwrap();
    assert!(0 < space.free_bytes && space.free_bytes <= space.capacity_bytes, "{space:?}");
}

fn bytes<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    let file = disk.open(&root.join("f"), OpenMode::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(file.read_at(0, 10).unwrap(), "");
    file.write_at(0, b"hello world").unwrap();
    file.write_at(6, b"there, you").unwrap();
    assert_eq!(file.read_at(0, 100).unwrap(), "hello there, you");
    assert_eq!(file.read_at(6, 5).unwrap(), "there");
    assert_eq!(file.read_at(13, 100).unwrap(), "you");
    assert_eq!(file.read_at(16, 1).unwrap(), "");
    assert_eq!(file.read_at(u64::from(u32::MAX), 1).unwrap(), "");
    assert_eq!(file.read_at(0, usize::MAX).unwrap().len(), 16, "room was made for what is not there");
    file.write_at(3, b"").unwrap();
    assert_eq!(file.len().unwrap(), 16);

    // A gap reads as zeros, and so does what is cut off and grown again.
    file.write_at(20, b"x").unwrap();
    assert_eq!(file.read_at(15, 10).unwrap(), "u\0\0\0\0x");
    file.set_len(5).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(file.read_at(0, 100).unwrap(), "hello\0\0\0");
    file.sync().unwrap();
    file.start_write_back(0, 8);
    file.start_write_back(0, 0);

    let long = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<_>>();
    file.write_at(1, &long).unwrap();
    file.sync().unwrap();
    assert!(file.read_at(1, long.len()).unwrap() == long, "a long read differs");
    assert!(file.read_at(1, long.len() * 2).unwrap() == long, "a long read past the end differs");
}

fn opening<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    let path = root.join("f");
    let kind = |path: &Path, mode| disk.open(path, mode).map(drop).unwrap_err().kind;
    assert_eq!(kind(&path, OpenMode::Read), DiskErrorKind::NotFound);
    assert_eq!(kind(&path, OpenMode::Write), DiskErrorKind::NotFound);
    assert_eq!(kind(&root.join("no/f"), OpenMode::CreateNew), DiskErrorKind::NotFound);
    assert!(matches!(kind(root, OpenMode::Read), DiskErrorKind::Other(_)));

    let first = disk.open(&path, OpenMode::CreateNew).unwrap();
    assert_eq!(kind(&path, OpenMode::CreateNew), DiskErrorKind::AlreadyExists);
    assert!(matches!(kind(&path.join("x"), OpenMode::CreateNew), DiskErrorKind::Other(_)));
    first.write_at(0, b"one").unwrap();
    let second = disk.open(&path, OpenMode::Write).unwrap();
    second.write_at(3, b"two").unwrap();
    assert_eq!(first.read_at(0, 10).unwrap(), "onetwo", "two handles of one file differ");
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_at(0, b"x").is_err());
    assert_eq!(reader.read_at(0, 10).unwrap(), "onetwo");

    disk.open(&path, OpenMode::Truncate).unwrap();
    assert_eq!(reader.len().unwrap(), 0);
    let error = disk.open(&root.join("gone"), OpenMode::Read).map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("open {}: there is no such file or directory", root.join("gone").display()));
}

fn names<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    let (a, b) = (root.join("a"), root.join("b"));
    let file = disk.open(&a, OpenMode::CreateNew).unwrap();
    file.write_at(0, b"a").unwrap();
    disk.open(&b, OpenMode::CreateNew).unwrap().write_at(0, b"bbb").unwrap();
    let replaced = disk.open(&b, OpenMode::Read).unwrap();
    disk.rename(&a, &b).unwrap();
    assert!(!disk.exists(&a).unwrap());
    assert_eq!(disk.read(&b, 10).unwrap(), "a");
    assert_eq!(replaced.read_at(0, 10).unwrap(), "bbb", "a replaced file is still there for who has it open");
    disk.rename(&b, &b).unwrap();
    file.write_at(1, b"!").unwrap();
    assert_eq!(disk.read(&b, 10).unwrap(), "a!", "a handle does not follow a rename");
    assert_eq!(disk.rename(&a, &b).unwrap_err().kind, DiskErrorKind::NotFound);
    assert_eq!(disk.rename(&b, &root.join("no/b")).unwrap_err().kind, DiskErrorKind::NotFound);

    disk.remove_file(&b).unwrap();
    assert_eq!(file.read_at(0, 10).unwrap(), "a!", "a removed file is still there for who has it open");
    assert_eq!(disk.remove_file(&b).unwrap_err().kind, DiskErrorKind::NotFound);
    assert!(disk.remove_file(root).is_err());
    disk.sync_directory(root).unwrap();
    assert_eq!(disk.sync_directory(&b).unwrap_err().kind, DiskErrorKind::NotFound);
}

fn directories<D: Disk>(disk: &D, root: &Path) {
    let deep = root.join("b/c/d");
    disk.create_directory(&deep).unwrap();
    disk.create_directory(&deep).unwrap();
    disk.open(&deep.join("f"), OpenMode::CreateNew).unwrap();
    disk.open(&root.join("a"), OpenMode::CreateNew).unwrap().write_at(0, b"12345").unwrap();
    disk.open(&root.join("c"), OpenMode::CreateNew).unwrap();
    let entry = |name: &str, is_directory, len_bytes| DirectoryEntry { name: name.to_owned(), is_directory, len_bytes };
    assert_eq!(disk.list(root).unwrap(), [entry("a", false, 5), entry("b", true, 0), entry("c", false, 0)]);
    assert_eq!(disk.list(&root.join("no")).unwrap_err().kind, DiskErrorKind::NotFound);
    assert!(disk.create_directory(&root.join("a")).is_err(), "a file is in the way");
    assert!(disk.create_directory(&root.join("a/x")).is_err(), "a file is in the way");
    assert!(disk.exists(&deep).unwrap() && disk.exists(root).unwrap());
    assert!(!disk.exists(&root.join("no/no")).unwrap());

    disk.rename(&root.join("b"), &root.join("e")).unwrap();
    assert!(disk.exists(&root.join("e/c/d/f")).unwrap());
    assert!(disk.rename(&root.join("e"), &root.join("e/c/x")).is_err(), "a directory cannot be moved into itself");
    assert!(disk.rename(&root.join("a"), &root.join("e")).is_err(), "a file cannot replace a directory");
    disk.create_directory(&root.join("g")).unwrap();
    assert!(disk.rename(&root.join("g"), &root.join("e")).is_err(), "a full directory cannot be replaced");
    disk.rename(&root.join("e"), &root.join("g")).unwrap();

    disk.remove_directory(&root.join("g")).unwrap();
    disk.remove_directory(&root.join("g")).unwrap();
    disk.remove_directory(&root.join("no/no")).unwrap();
    assert!(disk.remove_directory(&root.join("a")).is_err(), "a file is not a directory");
    assert_eq!(disk.list(root).unwrap(), [entry("a", false, 5), entry("c", false, 0)]);
}

fn small_files<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    let path = root.join("f");
    disk.write_atomically(&path, b"first, and longer").unwrap();
    disk.write_atomically(&path, b"second").unwrap();
    assert_eq!(disk.read(&path, 6).unwrap(), "second");
    let error = disk.read(&path, 5).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::TooLong { found_bytes: 6, limit_bytes: 5 });
    assert_eq!(disk.list(root).unwrap().len(), 1);
}

fn locks<D: Disk>(disk: &D, root: &Path) {
    assert!(disk.lock(root).is_err(), "there is no such directory");
    disk.create_directory(root).unwrap();
    let lock = disk.lock(root).unwrap();
    assert_eq!(disk.lock(root).map(drop).unwrap_err().kind, DiskErrorKind::Locked);
    assert!(disk.exists(&root.join(LOCK_NAME)).unwrap());
    drop(lock);
    drop(disk.lock(root).unwrap());
}

fn threads<D: Disk>(disk: &D, root: &Path) {
    disk.create_directory(root).unwrap();
    let file = disk.open(&root.join("f"), OpenMode::CreateNew).unwrap();
    std::thread::scope(|scope| {
        for number in 0..4_u8 {
            let file = &file;
            scope.spawn(move || {
                for round in 0..50_u64 {
                    let offset = (round * 4 + u64::from(number)) * 100;
                    file.write_at(offset, &[number; 100]).unwrap();
                    assert_eq!(file.read_at(offset, 100).unwrap(), [number; 100].as_slice());
                }
            });
        }
    });
    let all = file.read_at(0, 100_000).unwrap();
    assert!(all.chunks(100).zip([0, 1, 2, 3].into_iter().cycle()).all(|(chunk, number)| chunk == [number; 100]));
    assert_eq!(all.len(), 20_000);
}
