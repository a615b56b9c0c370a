//! Names that users choose for themselves and for their parties.
//!
//! A name is shown to others beside other names, so that it must not hide, reorder or imitate text: it has no control
//! characters, no characters that change the direction of text (Unicode TR 36 and TR 9), no invisible ones, and no long
//! runs of combining marks. Nothing is stripped silently: a name is either valid or rejected with the reason.

/// Characters of a member's display name.
pub const DISPLAY_NAME_CHARS: usize = 32;
/// Characters of a party's name.
pub const PARTY_NAME_CHARS: usize = 40;

/// The maximum number of combining marks in a row, enough for every living script.
const MAX_MARKS_IN_A_ROW: usize = 3;

/// Why a name is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It has too many characters.
    #[error("the name is longer than {limit} characters")]
    TooLong {
        /// The allowed number of characters.
        limit: usize,
    },
    /// It begins or ends with a space.
    #[error("the name begins or ends with a space")]
    Padded,
    /// It contains a character that is invisible, controls the text around it, or is not assigned.
    #[error("the name holds a character that cannot be shown (U+{code:04X})")]
    Hidden {
        /// The character's code point.
        code: u32,
    },
    /// It has too many accents on one letter.
    #[error("the name piles too many accents on one letter")]
    Piled,
}

/// Checks a member's display name.
///
/// # Errors
/// The rule that it breaks.
pub fn check_display_name(name: &str) -> Result<(), NameError> {
    check(name, DISPLAY_NAME_CHARS)
}

/// Checks a party's name.
///
/// # Errors
/// The rule that it breaks.
pub fn check_party_name(name: &str) -> Result<(), NameError> {
    check(name, PARTY_NAME_CHARS)
}

fn check(name: &str, limit: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > limit {
        return Err(NameError::TooLong { limit });
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(NameError::Padded);
    }
    let mut marks = 0;
    let mut previous = None;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let joins = previous.is_some_and(|previous| joins_emoji(c, previous)) && rest.peek().is_some();
        if is_hidden(c) && !joins {
            return Err(NameError::Hidden { code: c.into() });
        }
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if marks > MAX_MARKS_IN_A_ROW || (marks > 0 && previous.is_none()) {
            return Err(NameError::Piled);
        }
        previous = Some(c);
    }
    Ok(())
}

/// Returns true for a zero width joiner after a pictograph, as in the emoji of a family.
const fn joins_emoji(c: char, previous: char) -> bool {
    c == '\u{200d}' && matches!(previous, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

const fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            // Direction: Arabic letter mark, marks, embeddings, overrides, isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Invisible: soft hyphen, joiners, fillers, word joiner, invisible operators, byte order mark, blank Braille.
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{2800}'
            | '\u{3164}' | '\u{ffa0}' | '\u{feff}' | '\u{fe00}'..='\u{fe0e}' | '\u{fff0}'..='\u{fffd}'
            // Private use, tags, variation selectors.
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_many_scripts_are_valid() {
        for name in [
            "Ana",
            "Zoë",
            "Jörg 2",
            "Наташа",
            "محمد",
            "田中さん",
            "נועה",
            "Thị Ánh",
            "👩‍👧‍👦",
            "❤️ gamer",
            "a.b-c_d",
            "สมชาย",
        ] {
            assert_eq!(check_display_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn hidden_and_piled_characters_are_rejected() {
        let hostile = [
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{202e}b",
            "\u{2067}a",
            "a\u{200b}b",
            "a\u{200d}",
            "a\u{a0}b",
            "\u{3164}",
            "a\u{feff}",
        ];
        for name in hostile {
            assert!(matches!(check_display_name(name), Err(NameError::Hidden { .. })), "{name:?}");
        }
        assert_eq!(check_display_name("z\u{300}\u{301}\u{302}\u{303}"), Err(NameError::Piled));
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(check_display_name(&"é".repeat(32)), Ok(()));
        assert_eq!(check_display_name(&"é".repeat(33)), Err(NameError::TooLong { limit: 32 }));
        assert_eq!(check_party_name(&"x".repeat(40)), Ok(()));
        assert_eq!(check_display_name(""), Err(NameError::Empty));
        assert_eq!(check_display_name(" a"), Err(NameError::Padded));
    }
}
