//! Finds the code of an invite in any text.
//!
//! Only letters and digits are read; whatever lies between them (line breaks, quote marks, invisible characters, markup)
//! is skipped, since the length in the code and its CRC say for certain whether the right ones were read. What was skipped
//! matters only where a code is not whole: then it tells apart a code that ends early from one that was changed.

use super::{
    elsewhere,
    error::InviteError,
    frame::{self, HEADER, Header, MAX_CODE, PREFIX},
    views,
};

/// The maximum length of a text that is searched, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// The maximum number of codes in one view of a text that are not whole. It bounds the work on a hostile text.
const MAX_BROKEN: usize = 1024;
/// Pieces of a code that was broken into lines are at least this long; words of a sentence are shorter.
const MIN_PIECE: usize = 16;
/// The letters in a row that are taken for a part of a code although nothing else shows it.
const MIN_REMAINDER: usize = 40;

/// Returns the only whole code in a text.
///
/// # Errors
/// Why there is none, or not only one.
pub(super) fn find(text: &str) -> Result<String, InviteError> {
    if text.len() > MAX_TEXT {
        return Err(InviteError::TooLong);
    }
    let views = views::decoded(text);
    let mut search = Search::default();
    for view in &views {
        let unpacked = views::unpacked(view).filter_map(|unpacked| search.read(&unpacked)).max();
        // Where several views show a broken code, the most decoded one shows it best.
        search.broken = search.read(view).max(unpacked).or(search.broken);
    }
    match (search.whole.pop(), search.whole.is_empty()) {
        (Some(code), true) => Ok(code),
        (Some(_), false) => Err(InviteError::Several),
        (None, _) => Err(match search.broken {
            Some(Broken::Changed) => InviteError::Damaged,
            Some(Broken::Short) => InviteError::EndMissing,
            None => explain(views.last().map_or("", String::as_str)),
        }),
    }
}

/// What was found so far.
#[derive(Default)]
struct Search {
    /// At most two different codes.
    whole: Vec<String>,
    broken: Option<Broken>,
}

/// Why a code is not whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    /// Something else begins before its end.
    Short,
    /// It is as long as it should be.
    Changed,
}

impl Search {
    /// Adds the whole codes of a view, and returns what is wrong with the others.
    fn read(&mut self, view: &str) -> Option<Broken> {
        let letters = Letters::of(view);
        let (mut at, mut broken) = (0, None);
        let mut left = MAX_BROKEN;
        while let Some(start) = letters.find_prefix(at) {
            let code = &letters.bytes[start..];
            at = start + 1;
            let Some(Header { total, .. }) = Header::read(code) else { continue };
            match code.get(..total).filter(|code| frame::is_whole(code)) {
                Some(code) => {
                    self.add(code);
                    at = start + total;
                }
                None => {
                    let all_there = letters.extent(start, total) >= total;
                    broken = broken.max(Some(if all_there { Broken::Changed } else { Broken::Short }));
                    left -= 1;
                }
            }
            if left == 0 {
                break;
            }
        }
        broken
    }

    fn add(&mut self, code: &[u8]) {
        let code: String = code.iter().copied().map(char::from).collect();
        if self.whole.len() < 2 && !self.whole.contains(&code) {
            self.whole.push(code);
        }
    }
}

/// What lies between a letter and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// Nothing visible.
    None,
    /// White space, perhaps with the marks that wrapped lines have at their ends.
    Space,
    /// One visible character.
    Character,
    /// More of them.
    Other,
}

/// The letters and digits of a text.
struct Letters {
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
}

impl Letters {
    fn of(text: &str) -> Self {
        let (mut bytes, mut gaps) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
        let (mut gap, mut wrapped) = (Gap::None, false);
        for c in text.chars().map(halfwidth) {
            if c.is_ascii_alphanumeric() {
                bytes.push(c as u8);
                gaps.push(if wrapped { Gap::Space } else { gap });
                (gap, wrapped) = (Gap::None, false);
            } else if !is_invisible(c) {
                wrapped |= matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
                gap = match gap {
                    Gap::None if c.is_whitespace() => Gap::Space,
                    Gap::Space if c.is_whitespace() => Gap::Space,
                    Gap::None => Gap::Character,
                    _ => Gap::Other,
                };
            }
        }
        Self { bytes, gaps }
    }

    fn find_prefix(&self, from: usize) -> Option<usize> {
        let rest = self.bytes.get(from..)?;
        rest.windows(PREFIX.len()).position(|letters| letters == PREFIX).map(|at| from + at)
    }

    /// Returns how many of the `total` letters of a code that starts at `start` the text has, changed or not, before it
    /// goes on with something else.
    fn extent(&self, start: usize, total: usize) -> usize {
        let mut filled = self.piece(start, total);
        let mut at = start + filled;
        while filled < total && at < self.bytes.len() {
            let piece = self.piece(at, total);
            let changed = usize::from(self.gaps[at] == Gap::Character);
            let completes = filled + changed + piece == total;
            let continues = self.gaps[at] != Gap::Other && (piece >= MIN_PIECE || completes);
            if !continues || is_word(&self.bytes[at..at + piece]) {
                break;
            }
            filled += changed + piece;
            at += piece;
        }
        filled
    }

    /// Returns the number of letters from `at` on with nothing between them, at most `limit`.
    fn piece(&self, at: usize, limit: usize) -> usize {
        let gaps = self.gaps[at..].iter().skip(1).take(limit.saturating_sub(1));
        (1 + gaps.take_while(|gap| **gap == Gap::None).count()).min(self.bytes.len() - at)
    }

    /// Returns the longest part of the text that could belong to a code.
    fn longest_run(&self) -> &[u8] {
        let (mut at, mut longest) = (0, 0..0);
        while at < self.bytes.len() {
            let end = at + self.extent(at, MAX_CODE).max(1);
            let end = end.min(self.bytes.len());
            if end - at > longest.len() {
                longest = at..end;
            }
            at = end;
        }
        &self.bytes[longest]
    }
}

/// Returns true for three letters or more that are small ones but for the first, as hardly any piece of a code is.
fn is_word(piece: &[u8]) -> bool {
    piece.len() > 2 && piece[0].is_ascii_alphabetic() && piece[1..].iter().all(u8::is_ascii_lowercase)
}

/// Returns the ASCII character in place of its fullwidth form.
fn halfwidth(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Says what a text is that has no code with a sound header.
fn explain(view: &str) -> InviteError {
    let lower = view.to_ascii_lowercase();
    let split = |mark: &'static str| {
        lower.match_indices(mark).take(MAX_BROKEN).map(move |(at, _)| (&view[..at], &view[at + mark.len()..]))
    };
    let app = split("partyline:").find_map(|(_, rest)| remainder_of_app_link(rest));
    let page = || split("/join").find_map(|(before, rest)| remainder_of_page_link(before, rest));
    let remainder = app.or_else(page);
    remainder.or_else(|| elsewhere::name(view).map(|what| InviteError::Elsewhere { what })).unwrap_or_else(
        || {
            let letters = Letters::of(view);
            let run = letters.longest_run();
            let mixed = [u8::is_ascii_digit, u8::is_ascii_uppercase, u8::is_ascii_lowercase];
            match run.len() {
                MIN_REMAINDER.. if is_changed_header(run) => InviteError::Damaged,
                MIN_REMAINDER.. if mixed.iter().all(|kind| run.iter().any(kind)) => InviteError::StartMissing,
                _ => InviteError::NotFound,
            }
        },
    )
}

/// Judges what follows `partyline:`.
fn remainder_of_app_link(rest: &str) -> Option<InviteError> {
    let rest = rest.trim_start_matches('/');
    let rest = rest.get(..4).filter(|path| path.eq_ignore_ascii_case("join")).and_then(|_| rest.get(4..))?;
    judge_remainder(rest.trim_start_matches(['/', '?', '#'])).or(Some(InviteError::StartMissing))
}

/// Judges what follows `/join`, which pages elsewhere and sentences have too.
fn remainder_of_page_link(before: &str, rest: &str) -> Option<InviteError> {
    let host = before.rsplit(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
    if !host.contains(['.', ':']) && host != "localhost" {
        return None;
    }
    let code = rest.trim_start_matches(['/', '?', '#']);
    if let Some(error) = judge_remainder(code) {
        let bare = error == InviteError::EndMissing && rest.starts_with(char::is_alphanumeric);
        return (!bare).then_some(error);
    }
    let letters = Letters::of(beginning(code));
    let run = letters.extent(0, MAX_CODE);
    match rest.as_bytes().first() {
        Some(b'#') => Some(InviteError::StartMissing),
        Some(b'?') if run < MIN_REMAINDER => Some(InviteError::EndMissing),
        Some(b'/' | b'?') if run >= MIN_REMAINDER => Some(InviteError::StartMissing),
        _ => None,
    }
}

/// Judges what lies in the place of a code, if it starts as one or if nothing is there.
fn judge_remainder(code: &str) -> Option<InviteError> {
    let code = beginning(code);
    if !code.starts_with(|c: char| !c.is_whitespace() && (c.is_alphanumeric() || is_invisible(c))) {
        return Some(InviteError::EndMissing);
    }
    let letters = Letters::of(code);
    let run = &letters.bytes[..letters.extent(0, MAX_CODE).min(letters.bytes.len())];
    let start: Vec<u8> = code.chars().filter(|c| !is_invisible(*c)).take(HEADER).map(ascii).collect();
    if run.len() < HEADER {
        return PREFIX.starts_with(&run[..run.len().min(PREFIX.len())]).then_some(InviteError::EndMissing);
    }
    is_changed_header(&start).then_some(InviteError::Damaged)
}

fn ascii(c: char) -> u8 {
    u8::try_from(halfwidth(c)).unwrap_or(b'?')
}

/// Returns the part of a text that can matter for a code at its front.
fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(2 * MAX_CODE).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Returns true if a text starts as a code does but for a change: with the prefix in any case, or with a header that is
/// sound but for one letter of the prefix.
fn is_changed_header(start: &[u8]) -> bool {
    let Some((prefix, rest)) = start.split_at_checked(PREFIX.len()) else { return false };
    let repaired: Vec<u8> = PREFIX.iter().chain(rest).copied().collect();
    let same = prefix.iter().zip(PREFIX).filter(|(letter, wanted)| letter == wanted).count();
    prefix.eq_ignore_ascii_case(PREFIX) || same + 1 == PREFIX.len() && Header::read(&repaired).is_some()
}
