//! Paths of the distributed file system.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{NAME_LEN_BYTES, PATH_DEPTH, PATH_LEN_BYTES};

/// An absolute, normalized path: it starts with `/`, has no empty, `.` or `..` component, does not end in `/` (but for
/// the root itself), and keeps the limits on lengths. Decoding checks all of it, so that a server never sees another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DfsPath(String);

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty.
    #[error("the path is empty: expected an absolute path such as /data/file")]
    Empty,
    /// It does not start with `/`.
    #[error("path {path:?}: expected an absolute path that starts with '/'")]
    Relative {
        /// What was given.
        path: String,
    },
    /// It has a component that is not a name.
    #[error("path {path:?}: component {component:?} is not allowed; name the target without '.', '..' or '//'")]
    Component {
        /// What was given.
        path: String,
        /// The part that is not a name.
        component: String,
    },
    /// A name holds a character that no name may hold.
    #[error("path {path:?}: a name must not hold a NUL, a line break or another control character")]
    Control {
        /// What was given.
        path: String,
    },
    /// A name is too long.
    #[error("path: a name has {found_bytes} bytes; at most {NAME_LEN_BYTES} are allowed: {name:?}")]
    NameTooLong {
        /// Its first bytes.
        name: String,
        /// Its length.
        found_bytes: usize,
    },
    /// The whole is too long.
    #[error("path: {found_bytes} bytes; at most {PATH_LEN_BYTES} are allowed")]
    TooLong {
        /// Its length.
        found_bytes: usize,
    },
    /// There are too many components.
    #[error("path: {found} levels; at most {PATH_DEPTH} are allowed")]
    TooDeep {
        /// How many there are.
        found: usize,
    },
}

impl DfsPath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Takes `text` as a path. One trailing `/` is taken off, as Unix tools do; everything else must be normal.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_LEN_BYTES {
            return Err(PathError::TooLong { found_bytes: text.len() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError::Relative { path: text.to_owned() });
        };
        if rest.is_empty() {
            return Ok(Self::root());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for name in rest.split('/') {
            check_name(name, text)?;
        }
        let depth = rest.split('/').count();
        if depth > PATH_DEPTH {
            return Err(PathError::TooDeep { found: depth });
        }
        Ok(Self(format!("/{rest}")))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The names from the root down; none for the root itself.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0[1..].split('/').filter(|name| !name.is_empty())
    }

    /// The last name; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directory that holds this; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.rfind('/').unwrap_or(0);
        Some(if cut == 0 { Self::root() } else { Self(self.0[..cut].to_owned()) })
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// When `name` is not one valid name, or the whole becomes too long or too deep.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        check_name(name, name)?;
        Self::parse(&if self.is_root() { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The name beside this path under which a client writes a file before it is renamed to it, whole; `random` keeps
    /// clients apart. See [`is_copying`].
    ///
    /// # Errors
    /// When this is the root, or the path becomes too long.
    pub fn copying(&self, random: u64) -> Result<Self, PathError> {
        let Some(parent) = self.parent() else {
            return Err(PathError::Component { path: self.0.clone(), component: String::new() });
        };
        parent.join(&format!(".{random:016x}{COPYING_SUFFIX}"))
    }

    /// The path as one word of a shell's command line.
    #[must_use]
    pub fn for_shell(&self) -> String {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=:,@%".contains(letter);
        if self.0.chars().all(plain) { self.0.clone() } else { format!("'{}'", self.0.replace('\'', r"'\''")) }
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root() || self.0 == other.0 || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// What the names of files end with that are copied to the cluster and not yet whole.
const COPYING_SUFFIX: &str = "._COPYING_";

/// Whether a name is that of a file that is copied to the cluster and not yet whole: it starts with a dot and ends with
/// `._COPYING_`. Nobody else can go on with such a file, so that the namenode deletes it when its writer is gone, also when
/// it was closed already. Nothing is renamed to such a name.
#[must_use]
pub fn is_copying(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(COPYING_SUFFIX)
}

fn check_name(name: &str, path: &str) -> Result<(), PathError> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(PathError::Component { path: path.to_owned(), component: name.to_owned() });
    }
    if name.chars().any(char::is_control) {
        return Err(PathError::Control { path: path.to_owned() });
    }
    if name.len() > NAME_LEN_BYTES {
        return Err(PathError::NameTooLong {
            name: name.chars().take(32).collect::<String>() + "...",
            found_bytes: name.len(),
        });
    }
    Ok(())
}

impl fmt::Display for DfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for DfsPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for DfsPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths_are_taken_as_they_are() {
        for text in ["/", "/a", "/a/b c", "/\"quoted\"/emoji 🦀", "/..a/b..", "/a:b*?"] {
            assert_eq!(DfsPath::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(DfsPath::parse("/a/").unwrap().as_str(), "/a");
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        assert_eq!(DfsPath::parse(""), Err(PathError::Empty));
        assert!(matches!(DfsPath::parse("a/b"), Err(PathError::Relative { .. })));
        for text in ["//", "/a//b", "/a/../b", "/./a", "/..", "/a//"] {
            assert!(matches!(DfsPath::parse(text), Err(PathError::Component { .. })), "{text}");
        }
        assert!(matches!(DfsPath::parse("/a\nb"), Err(PathError::Control { .. })));
        assert!(DfsPath::parse(&format!("/{}", "x".repeat(255))).is_ok());
        assert!(matches!(
            DfsPath::parse(&format!("/{}", "x".repeat(256))),
            Err(PathError::NameTooLong { found_bytes: 256, .. })
        ));
        assert!(matches!(DfsPath::parse(&"/x".repeat(2049)), Err(PathError::TooLong { found_bytes: 4098 })));
        assert!(matches!(DfsPath::parse(&"/x".repeat(513)), Err(PathError::TooDeep { found: 513 })));
    }

    #[test]
    fn a_file_that_is_being_copied_has_a_name_of_its_own() {
        let path = DfsPath::parse("/a/b").unwrap();
        let aside = path.copying(7).unwrap();
        assert_eq!(aside.as_str(), "/a/.0000000000000007._COPYING_");
        assert!(is_copying(aside.name()));
        assert!(!is_copying(path.name()) && !is_copying("b._COPYING_") && !is_copying("._COPYING_.b"));
        assert!(DfsPath::root().copying(7).is_err());
    }

    #[test]
    fn a_shell_takes_a_path_as_one_word() {
        for (text, word) in [("/a/b-1.txt", "/a/b-1.txt"), ("/a b", "'/a b'"), ("/it's*", r"'/it'\''s*'")] {
            assert_eq!(DfsPath::parse(text).unwrap().for_shell(), word);
        }
    }

    #[test]
    fn parents_and_children_agree() {
        let path = DfsPath::parse("/a/b").unwrap();
        assert_eq!(path.name(), "b");
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().join("b").unwrap(), path);
        assert_eq!(DfsPath::root().parent(), None);
        assert_eq!(path.components().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(DfsPath::root().components().count(), 0);
        assert!(path.starts_with(&DfsPath::parse("/a").unwrap()));
        assert!(!DfsPath::parse("/ab").unwrap().starts_with(&DfsPath::parse("/a").unwrap()));
    }
}
