//! Words on a terminal: nothing that was said by others may steer it.

use unicode_width::UnicodeWidthStr as _;

/// The text without anything that moves the cursor, changes colours, reorders or hides what is around it.
pub fn clean(text: &str) -> String {
    text.chars().map(|letter| if steers(letter) { '\u{fffd}' } else { letter }).collect()
}

fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}')
}

/// Columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text, shortened to so many columns.
pub fn fitted(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    for letter in text.chars() {
        short.push(letter);
        if width(&short) >= columns {
            short.pop();
            break;
        }
    }
    short + "…"
}

/// A number of bytes, for people.
pub fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count.max(0.0);
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Milliseconds, for people.
pub fn milliseconds(value: f32) -> String {
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("Bob\u{1b}[2J\r\n\u{9b}31m"), "Bob\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}31m");
        assert_eq!(clean("\u{202e}txet"), "\u{fffd}txet");
        assert_eq!(clean("Zoë 雪 👩‍🚀"), "Zoë 雪 👩‍🚀");
    }

    #[test]
    fn long_texts_are_shortened_by_columns_not_letters() {
        assert_eq!(fitted("雪雪雪雪", 8), "雪雪雪雪");
        assert_eq!(fitted("雪雪雪雪", 7), "雪雪雪…");
        assert_eq!(fitted("abcdef", 4), "abc…");
        assert!(width(&fitted("雪雪雪雪雪", 6)) <= 6);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(-1.0), "0 B");
        assert_eq!(bytes(1e18), "909494.7 TiB");
        assert_eq!(milliseconds(3.21), "3.2 ms");
        assert_eq!(milliseconds(120.4), "120 ms");
    }
}
