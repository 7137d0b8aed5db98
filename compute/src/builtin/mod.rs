//! The programs that every executor has, written against the public API as a user's are.

mod grep;
mod pi;
mod wordcount;

use std::process::ExitCode;

use situ_client::glob::{Glob, is_pattern};
use situ_wire::path::DfsPath;

use crate::core::CLEAN_UP;
use crate::dataset::{Context, TextOptions};
use crate::program::error::ProgramResult;

/// A built-in program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as in a usage line.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    check: fn(&[String]) -> Result<(), String>,
    run: fn(&Context, &[String]) -> ProgramResult,
}

/// The option of those that read files to read those of nested directories too.
const RECURSIVE: &str = "--recursive";
/// The option of those that read files to read them as they are, whatever their names end in.
const PLAIN: &str = "--plain";

/// All of them, by name.
pub const ALL: [BuiltIn; 3] = [grep::GREP, pi::PI, wordcount::WORDCOUNT];

/// The one with that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|program| program.name == name)
}

impl BuiltIn {
    /// Checks its arguments, so that who submits it hears at once what is wrong.
    ///
    /// # Errors
    /// Says what is wrong, and how it is used.
    pub fn check(&self, arguments: &[String]) -> Result<(), String> {
        (self.check)(arguments).map_err(|error| format!("{error}; usage: {} {}", self.name, self.usage))
    }

    /// Runs it in a context.
    ///
    /// # Errors
    /// When an argument is wrong or the job fails.
    pub fn run(&self, context: &Context, arguments: &[String]) -> ProgramResult {
        self.check(arguments)?;
        (self.run)(context, arguments)
    }
}

/// Runs the built-in program `name` as a process of a job: what the executable that holds it calls.
#[must_use]
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    // No program that anybody submits: the scheduler has it run behind a job.
    if name == CLEAN_UP {
        return crate::program::clean_up(arguments);
    }
    let found = find(name);
    crate::run_with(arguments, |context, arguments| match found {
        Some(program) => program.run(context, arguments),
        None => {
            let names: Vec<&str> = ALL.iter().map(|program| program.name).collect();
            Err(format!("there is no built-in program {name:?}; there are {}", names.join(", ")).into())
        }
    })
}

/// What an argument says of how files are read, if it is an option for that.
fn text_option(argument: &str, options: TextOptions) -> Option<TextOptions> {
    match argument {
        RECURSIVE => Some(options.recursive(true)),
        PLAIN => Some(options.plain(true)),
        _ => None,
    }
}

/// Checks the paths of what is read and of the directory that is made.
fn check_paths(input: &str, output: &str) -> Result<(), String> {
    if is_pattern(input) {
        Glob::parse(input).map_err(|error| error.to_string())?;
    } else {
        DfsPath::parse(input).map_err(|error| error.to_string())?;
    }
    match DfsPath::parse(output) {
        Ok(output) if output.is_root() => Err("OUT must be a new directory, and / is there always".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use situ_runtime::disk::memory::MemoryDisk;
    use situ_runtime::disk::{Disk, File, OpenMode};

    use super::*;
    use crate::program::local::{LocalOptions, StillClock, context};

    fn strings(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    fn run_over(input: &[u8], name: &str, arguments: &[&str]) -> (MemoryDisk, ProgramResult) {
        let disk = MemoryDisk::default();
        disk.create_directory(Path::new("/r/files")).unwrap();
        disk.open(Path::new("/r/files/in"), OpenMode::CreateNew).unwrap().write_at(0, input).unwrap();
        let options = LocalOptions { block_len_bytes: 100, ..LocalOptions::default() };
        let context = context(disk.clone(), StillClock, Path::new("/r"), options);
        let result = find(name).unwrap().run(&context, &strings(arguments));
        (disk, result)
    }

    fn parts(disk: &MemoryDisk) -> Vec<Vec<u8>> {
        let directory = Path::new("/r/files/out");
        let names = disk.list(directory).unwrap().into_iter().map(|entry| entry.name);
        names
            .filter(|name| name.starts_with("part-"))
            .map(|name| disk.read(&directory.join(name), 1 << 20).unwrap().to_vec())
            .collect()
    }

    #[test]
    fn wordcount_counts_bytes_between_white_space() {
        let input = b"the cat\tand the\r\nhat \xff\xfe the \x0c cat\n".repeat(40);
        let (disk, result) = run_over(&input, "wordcount", &["/in", "/out", "--reducers", "3"]);
        result.unwrap();
        let parts = parts(&disk);
        assert_eq!(parts.len(), 3);
        let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for part in &parts {
            let lines: Vec<&[u8]> = part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            assert!(lines.is_sorted(), "a part is sorted by word");
            for line in lines {
                let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
                let count = std::str::from_utf8(&line[tab + 1..]).unwrap().parse().unwrap();
                assert_eq!(counts.insert(line[..tab].to_vec(), count), None);
            }
        }
        let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for word in input.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            *expected.entry(word.to_vec()).or_default() += 1;
        }
        assert_eq!(counts, expected);
    }

    #[test]
    fn grep_keeps_matching_lines_in_their_order() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let (disk, result) = run_over(lines.join("\n").as_bytes(), "grep", &["7$", "/in", "/out"]);
        result.unwrap();
        let expected: Vec<u8> = lines
            .iter()
            .filter(|line| line.ends_with('7'))
            .flat_map(|line| [line.as_bytes(), b"\n"].concat())
            .collect();
        assert_eq!(parts(&disk).concat(), expected);
    }

    #[test]
    fn options_say_how_files_are_read() {
        let options = TextOptions::default().recursive(true).plain(true);
        for arguments in
            [&["a", "/in", "/out", "--recursive", "--plain"], &["a", "/in", "/out", "--plain", "--recursive"]]
        {
            assert_eq!(grep::parse(&strings(arguments)).unwrap().options, options);
            assert_eq!(wordcount::parse(&strings(&arguments[1..])).unwrap().options, options);
        }
        let arguments = strings(&["--plain", "/in", "/out"]);
        assert_eq!(grep::parse(&arguments).unwrap().options, TextOptions::default(), "a pattern");
    }

    #[test]
    fn pi_is_about_pi() {
        let estimate = pi::estimate(
            &context(MemoryDisk::default(), StillClock, Path::new("/r"), LocalOptions::default()),
            4,
            20_000,
        );
        assert!((estimate.unwrap() - std::f64::consts::PI).abs() < 0.02);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (name, arguments, message) in [
            ("wordcount", &["/in"][..], "usage: wordcount IN OUT"),
            ("wordcount", &["/in", "/out", "--reducers", "none"], "--reducers"),
            ("wordcount", &["/in", "/out", "--reducers", "0"], "--reducers"),
            ("wordcount", &["/in", "out"], "absolute path"),
            ("wordcount", &["/in", "/"], "OUT must be a new directory"),
            ("grep", &["(", "/in", "/out"], "pattern"),
            ("grep", &["a", "/in", "/"], "OUT must be a new directory"),
            ("pi", &["none"], "PARTITIONS"),
        ] {
            let (_, result) = run_over(b"", name, arguments);
            let error = result.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert!(find("nothing").is_none());
    }
}
