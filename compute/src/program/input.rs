//! From what a user writes to the files that are meant.

use situ_client::glob::{Found, Glob, Look, is_pattern, unescape};
use situ_wire::path::DfsPath;

use super::world::{Entry, Files};

/// What the names of files and directories start with that are not read unless they are named: copies that are under way,
/// marks, what tasks write aside.
const HIDDEN: &[char] = &['.', '_'];

impl Found for Entry {
    fn path(&self) -> &DfsPath {
        &self.path
    }

    fn is_directory(&self) -> bool {
        self.is_directory
    }
}

/// The files that `pattern` names: a file itself, the files of a directory, or what matches a pattern, by path. Hidden is
/// what starts with `.` or `_`. It must be named; a component of a pattern names it if it starts with the same character.
///
/// # Errors
/// Says what is not there, is still being written, or is a directory within a directory though only `recursive` reads
/// these; for people.
pub(crate) fn resolve(files: &dyn Files, pattern: &str, recursive: bool) -> Result<Vec<DfsPath>, String> {
    // A name may hold `*`: a file that is there goes before a pattern.
    if let Ok(path) = DfsPath::parse(pattern)
        && let Some(entry) = files.stat(&path).map_err(|error| error.message)?
    {
        return within(files, entry, recursive);
    }
    if !is_pattern(pattern) {
        let path = DfsPath::parse(&unescape(pattern)).map_err(|error| error.to_string())?;
        return match files.stat(&path).map_err(|error| error.message)? {
            Some(entry) => within(files, entry, recursive),
            None => Err("there is no such file or directory".to_owned()),
        };
    }
    let mut search = Glob::parse(pattern).map_err(|error| error.to_string())?.search(HIDDEN);
    while let Some(look) = search.next_look() {
        match look {
            Look::Stat(path) => search.stated(files.stat(&path).map_err(|error| error.message)?),
            Look::List(path) => search.listed(files.list(&path).map_err(|error| error.message)?),
        }
    }
    let mut paths = Vec::new();
    for entry in search.finish() {
        paths.extend(within(files, entry, recursive)?);
    }
    if paths.is_empty() {
        return Err("no file matches this pattern".to_owned());
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A file itself, or the files of a directory that are not hidden, by path.
fn within(files: &dyn Files, entry: Entry, recursive: bool) -> Result<Vec<DfsPath>, String> {
    let (mut open, mut found) = (vec![entry], Vec::new());
    let mut is_nested = false;
    while let Some(entry) = open.pop() {
        if !entry.is_directory {
            // What is there of it now is a part that nobody has chosen.
            if entry.is_open {
                return Err(format!(
                    "{} is still being written; try again when its writer has closed it, or name only other files",
                    entry.path
                ));
            }
            found.push(entry.path);
            continue;
        }
        if is_nested && !recursive {
            return Err(format!(
                "{} is a directory within a directory, whose files are read only if that is said: use --recursive (in a \
                 program, TextOptions::recursive), or name the files that are meant",
                entry.path
            ));
        }
        is_nested = true;
        let mut entries = files.list(&entry.path).map_err(|error| error.message)?;
        entries.retain(|entry| !entry.path.name().starts_with(HIDDEN));
        open.append(&mut entries);
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use situ_wire::ids::OperationId;

    use super::*;
    use crate::program::error::StorageError;
    use crate::program::world::{Input, InputBlock, Output};

    /// The directory `/in`, in which every file with `open` in its name is being written.
    struct OneDirectory(&'static [&'static str]);

    fn entry(path: &str, is_directory: bool) -> Entry {
        Entry { path: DfsPath::parse(path).unwrap(), is_directory, is_open: path.contains("open") }
    }

    impl Files for OneDirectory {
        fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
            Ok(match path.name() {
                "" | "in" => Some(entry(path.as_str(), true)),
                name => self.0.contains(&name).then(|| entry(path.as_str(), false)),
            })
        }

        fn list(&self, directory: &DfsPath) -> Result<Vec<Entry>, StorageError> {
            Ok(match directory.name() {
                "" => vec![entry("/in", true)],
                _ => self.0.iter().map(|name| entry(&format!("/in/{name}"), false)).collect(),
            })
        }

        fn blocks(&self, _: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
            unreachable!("nothing is read")
        }

        fn open(&self, _: &DfsPath, _: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
            unreachable!("nothing is read")
        }

        fn make_directory(&self, _: &DfsPath) -> Result<(), StorageError> {
            unreachable!("nothing is written")
        }

        fn make_own_directory(&self, _: &DfsPath) -> Result<(), StorageError> {
            unreachable!("nothing is written")
        }

        fn create(&self, _: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
            unreachable!("nothing is written")
        }

        fn publish(&self, _: Vec<(DfsPath, DfsPath)>, _: DfsPath, _: OperationId) -> Result<(), StorageError> {
            unreachable!("nothing is written")
        }

        fn delete(&self, _: &DfsPath, _: bool) -> Result<bool, StorageError> {
            unreachable!("nothing is written")
        }
    }

    #[test]
    fn a_file_that_is_being_written_is_refused_wherever_it_is_meant() {
        let files = OneDirectory(&["a", "b-open", ".7._COPYING_open"]);
        for pattern in ["/in", "/in/*", "/in/b-open", "/i*"] {
            let error = resolve(&files, pattern, false).unwrap_err();
            assert!(error.starts_with("/in/b-open is still being written; try again"), "{pattern}: {error}");
        }
        assert_eq!(resolve(&files, "/in/a*", false).unwrap(), [DfsPath::parse("/in/a").unwrap()]);
        let files = OneDirectory(&["a", ".7._COPYING_open"]);
        for pattern in ["/in", "/in/*"] {
            assert_eq!(resolve(&files, pattern, false).unwrap(), [DfsPath::parse("/in/a").unwrap()]);
        }
    }
}
