use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use situ_wire::path::DfsPath;

use super::{Found, Glob, GlobError, Look, is_pattern, unescape};

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry(DfsPath, bool);

impl Found for Entry {
    fn path(&self) -> &DfsPath {
        &self.0
    }

    fn is_directory(&self) -> bool {
        self.1
    }
}

/// A tree of files by their paths, and how often it was looked at.
struct Tree(BTreeMap<String, bool>);

impl Tree {
    fn new<S: AsRef<str>>(files: impl IntoIterator<Item = S>) -> Self {
        let mut tree = BTreeMap::from([("/".to_owned(), true)]);
        for file in files {
            let file = file.as_ref();
            for (at, _) in file.match_indices('/').skip(1) {
                tree.insert(file[..at].to_owned(), true);
            }
            tree.entry(file.to_owned()).or_insert(false);
        }
        Self(tree)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.0.iter().map(|(path, is_directory)| Entry(DfsPath::parse(path).unwrap(), *is_directory))
    }

    fn find(&self, pattern: &str, hidden: &'static [char]) -> Result<Vec<String>, GlobError> {
        let mut search = Glob::parse(pattern)?.search::<Entry>(hidden);
        let mut asked = BTreeSet::new();
        while let Some(look) = search.next_look() {
            assert!(asked.insert(format!("{look:?}")), "asked twice: {look:?}");
            match look {
                Look::Stat(path) => search.stated(self.entries().find(|entry| entry.0 == path)),
                Look::List(path) => {
                    assert_eq!(self.0.get(path.as_str()), Some(&true), "only directories are listed");
                    search.listed(self.entries().filter(|entry| entry.0.parent().as_ref() == Some(&path)));
                }
            }
        }
        Ok(search.finish().into_iter().map(|entry| entry.0.to_string()).collect())
    }
}

#[test]
fn globs_are_hadoops() {
    let tree = Tree::new(["/a/b/x1", "/a/b/x2", "/a/c", "/c", "/d/x1", "/d/.hidden", "/d/_made", "/d/a*b", "/d/{z}"]);
    for (pattern, expected) in [
        ("/", &["/"][..]),
        ("/a", &["/a"]),
        ("/nothing", &[]),
        ("/c/nothing", &[]),
        ("/*", &["/a", "/c", "/d"]),
        ("/*/", &["/a", "/c", "/d"]),
        ("/*/*", &["/a/b", "/a/c", "/d/a*b", "/d/x1", "/d/{z}"]),
        ("/*/x?", &["/d/x1"]),
        ("/*/b/x[12]", &["/a/b/x1", "/a/b/x2"]),
        ("/*/b/x[2-9]", &["/a/b/x2"]),
        ("/a/b/x[^1]", &["/a/b/x2"]),
        ("/a/b/x[!1]", &["/a/b/x2"]),
        ("/{a/b,d}/x1", &["/a/b/x1", "/d/x1"]),
        ("/{a/b,c}", &["/a/b", "/c"]),
        ("{/a/b,/c}", &["/a/b", "/c"]),
        ("/a/b/x{1,2,{3,4}}", &["/a/b/x1", "/a/b/x2"]),
        ("/{a,a,?}/c", &["/a/c"]),
        ("/{a,a/b}/{b/x*,x*,c}", &["/a/b/x1", "/a/b/x2", "/a/c"]),
        (r"/d/a\*b", &["/d/a*b"]),
        (r"/d/\{z}", &["/d/{z}"]),
        (r"/d/\{*\}", &["/d/{z}"]),
        ("/d/[*a]*[*]*", &["/d/a*b"]),
        ("/d/{x*,a}*", &["/d/a*b", "/d/x1"]),
        ("/{*,d}*/x*", &["/d/x1"]),
        ("/d/.*", &["/d/.hidden"]),
        ("/d/{.,_}*", &["/d/.hidden", "/d/_made"]),
        ("/d/[._]*", &[]),
        ("/d/?made", &[]),
        ("/d/_made", &["/d/_made"]),
    ] {
        assert_eq!(tree.find(pattern, &['.', '_']).unwrap(), expected, "{pattern}");
    }
    assert_eq!(tree.find("/d/*e", &['.']).unwrap(), ["/d/_made"]);
}

#[test]
fn what_is_no_pattern_is_refused_with_the_reason() {
    for (pattern, message) in [
        ("/a[", "'[' is not closed"),
        ("/a[b/c]", "'[' is not closed"),
        ("/{a,b", "'{' is not closed"),
        ("/a/**/b", "holds \"**\""),
        ("/a/**", "holds \"**\""),
        ("/{a,b**}", "holds \"**\""),
        ("a*", "starts with '/'"),
        ("{/a,b}", "starts with '/'"),
        ("/a//b*", "component \"\""),
        ("/../a*", "component \"..\""),
        ("/[z-a]", "from 'z' to 'a'"),
        (
            "/{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}{0,1}",
            "stands for more",
        ),
    ] {
        let error = Glob::parse(pattern).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains(pattern), "{pattern}: {error}");
    }
    assert!(Glob::parse(r"/a/\**").is_ok() && Glob::parse("/a/[**]").is_ok());
}

#[test]
fn patterns_are_told_from_names() {
    assert!(is_pattern("/out/part-*") && is_pattern("/a/{b,c}") && is_pattern("[ab]"));
    assert!(!is_pattern("/out/part-0") && !is_pattern(r"/a\*b"));
    assert_eq!(unescape(r"a\*b\\c"), r"a*b\c");
}

/// What a pattern matches, said as simply as can be: each alternative in the place of its braces, a star as nothing or one
/// character and a star.
fn matches(pattern: &str, path: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return path.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    let next = path.chars().next();
    let behind = next.map_or("", |next| &path[next.len_utf8()..]);
    match first {
        '{' => {
            let (mut depth, mut cuts) = (0, vec![0]);
            for (at, letter) in pattern.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => cuts.push(at),
                    _ => {}
                }
                if depth == 0 {
                    cuts.push(at);
                    break;
                }
            }
            let end = cuts[cuts.len() - 1];
            cuts.windows(2)
                .any(|cut| matches(&format!("{}{}", &pattern[cut[0] + 1..cut[1]], &pattern[end + 1..]), path))
        }
        '*' => matches(rest, path) || next.is_some_and(|next| next != '/' && matches(pattern, behind)),
        '?' => next.is_some_and(|next| next != '/') && matches(rest, behind),
        // A class of two characters, or of all but them.
        '[' => {
            let (negated, class) = rest.strip_prefix('^').map_or((false, rest), |rest| (true, rest));
            let is_within = next.is_some_and(|next| class[..2].contains(next));
            next.is_some_and(|next| next != '/') && is_within != negated && matches(&class[3..], behind)
        }
        '\\' => rest.chars().next() == next && matches(&rest[1..], behind),
        plain => next == Some(plain) && matches(rest, behind),
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        4 => Just("a".to_owned()),
        4 => Just("b".to_owned()),
        3 => Just("*".to_owned()),
        2 => Just("?".to_owned()),
        1 => Just("[ab]".to_owned()),
        1 => Just("[^bc]".to_owned()),
        1 => Just(r"\*".to_owned()),
    ];
    let part = letter.prop_recursive(2, 8, 4, |inner| {
        let way = proptest::collection::vec(prop_oneof![5 => inner, 1 => Just("/".to_owned())], 1..4)
            .prop_map(|parts| parts.concat());
        proptest::collection::vec(way, 1..4).prop_map(|ways| format!("{{{}}}", ways.join(",")))
    });
    proptest::collection::vec(prop_oneof![4 => part, 1 => Just("/".to_owned())], 1..6)
        .prop_map(|parts| format!("/{}", parts.concat()))
        // The slash at an end does not count, which would have to be said twice.
        .prop_filter("a slash at an end", |pattern| {
            !["/,", "/}"].iter().any(|end| pattern.contains(end)) && !pattern.ends_with('/')
        })
}

proptest! {
    #[test]
    fn a_search_finds_what_the_pattern_matches(
        pattern in pattern(),
        files in proptest::collection::vec("(/[abc*]{1,2}){1,3}", 0..20),
    ) {
        let tree = Tree::new(&files);
        match tree.find(&pattern, &[]) {
            Ok(found) => {
                let expected: Vec<String> = tree
                    .entries()
                    .map(|entry| entry.0.to_string())
                    // The root has no name that a star could be.
                    .filter(|path| path != "/" && matches(&pattern, path))
                    .collect();
                prop_assert_eq!(found, expected);
            }
            Err(error) => prop_assert!(matches!(error, GlobError::AnyDepth { .. } | GlobError::Name { .. }), "{}", error),
        }
    }
}
