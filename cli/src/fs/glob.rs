//! Globs on paths in the cluster.
//!
//! A pattern is matched name by name: `*` never crosses a `/`. A backslash takes the meaning of the next character away.

use globset::{GlobBuilder, GlobMatcher};
use situ_wire::path::DfsPath;

use crate::error::{CliError, CliResult};

/// One name of a pattern.
#[derive(Debug)]
pub(super) enum Piece {
    /// A name as it is.
    Name(String),
    /// Whatever matches.
    Pattern(GlobMatcher),
}

/// Whether a pattern matches anything but itself.
pub(super) fn is_pattern(text: &str) -> bool {
    let mut escaped = false;
    text.chars().any(|letter| {
        let special = !escaped && matches!(letter, '*' | '?' | '[' | '{');
        escaped = !escaped && letter == '\\';
        special
    })
}

/// Cuts an absolute pattern into its names.
///
/// # Errors
/// When a name is neither one that can be nor a valid glob.
pub(super) fn pieces(pattern: &str) -> CliResult<Vec<Piece>> {
    let rest = pattern.strip_prefix('/').unwrap_or(pattern);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.split('/').map(piece).collect()
}

fn piece(text: &str) -> CliResult<Piece> {
    if !is_pattern(text) {
        let name = unescape(text);
        DfsPath::root().join(&name).map_err(CliError::usage)?;
        return Ok(Piece::Name(name));
    }
    let glob = GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| CliError::usage(format!("{text:?} is not a glob: {}", error.kind())))?;
    Ok(Piece::Pattern(glob.compile_matcher()))
}

/// Takes the backslashes away.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next().or(Some('\\'))),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_from_names() {
        assert!(is_pattern("/out/part-*") && is_pattern("/a/{b,c}") && is_pattern("[ab]"));
        assert!(!is_pattern("/out/part-0") && !is_pattern(r"/a\*b"));
        assert_eq!(unescape(r"a\*b\\c"), r"a*b\c");
    }

    #[test]
    fn a_star_stays_within_its_name() {
        let found = pieces("/out/part-*").unwrap();
        assert!(matches!(&found[0], Piece::Name(name) if name == "out"));
        let Piece::Pattern(glob) = &found[1] else { panic!("a pattern") };
        assert!(glob.is_match("part-00000") && !glob.is_match("part") && !glob.is_match("part-0/x"));
        assert!(pieces("/a[").is_err() && pieces("/../a*").is_err() && pieces("/a//b*").is_err());
    }
}
