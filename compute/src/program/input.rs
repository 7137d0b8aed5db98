//! From what a user writes to the files that are meant.

use globset::GlobBuilder;
use situ_wire::path::DfsPath;

use super::world::{Entry, Files};

/// The files that `pattern` names: a file itself, the files of a directory, or what matches a pattern, by path. Hidden is
/// what starts with `.` or `_`: copies that are under way, marks, what tasks write aside. It must be named; a component of
/// a pattern names it if it starts with the same character.
///
/// # Errors
/// Says what is not there, or is still being written, for people.
pub(crate) fn resolve(files: &dyn Files, pattern: &str) -> Result<Vec<DfsPath>, String> {
    let path = DfsPath::parse(pattern);
    if let Ok(path) = &path {
        // A name may hold `*`: a file that is there goes before a pattern.
        if let Some(entry) = files.stat(path).map_err(|error| error.message)? {
            return within(files, entry);
        }
    }
    let path = path.map_err(|error| error.to_string())?;
    if !is_pattern(pattern) {
        return Err("there is no such file or directory".to_owned());
    }
    let mut found = vec![DfsPath::root()];
    for component in path.components() {
        let mut next = Vec::new();
        for directory in found {
            if !is_pattern(component) {
                next.push(directory.join(component).map_err(|error| error.to_string())?);
                continue;
            }
            let matcher = GlobBuilder::new(component)
                .literal_separator(true)
                .build()
                .map_err(|error| format!("the pattern {component:?} is not valid: {}", error.kind()))?
                .compile_matcher();
            let is_meant = |path: &DfsPath| {
                let name = path.name();
                matcher.is_match(name) && (!is_hidden(name) || name.chars().next() == component.chars().next())
            };
            match files.stat(&directory).map_err(|error| error.message)? {
                Some(entry) if entry.is_directory => {
                    let entries = files.list(&directory).map_err(|error| error.message)?;
                    next.extend(entries.into_iter().map(|entry| entry.path).filter(is_meant));
                }
                _ => {}
            }
        }
        found = next;
    }
    let mut paths = Vec::new();
    for path in found {
        if let Some(entry) = files.stat(&path).map_err(|error| error.message)? {
            paths.extend(within(files, entry)?);
        }
    }
    if paths.is_empty() {
        return Err("no file matches this pattern".to_owned());
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A file itself, or the files of a directory that are not hidden.
fn within(files: &dyn Files, entry: Entry) -> Result<Vec<DfsPath>, String> {
    let entries = if entry.is_directory {
        let mut entries = files.list(&entry.path).map_err(|error| error.message)?;
        entries.retain(|entry| !entry.is_directory && !is_hidden(entry.path.name()));
        entries
    } else {
        vec![entry]
    };
    // What is there of it now is a part that nobody has chosen.
    if let Some(open) = entries.iter().find(|entry| entry.is_open) {
        return Err(format!(
            "{} is still being written; try again when its writer has closed it, or name only other files",
            open.path
        ));
    }
    Ok(entries.into_iter().map(|entry| entry.path).collect())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
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

        fn create(&self, _: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
            unreachable!("nothing is written")
        }

        fn publish(
            &self,
            _: Vec<(DfsPath, DfsPath)>,
            _: DfsPath,
            _: DfsPath,
            _: OperationId,
        ) -> Result<(), StorageError> {
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
            let error = resolve(&files, pattern).unwrap_err();
            assert!(error.starts_with("/in/b-open is still being written; try again"), "{pattern}: {error}");
        }
        assert_eq!(resolve(&files, "/in/a*").unwrap(), [DfsPath::parse("/in/a").unwrap()]);
        let files = OneDirectory(&["a", ".7._COPYING_open"]);
        for pattern in ["/in", "/in/*"] {
            assert_eq!(resolve(&files, pattern).unwrap(), [DfsPath::parse("/in/a").unwrap()]);
        }
    }
}
