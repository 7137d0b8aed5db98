//! Configuration files that are written by `situ up` and edited by people: each start sets anew what it must, and keeps
//! the rest as it stands, comments too.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::layout::write_atomically;
use crate::error::{CliError, CliResult, LocalContext};

/// How the first line of each such file begins.
const HEADER: &str = "# `situ up` sets anew: ";

/// What is set anew only as long as it is what the last start wrote.
const UNLESS_EDITED: [&str; 1] = ["memory_bytes"];

/// A configuration as a start wants it.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// All of it: what a file gets that is not there yet.
    pub(super) fresh: Table,
    /// What is set anew in a file that is there, by the name of its table; none for the file's own keys.
    pub(super) anew: Vec<(Option<&'static str>, &'static str)>,
}

impl Settings {
    /// Writes the file at `path`, or brings the one that is there up to date.
    ///
    /// # Errors
    /// When it cannot be read or written, or is not TOML.
    pub(super) fn write(&self, path: &Path) -> CliResult {
        let before = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read.local("cannot read the configuration", path)?),
        };
        let text = match &before {
            None => toml::to_string_pretty(&self.fresh)?,
            Some(text) => {
                let invalid = |error| CliError::failed(format!("{}: {error}", path.display()));
                with(text, &self.of(&self.fresh)).map_err(invalid)?
            }
        };
        write_atomically(path, self.headed(&text).as_bytes())
    }

    /// Those of its keys that are set anew.
    fn of(&self, whole: &Table) -> Table {
        let mut part = Table::new();
        for (table, key) in &self.anew {
            let Some(from) = table.map_or(Some(whole), |table| whole.get(table)?.as_table()) else { continue };
            let Some(value) = from.get(*key) else { continue };
            let into = match table {
                None => Some(&mut part),
                Some(table) => part.entry(*table).or_insert_with(|| Value::Table(Table::new())).as_table_mut(),
            };
            into.and_then(|into| into.insert((*key).to_owned(), value.clone()));
        }
        part
    }

    /// The text under a first line that says what may be edited.
    fn headed(&self, text: &str) -> String {
        let noted =
            |key: &str| format!("{key}{}", if UNLESS_EDITED.contains(&key) { " (unless it was edited)" } else { "" });
        let keys: Vec<String> = self.anew.iter().map(|(_, key)| noted(key)).collect();
        let rest = if text.starts_with(HEADER) { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
        format!(
            "{HEADER}{}. All else may be edited: it stays, and holds from the next start on.\n{rest}",
            keys.join(", ")
        )
    }
}

/// What the file at `path` has for `key` in the table of a role; none if there is no such thing.
pub(super) fn found(path: &Path, role: &str, key: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    table.get_mut(role)?.as_table_mut()?.remove(key)
}

/// Has the file at `path` say where the role whose table is called `role` listens, for the next start.
///
/// # Errors
/// When it cannot be read or written, or is not TOML.
pub(super) fn remember(path: &Path, role: &str, listening: SocketAddr) -> CliResult {
    let text = std::fs::read_to_string(path).local("cannot read the configuration", path)?;
    let listen = Table::from_iter([("listen".to_owned(), Value::from(listening.to_string()))]);
    let edited = with(&text, &Table::from_iter([(role.to_owned(), Value::Table(listen))]));
    let edited = edited.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
    write_atomically(path, edited.as_bytes())
}

/// The text of a configuration with these values in it. Where it cannot be done within the text, as within `{ ... }`, the
/// file loses its comments, and no value.
fn with(text: &str, values: &Table) -> Result<String, toml::de::Error> {
    let mut wanted: Table = toml::from_str(text)?;
    overlay(&mut wanted, values);
    let mut edits = Vec::new();
    edit(text, DeTable::parse(text)?.get_ref(), None, values, &mut edits);
    // From behind, so that what comes before stays where it is.
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut edited = text.to_owned();
    for (range, new) in edits {
        edited.replace_range(range, &new);
    }
    if toml::from_str::<Table>(&edited).is_ok_and(|table| table == wanted) {
        return Ok(edited);
    }
    Ok(toml::to_string_pretty(&wanted).unwrap_or(edited))
}

/// Puts `values` into `table`, into its tables too.
fn overlay(table: &mut Table, values: &Table) {
    for (key, value) in values {
        match (table.get_mut(key), value) {
            (Some(Value::Table(table)), Value::Table(values)) => overlay(table, values),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// What to replace by what, so that `table`, called `name` if it is not the whole file, holds `values`.
fn edit(text: &str, table: &DeTable<'_>, name: Option<&str>, values: &Table, edits: &mut Vec<(Range<usize>, String)>) {
    let mut missing = String::new();
    for (key, value) in values {
        let found = table.iter().find(|(found, _)| found.get_ref() == key).map(|(_, found)| found);
        match (found.map(|found| (found.get_ref(), found.span())), value) {
            (Some((DeValue::Table(table), _)), Value::Table(values)) => edit(text, table, Some(key), values, edits),
            (Some((_, span)), value) => edits.push((span, value.to_string())),
            (None, Value::Table(values)) => edits.push((text.len()..text.len(), format!("\n[{key}]\n{values}"))),
            (None, value) => missing.push_str(&format!("{key} = {value}\n")),
        }
    }
    if !missing.is_empty() {
        // The file's own keys come before every table; those of a table after its header, before the first that it has.
        let first = table.keys().map(|key| key.span().start).min().filter(|_| name.is_some()).unwrap_or(0);
        let line = text[..first].rfind('\n').map_or(0, |end| end + 1);
        edits.push((line..line, missing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(slots: i64) -> Settings {
        let fresh = toml::from_str(&format!(
            "credentials = '/new/certs'\n[executor]\ndirectory = '/new/data'\nlisten = '127.0.0.1:0'\nslots = {slots}\n\
             worker_memory_bytes = 7\n"
        ));
        let anew = vec![(None, "credentials"), (Some("executor"), "directory"), (Some("executor"), "slots")];
        Settings { fresh: fresh.unwrap(), anew }
    }

    #[test]
    fn what_was_edited_stays_with_its_comments_and_what_must_be_is_set_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("executor.toml");
        settings(2).write(&path).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("# `situ up` sets anew: credentials, directory, slots. All else"), "{written}");
        assert!(written.contains("worker_memory_bytes = 7"), "{written}");
        std::fs::write(
            &path,
            "# Ours.\ncredentials = '/old'  # soon another\n[executor]\n# Much.\nworker_memory_bytes = 9 # bytes\n\
             directory = '/old'\nlisten = '127.0.0.1:4711'\nlogs_kept = 3",
        )
        .unwrap();
        for _ in 0..2 {
            settings(3).write(&path).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                "# `situ up` sets anew: credentials, directory, slots. All else may be edited: it stays, and holds from \
                 the next start on.\n# Ours.\ncredentials = \"/new/certs\"  # soon another\n[executor]\n# Much.\nslots = \
                 3\nworker_memory_bytes = 9 # bytes\ndirectory = \"/new/data\"\nlisten = '127.0.0.1:4711'\nlogs_kept = 3"
            );
        }
        remember(&path, "executor", SocketAddr::from(([127, 0, 0, 1], 815))).unwrap();
        assert_eq!(found(&path, "executor", "listen"), Some(Value::from("127.0.0.1:815")));
    }

    #[test]
    fn no_value_is_lost_however_it_is_written() {
        for text in [
            "",
            "executor = { worker_memory_bytes = 9 }\n",
            "executor.worker_memory_bytes = 9\ncredentials = '/old'\n",
            "[executor]",
            "[executor]\ndirectory = '''\n/old''' # here\nworker_memory_bytes = 9\n[executor.more]\nslots = 1\n",
        ] {
            let new: Table = toml::from_str(&with(text, &settings(3).of(&settings(3).fresh)).unwrap()).unwrap();
            let mut wanted: Table = toml::from_str(text).unwrap();
            overlay(&mut wanted, &settings(3).of(&settings(3).fresh));
            assert_eq!(new, wanted, "{text}");
            assert_eq!(new["executor"]["slots"].as_integer(), Some(3), "{text}");
            assert_eq!(new["executor"].get("worker_memory_bytes").is_some(), text.contains('9'), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("executor.toml");
        std::fs::write(&path, "[executor\n").unwrap();
        let error = settings(1).write(&path).unwrap_err();
        assert!(error.message.contains("executor.toml: "), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[executor\n");
    }
}
