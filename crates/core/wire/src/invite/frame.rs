//! The frame of an invite code, the same for every version of what is in it.
//!
//! ```text
//! PLY | version 1 | length of the body 2 | header check 1 | body | CRC-32 (IEEE 802.3) of all before it 6
//! ```
//!
//! All of it is letters and digits ([`base62`]), and all lengths are in letters. The prefix makes a code
//! recognisable without a link around it, the length makes it end by itself, whatever follows, and the checks tell a code
//! that was changed from one whose end is missing. The CRC is of the letters, not of the bytes, so that it detects every
//! change of a single letter or of four in a row, and so that a page can check it without decoding anything.

use super::base62;

/// How every code starts.
pub(super) const PREFIX: &[u8] = b"PLY";
/// The letters from the prefix to the header check.
pub(super) const HEADER: usize = 7;
/// The letters of the CRC.
const CHECK: usize = 6;
/// The maximum letters of a body, far more than the longest invite has.
const MAX_BODY: usize = 1800;
/// The maximum letters of a code.
pub(super) const MAX_CODE: usize = HEADER + MAX_BODY + CHECK;

/// What the first letters of a code say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u8,
    /// The letters of the whole code.
    pub(super) total: usize,
}

impl Header {
    /// Reads the header at the front of `code`; `None` if there is none, or if it was changed.
    pub(super) fn read(code: &[u8]) -> Option<Self> {
        let [version, high, low, check] = *code.strip_prefix(PREFIX)?.first_chunk()?;
        let [version, high, low, check] =
            [base62::value(version)?, base62::value(high)?, base62::value(low)?, base62::value(check)?];
        let body = usize::from(high) * 62 + usize::from(low);
        let sound = check == Self::check(version, body) && body <= MAX_BODY;
        sound.then_some(Self { version, total: HEADER + body + CHECK })
    }

    /// Returns the check digit. The weights have no divisor in common with 62, so that it detects every single change.
    fn check(version: u8, body: usize) -> u8 {
        ((usize::from(version) + 3 * (body / 62) + 5 * (body % 62) + 7) % 62) as u8
    }
}

/// Returns a version's body as a code.
pub(super) fn close(version: u8, body: &[u8]) -> String {
    let mut code = PREFIX.to_vec();
    code.resize(HEADER, b'0');
    base62::encode(body, &mut code);
    let length = code.len() - HEADER;
    code[3] = base62::letter(version.into());
    code[4..6].copy_from_slice(&base62::number::<2>(length as u64));
    code[6] = base62::letter(Header::check(version, length).into());
    let check = base62::number::<CHECK>(crc32fast::hash(&code).into());
    code.extend(check);
    code.into_iter().map(char::from).collect()
}

/// Returns true if the CRC at the end of a code is right.
pub(super) fn is_whole(code: &[u8]) -> bool {
    let Some((content, check)) = code.split_last_chunk::<CHECK>() else { return false };
    base62::number::<CHECK>(crc32fast::hash(content).into()) == *check
}

/// Returns version and body of a whole code.
pub(super) fn open(code: &str) -> Option<(u8, Vec<u8>)> {
    let header = Header::read(code.as_bytes())?;
    let body = code.as_bytes().get(HEADER..header.total.checked_sub(CHECK)?)?;
    Some((header.version, base62::decode(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_detects_every_single_change() {
        let code = close(1, &[7; 200]);
        assert!(Header::read(code.as_bytes()).is_some());
        for place in 0..HEADER {
            for other in 0..62 {
                let mut changed = code.clone().into_bytes();
                changed[place] = base62::letter(other);
                assert_eq!(Header::read(&changed).is_some(), changed == code.as_bytes(), "{place} {other}");
            }
        }
    }

    #[test]
    fn code_opens_to_what_was_closed() {
        let code = close(1, b"body");
        assert!(code.starts_with("PLY1"));
        assert!(is_whole(code.as_bytes()));
        assert_eq!(open(&code), Some((1, b"body".to_vec())));
        assert_eq!(open("PLY1"), None);
        assert!(!is_whole(b"PLY"));
    }
}
