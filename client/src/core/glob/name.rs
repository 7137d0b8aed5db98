/// What one character of a name may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Letter {
    /// This one.
    Plain(char),
    /// Any.
    One,
    /// Any number of any.
    Any,
    /// One within these ranges, or one that is not.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern for one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NamePattern(Vec<Letter>);

impl Letter {
    /// Whether it may be `letter`; what it is for more than one is not asked.
    fn is(&self, letter: char) -> bool {
        match self {
            Self::Plain(this) => *this == letter,
            Self::One => true,
            Self::Any => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
        }
    }
}

impl NamePattern {
    pub(super) fn new(letters: &[Letter]) -> Self {
        Self(letters.to_vec())
    }

    /// The name that it is, if it is only one.
    pub(super) fn plain(&self) -> Option<String> {
        let plain = |letter: &Letter| if let Letter::Plain(letter) = letter { Some(*letter) } else { None };
        self.0.iter().map(plain).collect()
    }

    /// Whether it starts with just this character.
    pub(super) fn starts_with(&self, letter: char) -> bool {
        self.0.first() == Some(&Letter::Plain(letter))
    }

    /// Whether it matches all of `name`. The last star takes more and more until what follows it fits: an earlier one need
    /// never take more than it has.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut in_name) = (0, 0);
        // Behind the last star, and where what it takes ends.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match self.0.get(at) {
                Some(Letter::Any) => {
                    at += 1;
                    star = Some((at, in_name));
                    continue;
                }
                Some(letter) if name.get(in_name).is_some_and(|found| letter.is(*found)) => {
                    (at, in_name) = (at + 1, in_name + 1);
                    continue;
                }
                None if in_name == name.len() => return true,
                _ => {}
            }
            match &mut star {
                Some((behind, taken)) if *taken < name.len() => {
                    *taken += 1;
                    (at, in_name) = (*behind, *taken);
                }
                _ => return false,
            }
        }
    }
}
