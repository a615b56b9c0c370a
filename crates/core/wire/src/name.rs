//! Names that users choose for themselves and for their parties.
//!
//! A name is shown to others beside other names, so that it must not hide, reorder or imitate text: it has no control
//! characters, no characters that change the direction of text (Unicode TR 36 and TR 9), no invisible ones, no combining
//! marks without a letter, and no long runs of them. Nothing is stripped silently: a name is either valid or rejected with
//! the reason.
//!
//! Zero-width joiners and non-joiners are part of the spelling in many scripts, and of emoji. They are valid where RFC 5892
//! (CONTEXTJ), the Unicode Standard and UTS #51 give them a visible effect, and nowhere else. Since that effect can be
//! small, names are compared by [`folded`].
//!
//! Letters of different scripts may look the same, and a name in any script is valid. So names are not refused for what they
//! look like, but told apart where they look like another one in the same list: see [`Appearance`].

use std::collections::BTreeMap;

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{CanonicalCombiningClass, ExtendedPictographic, GeneralCategory, JoiningType},
};
use unicode_security::skeleton;

/// Characters of a member's display name.
pub const DISPLAY_NAME_CHARS: usize = 32;
/// Characters of a party's name.
pub const PARTY_NAME_CHARS: usize = 40;

/// The maximum number of accents in a row, as on letters of Latin, Greek and Cyrillic.
const MAX_ACCENTS_IN_A_ROW: usize = 3;
/// The maximum number of other combining marks in a row, enough for every living script.
const MAX_MARKS_IN_A_ROW: usize = 5;

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
    /// It has a combining mark that is on no letter, and would be drawn over what stands before the name.
    #[error("the name holds an accent without a letter")]
    Baseless,
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
    for (at, c) in name.char_indices() {
        let (before, after) = (&name[..at], &name[at + c.len_utf8()..]);
        if is_hidden(c) && !has_effect(c, before, after) {
            return Err(NameError::Hidden { code: c.into() });
        }
        if is_combining(c) && (before.is_empty() || before.ends_with(' ')) {
            return Err(NameError::Baseless);
        }
        marks = if is_combining(c) { marks + 1 } else { 0 };
        if marks > if is_accent(c) { MAX_ACCENTS_IN_A_ROW } else { MAX_MARKS_IN_A_ROW } {
            return Err(NameError::Piled);
        }
    }
    Ok(())
}

/// Returns a name as it is compared with others: in lower case, and without the characters that hardly show.
///
/// Two names that look alike to a reader who does not look for joiners have the same folded form.
#[must_use]
pub fn folded(name: &str) -> String {
    without_joiners(name).flat_map(char::to_lowercase).collect()
}

fn without_joiners(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| !matches!(*c, NON_JOINER | JOINER | EMOJI_STYLE))
}

/// What a name looks like, by the skeletons of UTS #39, section 4: the same for letters of all scripts that look alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appearance {
    /// The skeleton of the name in lower case.
    of_lower: String,
    /// The skeleton of the name as it is, in lower case afterwards: a capital I looks like a small L, its small form not.
    of_name: String,
}

impl Appearance {
    /// Returns what a name looks like.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let name: String = without_joiners(name).collect();
        Self {
            of_lower: skeleton(&name.to_lowercase()).collect(),
            of_name: skeleton(&name).flat_map(char::to_lowercase).collect(),
        }
    }

    /// Returns true if a reader may take one name for the other.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        self.of_lower == other.of_lower || self.of_name == other.of_name
    }
}

/// Marks the names that a reader may take for another one in the list.
#[must_use]
pub fn alike<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<bool> {
    let looks: Vec<Appearance> = names.into_iter().map(Appearance::of).collect();
    let (mut of_lower, mut of_name) = (BTreeMap::new(), BTreeMap::new());
    for look in &looks {
        *of_lower.entry(&look.of_lower).or_insert(0_u32) += 1;
        *of_name.entry(&look.of_name).or_insert(0_u32) += 1;
    }
    let is_alike = |look: &Appearance| of_lower[&look.of_lower] > 1 || of_name[&look.of_name] > 1;
    looks.iter().map(is_alike).collect()
}

const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';
/// Variation selector 16.
const EMOJI_STYLE: char = '\u{fe0f}';
const KEYCAP: char = '\u{20e3}';

/// Returns true for a hidden character that changes how the text around it is drawn.
fn has_effect(c: char, before: &str, after: &str) -> bool {
    let (last, next) = (before.chars().next_back(), after.chars().next());
    match c {
        // RFC 5892, appendix A.1.
        NON_JOINER => last.is_some_and(is_virama) || breaks_cursive_join(before, after),
        // RFC 5892, appendix A.2; a joiner before the virama makes the ya-phalaa of Bengali and the reph of Kannada.
        JOINER => {
            last.is_some_and(is_virama)
                || matches!(last, Some('\u{9b0}' | '\u{9f0}' | '\u{cb0}')) && next.is_some_and(is_virama)
                || ends_with_emoji(before) && next.is_some_and(is_pictograph)
        }
        EMOJI_STYLE => {
            last.is_some_and(is_pictograph)
                || next == Some(KEYCAP) && matches!(last, Some('0'..='9' | '#' | '*'))
        }
        _ => false,
    }
}

fn is_virama(c: char) -> bool {
    CodePointMapData::<CanonicalCombiningClass>::new().get(c) == CanonicalCombiningClass::Virama
}

/// Returns true if the letters on both sides would join, as in Arabic, Syriac or Mongolian.
fn breaks_cursive_join(before: &str, after: &str) -> bool {
    let joining = |c| CodePointMapData::<JoiningType>::new().get(c);
    let shown = |kind: &JoiningType| *kind != JoiningType::Transparent;
    let left = before.chars().rev().map(joining).find(shown);
    let right = after.chars().map(joining).find(shown);
    matches!(left, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(right, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

fn is_pictograph(c: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(c)
}

/// Returns true if a text ends with a pictograph, perhaps with a skin tone or in emoji style.
fn ends_with_emoji(text: &str) -> bool {
    let modifiers = |c: char| matches!(c, EMOJI_STYLE | '\u{1f3fb}'..='\u{1f3ff}');
    text.trim_end_matches(modifiers).chars().next_back().is_some_and(is_pictograph)
}

/// Returns true for characters that are drawn on, around or beside the one before.
fn is_combining(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(
        category,
        GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark | GeneralCategory::EnclosingMark
    )
}

const fn is_accent(c: char) -> bool {
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
            | '\u{3164}' | '\u{ffa0}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffd}'
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
            "1\u{fe0f}\u{20e3} fan",
            "👩🏽\u{200d}🚀",
            "🏴\u{200d}☠\u{fe0f}",
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
    fn combining_marks_without_a_letter_are_rejected() {
        for name in ["\u{301}Ana", "Ana \u{301}b", "\u{64b}محمد", "\u{93e}a", "\u{20dd}", "a \u{e31}"] {
            assert_eq!(check_display_name(name), Err(NameError::Baseless), "{name:?}");
        }
        assert_eq!(check_display_name(&format!("ก{}", "\u{e49}".repeat(6))), Err(NameError::Piled));
        for name in ["Zoe\u{308}", "مُحَمَّد", "บุญชัย", "བསྒྲུབས", "नंदिनी"]
        {
            assert_eq!(check_display_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn variation_selectors_that_show_nothing_are_rejected() {
        for name in ["Ana\u{fe00}", "Ana\u{fe0e}", "田\u{e0100}", "Ana\u{fe0f}", "ᠠ\u{180b}"] {
            assert!(matches!(check_display_name(name), Err(NameError::Hidden { .. })), "{name:?}");
        }
    }

    #[test]
    fn names_that_look_alike_are_marked_in_a_list() {
        assert_eq!(alike(["Anna", "Ben", "\u{410}nna", "lan", "Ian"]), [true, false, true, true, true]);
        assert_eq!(alike([]), [false; 0]);
    }

    #[test]
    fn imitations_of_a_name_look_like_it() {
        let alike = |one: &str, other: &str| Appearance::of(one).looks_like(&Appearance::of(other));
        for (name, imitation) in [
            ("Anna", "anna"),
            // Cyrillic A; Greek Alpha; fullwidth.
            ("Anna", "\u{410}nna"),
            ("Anna", "\u{391}nna"),
            ("Anna", "\u{ff21}nna"),
            ("Ian", "lan"),
            ("Bob", "B0b"),
            ("modem", "modern"),
            ("Zo\u{eb}", "Zoe\u{308}"),
            ("می\u{200c}خواهم", "میخواهم"),
        ] {
            assert!(alike(name, imitation), "{name} {imitation}");
        }
        for (name, other) in [("Anna", "Ana"), ("Anna", "Hanna"), ("Ben", "Ken"), ("田中", "田申")] {
            assert!(!alike(name, other), "{name} {other}");
        }
    }

    #[test]
    fn joiners_are_valid_where_they_change_what_is_drawn() {
        for name in [
            "می\u{200c}خواهم",
            "علی\u{200c}رضا",
            "خانه\u{200c}ها",
            // A vowel mark between the letter and the non-joiner is transparent.
            "مِی\u{200c}خواهم",
            "ܡܝ\u{200c}ܡܝ",
            "क्\u{200d}ष",
            "क्\u{200c}ष",
            "ശ്രീജിത്\u{200d}",
            "അവന്\u{200d}",
            "ශ්\u{200d}රී ලංකා",
            "ක්\u{200d}ෂ",
            "র\u{200d}্যাব",
            "ಅರ\u{200d}್ಕ",
        ] {
            assert_eq!(check_display_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn joiners_without_effect_are_rejected() {
        for name in [
            "a\u{200d}b",
            "a\u{200c}b",
            "An\u{200c}na",
            "\u{200c}می",
            "می\u{200c}",
            "می\u{200c}\u{200c}خواهم",
            "می\u{200d}خواهم",
            // Alef joins nothing to its left.
            "ا\u{200c}ب",
            "ب\u{200c} ب",
            "क\u{200d}ष",
            "क्\u{200d}\u{200d}ष",
            "क्\u{200d}\u{200c}ष",
            "田\u{200d}中",
            "👩\u{200d}",
            "👩\u{200d}a",
            "a\u{200d}👩",
            "Anna\u{fe0f}",
            "1\u{fe0f}",
            "র\u{200d}া",
        ] {
            assert!(matches!(check_display_name(name), Err(NameError::Hidden { .. })), "{name:?}");
        }
    }

    #[test]
    fn names_that_differ_only_in_joiners_fold_to_the_same() {
        assert_eq!(folded("می\u{200c}خواهم"), folded("میخواهم"));
        assert_eq!(folded("क्\u{200d}ष"), folded("क्ष"));
        assert_eq!(folded("❤\u{fe0f} Gamer"), folded("❤ gamer"));
        assert_ne!(folded("Ana"), folded("Anna"));
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
