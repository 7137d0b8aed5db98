//! Texts of any length, as they are told to others.

use std::borrow::Cow;

/// How much of a text is told, in characters: it stands in messages, journals and lists.
pub(crate) const TOLD_CHARS: usize = 8_000;

/// A text, or its beginning if it is too long.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(TOLD_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{} ...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = "é".repeat(TOLD_CHARS + 1);
        assert_eq!(shortened(&long).chars().count(), TOLD_CHARS + 4);
        assert_eq!(shortened(&long[2..]), long[2..]);
    }
}
