//! From a text to patterns without alternatives.

use super::name::Letter;
use super::{ALTERNATIVES, GlobError};

/// A part of a pattern.
enum Part {
    Letter(Letter),
    /// Any of these.
    Either(Vec<Vec<Part>>),
}

/// The patterns without alternatives that `text` stands for, in order.
pub(super) fn expanded(text: &str) -> Result<Vec<Vec<Letter>>, GlobError> {
    let parts = Parser { text, rest: text.chars() }.parts(false)?;
    expand(&parts).ok_or_else(|| GlobError::Alternatives { pattern: text.to_owned() })
}

/// All ways through `parts`; none if they are too many.
fn expand(parts: &[Part]) -> Option<Vec<Vec<Letter>>> {
    let mut ways = vec![Vec::new()];
    for part in parts {
        match part {
            Part::Letter(letter) => ways.iter_mut().for_each(|way| way.push(letter.clone())),
            Part::Either(alternatives) => {
                let mut ends = Vec::new();
                for alternative in alternatives {
                    ends.extend(expand(alternative)?);
                }
                if ways.len() * ends.len() > ALTERNATIVES {
                    return None;
                }
                let with_ends = |way: &Vec<Letter>| -> Vec<Vec<Letter>> {
                    ends.iter().map(|end| way.iter().chain(end).cloned().collect()).collect()
                };
                ways = ways.iter().flat_map(with_ends).collect();
            }
        }
    }
    Some(ways)
}

struct Parser<'a> {
    text: &'a str,
    rest: std::str::Chars<'a>,
}

impl Parser<'_> {
    fn open(&self, opened: char) -> GlobError {
        GlobError::Open { pattern: self.text.to_owned(), opened }
    }

    /// A character behind a backslash is itself; so is a backslash at the end.
    fn escaped(&mut self) -> char {
        self.rest.next().unwrap_or('\\')
    }

    /// The parts up to the end, or within braces up to what ends an alternative, which is left.
    fn parts(&mut self, within: bool) -> Result<Vec<Part>, GlobError> {
        let mut parts = Vec::new();
        loop {
            let before = self.rest.clone();
            let Some(letter) = self.rest.next() else { return Ok(parts) };
            parts.push(match letter {
                ',' | '}' if within => {
                    self.rest = before;
                    return Ok(parts);
                }
                '\\' => Part::Letter(Letter::Plain(self.escaped())),
                // Only where it is written so: two stars that alternatives bring together are a star each.
                '*' if self.rest.as_str().starts_with('*') => {
                    return Err(GlobError::AnyDepth { pattern: self.text.to_owned() });
                }
                '*' => Part::Letter(Letter::Any),
                '?' => Part::Letter(Letter::One),
                '[' => Part::Letter(self.class()?),
                '{' => Part::Either(self.alternatives()?),
                letter => Part::Letter(Letter::Plain(letter)),
            });
        }
    }

    /// What stands in braces, behind the one that opens.
    fn alternatives(&mut self) -> Result<Vec<Vec<Part>>, GlobError> {
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.parts(true)?);
            match self.rest.next() {
                Some(',') => {}
                Some(_) => return Ok(alternatives),
                None => return Err(self.open('{')),
            }
        }
    }

    /// What stands in brackets, behind the one that opens. One that closes first of all is itself.
    fn class(&mut self) -> Result<Letter, GlobError> {
        let mut ranges: Vec<(char, char)> = Vec::new();
        let start = self.rest.as_str();
        let negated = start.starts_with(['^', '!']);
        if negated {
            self.rest.next();
        }
        let mut is_first = true;
        loop {
            let first = match self.rest.next() {
                // No class matches a slash: this one cannot have been meant to be one.
                None | Some('/') => return Err(self.open('[')),
                Some(']') if !is_first => return Ok(Letter::Class { negated, ranges }),
                Some('\\') => self.escaped(),
                Some(letter) => letter,
            };
            is_first = false;
            let mut ahead = self.rest.clone();
            let last = match (ahead.next(), ahead.next()) {
                (Some('-'), Some(']' | '/') | None) | (None, _) => first,
                (Some('-'), Some(last)) => {
                    self.rest = ahead;
                    if last == '\\' { self.escaped() } else { last }
                }
                _ => first,
            };
            if last < first {
                return Err(GlobError::Range { pattern: self.text.to_owned(), first, last });
            }
            ranges.push((first, last));
        }
    }
}
