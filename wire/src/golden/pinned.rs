//! The samples against the file.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::book::Book;
use super::samples;

const GOLDEN: &str = include_str!("../../golden/v1.txt");

/// Where the file is written when it is written anew.
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/v1.txt");

const HEADER: &str = "\
# The encoding of every message of protocol version 1: a sample of each struct and of each variant of each enum.
# A changed line needs a new protocol version. To add lines: SITU_GOLDEN=write cargo test -p situ-wire golden
";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn file(book: &Book) -> String {
    book.samples.iter().fold(HEADER.to_owned(), |mut text, sample| {
        writeln!(text, "{} = {}", sample.name, hex(&sample.bytes)).unwrap();
        text
    })
}

fn pinned(file: &str) -> BTreeMap<&str, &str> {
    let lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once('=').unwrap()).map(|(name, hex)| (name.trim(), hex.trim())).collect()
}

/// What is wrong with the samples as against the file, a line each.
fn differences(book: &Book, file: &str) -> Vec<String> {
    let mut left = pinned(file);
    let mut found = Vec::new();
    for sample in &book.samples {
        let now = hex(&sample.bytes);
        match left.remove(sample.name.as_str()) {
            Some(pinned) if pinned == now => {}
            Some(pinned) => found.push(format!(
                "{}: pinned as {pinned}, encoded as {now}; a changed encoding needs a new protocol version",
                sample.name
            )),
            None => found.push(format!(
                "{}: not pinned yet; run SITU_GOLDEN=write cargo test -p situ-wire golden and look at the difference",
                sample.name
            )),
        }
    }
    let gone = left.keys();
    found.extend(gone.map(|name| format!("{name}: pinned, but gone; a removed message needs a new protocol version")));
    found
}

#[test]
fn every_message_is_encoded_as_it_is_pinned() {
    let book = samples::all();
    if std::env::var("SITU_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(GOLDEN_PATH, file(&book)).unwrap();
        return;
    }
    let found = differences(&book, GOLDEN);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_changed_a_new_and_a_removed_message_are_each_named() {
    let mut book = Book::default();
    book.add("one", &1_u8);
    book.add("two", &2_u8);
    assert_eq!(differences(&book, &file(&book)), [""; 0]);
    let found = differences(&book, "# comment\none = 07\nthree = 03\n");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("one: pinned as 07, encoded as 01"));
    assert!(found[1].starts_with("two: not pinned yet"));
    assert!(found[2].starts_with("three: pinned, but gone"));
}
