//! Globs on paths, as Hadoop's: for the input of jobs and for `situ fs` alike.
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any characters of one name, none too |
//! | `?` | one character of a name |
//! | `[abc]`, `[a-c]`, `[^a]`, `[!a]` | one character of a name that is, or is not, among these |
//! | `{a,b}` | either, and each may hold patterns and `/`: `/{a/b,c}` |
//! | `\` before a character | that character |
//!
//! `**` is refused: to Hadoop it is a `*`, to many shells directories of any depth, and whoever writes it means one of the
//! two. Alternatives are expanded first; what is left is matched name by name, so that nothing but an alternative crosses a
//! `/`.

mod name;
mod parse;
mod search;

use situ_wire::path::{DfsPath, PathError};

use self::name::{Letter, NamePattern};
pub use self::search::{Found, Look, Search};

/// How many patterns the alternatives of one may stand for.
const ALTERNATIVES: usize = 10_000;

/// A pattern for paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob {
    /// The patterns without alternatives that it stands for: the names of each from the root down.
    alternatives: Vec<Vec<Name>>,
}

/// One name of a path that is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Name {
    /// This name.
    Plain(String),
    /// Whatever matches.
    Pattern(NamePattern),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Something that opens is not closed.
    #[error(
        "the pattern {pattern:?} is not valid: the {opened:?} is not closed; write \\{opened} if it is part of a name"
    )]
    Open {
        /// The pattern.
        pattern: String,
        /// `[` or `{`.
        opened: char,
    },
    /// A range runs backwards.
    #[error("the pattern {pattern:?} is not valid: nothing lies from {first:?} to {last:?}")]
    Range {
        /// The pattern.
        pattern: String,
        /// Where the range begins.
        first: char,
        /// Where it ends.
        last: char,
    },
    /// Two stars.
    #[error(
        "the pattern {pattern:?} holds \"**\", which means one level to some and any depth to others; write * for one \
         level, or name the directory and have it read or listed recursively"
    )]
    AnyDepth {
        /// The pattern.
        pattern: String,
    },
    /// Its alternatives stand for too many patterns.
    #[error("the pattern {pattern:?} stands for more than {ALTERNATIVES} patterns; name a directory or use *")]
    Alternatives {
        /// The pattern.
        pattern: String,
    },
    /// It does not begin with `/`.
    #[error("the pattern {pattern:?} is not absolute: expected one that starts with '/'")]
    Relative {
        /// The pattern.
        pattern: String,
    },
    /// A name without a pattern in it is not one.
    #[error("the pattern {pattern:?} is not valid: {reason}")]
    Name {
        /// The pattern.
        pattern: String,
        /// Which rule is broken.
        reason: PathError,
    },
}

impl Glob {
    /// Takes `text` as a pattern; one slash at its end does not count.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let mut alternatives = Vec::new();
        for letters in parse::expanded(text)? {
            let pattern = || text.to_owned();
            let Some((Letter::Plain('/'), rest)) = letters.split_first() else {
                return Err(GlobError::Relative { pattern: pattern() });
            };
            let rest = match rest {
                [rest @ .., Letter::Plain('/')] if !rest.is_empty() => rest,
                rest => rest,
            };
            if rest.is_empty() {
                alternatives.push(Vec::new());
                continue;
            }
            let names = rest.split(|letter| *letter == Letter::Plain('/')).map(|letters| {
                let pattern_of_name = NamePattern::new(letters);
                match pattern_of_name.plain() {
                    None => Ok(Name::Pattern(pattern_of_name)),
                    Some(name) => match DfsPath::root().join(&name) {
                        Ok(_) => Ok(Name::Plain(name)),
                        Err(reason) => Err(GlobError::Name { pattern: pattern(), reason }),
                    },
                }
            });
            alternatives.push(names.collect::<Result<_, _>>()?);
        }
        Ok(Self { alternatives })
    }

    /// Begins to look for what it matches. A name that starts with one of `hidden` is found only by a pattern that starts
    /// with the same character.
    #[must_use]
    pub fn search<E: Found>(self, hidden: &'static [char]) -> Search<E> {
        Search::new(self.alternatives, hidden)
    }
}

/// Whether a text, taken as a pattern, matches anything but one path.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let mut escaped = false;
    text.chars().any(|letter| {
        let special = !escaped && matches!(letter, '*' | '?' | '[' | '{');
        escaped = !escaped && letter == '\\';
        special
    })
}

/// Takes the backslashes of a pattern away that are there for the character behind them.
#[must_use]
pub fn unescape(text: &str) -> String {
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
mod tests;
