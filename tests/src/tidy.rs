//! The rules of the code that a compiler does not check: which crate sees which, what a pure core must not touch, what
//! only the runtime may do, and that the documents name what is there.
//!
//! Every ban carries its reason, so that who meets it can judge whether the reason still holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' crate lies in the workspace").to_owned()
}

/// All Rust files below a directory, with their text.
fn rust_files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.clone(), fs::read_to_string(&path).expect("a readable source file"));
            }
        }
    }
    found
}

/// The lines of a file that are neither comment nor its tests at the bottom.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// Whether a file holds tests only.
fn is_test_file(path: &Path) -> bool {
    path.components()
        .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "suite" | "suite.rs" | "golden")))
        || path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| stem.ends_with("_tests") || stem.ends_with("_test"))
}

/// Every line of `files` that holds one of `banned`, said with its reason.
fn offences<'a>(files: impl IntoIterator<Item = (&'a PathBuf, &'a String)>, banned: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        if is_test_file(path) {
            continue;
        }
        for (number, line) in code_lines(text) {
            for (word, reason) in banned {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {word}: {reason}", path.display()));
                }
            }
        }
    }
    found
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn crates_see_only_the_layers_below() {
    let allowed: [(&str, &[&str]); 7] = [
        ("wire", &[]),
        ("runtime", &["situ-wire"]),
        ("namenode", &["situ-wire", "situ-runtime"]),
        ("datanode", &["situ-wire", "situ-runtime"]),
        ("client", &["situ-wire", "situ-runtime"]),
        ("compute", &["situ-wire", "situ-runtime", "situ-client"]),
        ("cli", &["situ-wire", "situ-runtime", "situ-namenode", "situ-datanode", "situ-client", "situ-compute"]),
    ];
    for (name, sees) in allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("every crate has a manifest");
        let dependencies = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for dependency in dependencies.filter(|dependency| dependency.starts_with("situ-")) {
            assert!(
                sees.contains(&dependency),
                "{name} must not depend on {dependency}: see ARCHITECTURE.md, the layers"
            );
        }
    }
}

#[test]
fn wire_has_no_async_and_no_sockets() {
    let files = rust_files(&root().join("wire/src"));
    assert_none(&offences(
        &files,
        &[
            ("async ", "messages are plain data: whoever sends them decides how to wait"),
            ("std::fs", "messages are plain data"),
            ("TcpStream", "messages are plain data"),
            ("UdpSocket", "messages are plain data"),
        ],
    ));
}

#[test]
fn cores_are_pure() {
    let mut files = BTreeMap::new();
    for role in ["namenode", "datanode", "client", "compute"] {
        let core = rust_files(&root().join(role).join("src/core"));
        assert!(!core.is_empty(), "{role} has a core");
        files.extend(core);
    }
    assert_none(&offences(
        &files,
        &[
            ("async ", "a core decides; its server waits"),
            (".await;", "a core decides; its server waits"),
            (".await?", "a core decides; its server waits"),
            ("tokio::", "a core knows no executor, so that a simulator can drive it"),
            ("situ_runtime::Runtime", "a core knows no world: time and randomness come in with events"),
            ("situ_runtime::clock", "a core knows no world: time comes in with events"),
            ("situ_runtime::transport::", "a core knows no network: what arrived comes in with events"),
            ("std::fs", "a core opens nothing"),
            ("std::time::Instant", "time comes in with events, so that a run can be repeated"),
            ("SystemTime", "time comes in with events, so that a run can be repeated"),
            ("Mutex", "a core has one owner"),
            ("RwLock", "a core has one owner"),
            ("std::thread", "a core has one owner"),
            ("println!", "a core says things through its effects"),
        ],
    ));
}

#[test]
fn only_the_runtime_touches_the_world() {
    let mut files = BTreeMap::new();
    for role in ["namenode", "datanode", "client", "compute"] {
        files.extend(rust_files(&root().join(role).join("src")));
    }
    // The processes of jobs are the one thing beyond the runtime's seams: an executor starts them, and a program's own
    // process is not simulated.
    let beyond = ["compute/src/executor", "compute/src/program", "compute/src/testing", "compute/src/builtin"];
    files.retain(|path, _| !beyond.iter().any(|part| path.to_string_lossy().contains(part)));
    assert_none(&offences(
        &files,
        &[
            ("std::fs::", "files are opened by the runtime's disk, so that faults can be injected"),
            ("tokio::fs", "files are opened by the runtime's disk, so that faults can be injected"),
            ("tokio::net", "sockets are opened by the runtime's transport"),
            ("std::net::Tcp", "sockets are opened by the runtime's transport"),
            ("tokio::time", "clocks are read by the runtime"),
            ("Instant::now", "clocks are read by the runtime"),
            ("SystemTime::now", "clocks are read by the runtime"),
            ("tokio::spawn", "tasks are spawned by the runtime"),
            ("fastrand::", "randomness is drawn by the runtime"),
        ],
    ));
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let mut files = BTreeMap::new();
    for part in ["wire", "runtime", "namenode", "datanode", "client", "compute", "cli", "tests"] {
        files.extend(rust_files(&root().join(part)));
    }
    // Written in two halves so that this file does not offend itself.
    let todo = ["TO", "DO"].concat();
    let fixme = ["FIX", "ME"].concat();
    let ignore = ["#[", "ignore"].concat();
    let mut found = Vec::new();
    for (path, text) in &files {
        for (number, line) in text.lines().enumerate() {
            for (word, reason) in [
                (&todo, "what is missing belongs in an issue, or in the README's list of what is not there yet"),
                (&fixme, "what is broken is mended or named in an issue"),
                (&ignore, "a test that does not run shows nothing: long runs are commands of their own"),
            ] {
                // A test may be the body of a process that another test starts.
                if line.contains(word.as_str()) && !line.contains("run as a process of its own by") {
                    found.push(format!("{}:{}: {word}: {reason}", path.display(), number + 1));
                }
            }
        }
    }
    assert_none(&found);
}

#[test]
fn files_say_what_they_are() {
    let vague = ["utils", "util", "helpers", "helper", "common", "misc"];
    for part in ["wire", "runtime", "namenode", "datanode", "client", "compute", "cli", "tests"] {
        for (path, text) in rust_files(&root().join(part)) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            assert!(!vague.contains(&stem), "{}: a name that says nothing; name the thing", path.display());
            let lines = text.lines().count();
            assert!(lines <= 1000, "{}: {lines} lines; look for the second idea in it", path.display());
        }
    }
}

#[test]
fn the_documents_name_what_is_there() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for name in ["wire", "runtime", "namenode", "datanode", "client", "compute", "cli", "tests"] {
        assert!(architecture.contains(&format!("`{name}/`")), "ARCHITECTURE.md does not name {name}/");
        for entry in fs::read_dir(root().join(name).join("src")).expect("every crate has sources") {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                let folder =
                    format!("`{name}/src/{}`", path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
                assert!(architecture.contains(&folder), "ARCHITECTURE.md does not name {folder}");
            }
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    assert!(readme.contains("cargo run --release -- quickstart"), "the README runs the main job with one command");
    assert!(readme.contains("cargo test --workspace"), "the README tests with one command");
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run is there");
    assert!(ci.contains("cargo test --workspace"), ".ci/run calls the README's own test command");
}
