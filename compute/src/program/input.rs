//! From what a user writes to the files that are meant.

use globset::GlobBuilder;
use situ_wire::path::DfsPath;

use super::world::{Entry, Files};

/// The files that `pattern` names: a file itself, the files of a directory, or what matches a pattern, by path.
///
/// # Errors
/// Says what is not there, for people.
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
            match files.stat(&directory).map_err(|error| error.message)? {
                Some(entry) if entry.is_directory => {
                    let entries = files.list(&directory).map_err(|error| error.message)?;
                    next.extend(
                        entries.into_iter().map(|entry| entry.path).filter(|path| matcher.is_match(path.name())),
                    );
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
    if !entry.is_directory {
        return Ok(vec![entry.path]);
    }
    let entries = files.list(&entry.path).map_err(|error| error.message)?;
    let visible = |entry: &Entry| !entry.is_directory && !entry.path.name().starts_with(['.', '_']);
    Ok(entries.into_iter().filter(visible).map(|entry| entry.path).collect())
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}
