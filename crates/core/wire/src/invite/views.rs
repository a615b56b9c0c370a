//! What a text may say once the wrappings of mail programs, redirects and data formats are undone.

use base64::{Engine as _, alphabet, engine};

/// How often encodings are undone, one inside the other.
const MAX_ROUNDS: usize = 4;
/// The maximum number of base64 passages that are looked into.
const MAX_PASSAGES: usize = 16;
/// The maximum length of a tag in bytes.
const MAX_TAG: usize = 4096;
/// The maximum letters of what marks a line, such as the initials of whom it quotes, or its number.
const MAX_LINE_MARK: usize = 12;
/// The minimum length of a line of base64, except for the last.
const MIN_BASE64_LINE: usize = 60;
/// How links start in base64, as some redirects carry them.
const BASE64_LINKS: [&str; 2] = ["aHR0c", "cGFydHlsaW5lO"];
/// Hosts that encode with `-` in place of `%`.
const DASH_ENCODERS: &str = "urldefense";

const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Returns the text as it is and after each round of decoding, the most decoded last.
pub(super) fn decoded(text: &str) -> Vec<String> {
    let mut views = vec![text.to_owned()];
    for _ in 0..MAX_ROUNDS {
        let last = views.last().map_or("", String::as_str);
        let next = undo_once(last);
        if next == last {
            break;
        }
        views.push(next);
    }
    views
}

/// Returns further readings of a view, in which tags, marks at the front of lines and base64 are undone.
pub(super) fn unpacked(view: &str) -> impl Iterator<Item = String> {
    [without_tags(view), without_line_marks(view), base64_links(view), base64_body(view)]
        .into_iter()
        .flatten()
}

fn undo_once(text: &str) -> String {
    let text = entities(text);
    let text = hex_escapes(&text, b'%');
    // Quoted-printable.
    let text = hex_escapes(&text, b'=');
    let text = if text.contains(DASH_ENCODERS) { hex_escapes(&text, b'-') } else { text };
    backslashes(&text)
}

/// Undoes escapes of a marker and two hexadecimal digits.
fn hex_escapes(text: &str, marker: u8) -> String {
    let mut rest = text.as_bytes();
    if !rest.contains(&marker) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.first_chunk::<2>().filter(|_| byte == marker);
        match escaped.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?)) {
            Some(value) => {
                out.push(value as u8);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

/// Undoes character references of HTML. Of the named ones only those matter that stand for text of a link or for nothing
/// visible; any other one becomes U+FFFD, so that the letters of its name are not read as letters of a code.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let name = after.bytes().take(32).take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'#');
        let end = name.count();
        if end > 0 && after.as_bytes().get(end) == Some(&b';') {
            out.push(referenced(&after[..end]));
            rest = &after[end + 1..];
        } else {
            out.push('&');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn referenced(name: &str) -> char {
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    let numeric = name.strip_prefix('#').and_then(|digits| match digits.strip_prefix(['x', 'X']) {
        Some(digits) => number(digits, 16),
        None => number(digits, 10),
    });
    numeric.unwrap_or(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" => ' ',
        "NewLine" => '\n',
        "Tab" => '\t',
        "shy" | "zwj" | "zwnj" | "lrm" | "rlm" | "ZeroWidthSpace" | "NoBreak" => '\u{200b}',
        "num" => '#',
        "sol" => '/',
        "colon" => ':',
        "period" => '.',
        "quest" => '?',
        "equals" => '=',
        "percnt" => '%',
        _ => char::REPLACEMENT_CHARACTER,
    })
}

/// Undoes backslashes of JSON, of programming languages, and of Markdown.
fn backslashes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let hexadecimal = |digits: usize| {
            let code = after.get(1..=digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
            // Halves of surrogate pairs stand for emoji, which no code has.
            Some(
                u32::from_str_radix(code, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .unwrap_or(char::REPLACEMENT_CHARACTER),
            )
        };
        let (c, used) = match after.as_bytes().first() {
            Some(b'u') => (hexadecimal(4), 5),
            Some(b'x') => (hexadecimal(2), 3),
            Some(b'n' | b'r') => (Some('\n'), 1),
            Some(b't') => (Some('\t'), 1),
            _ => (None, 0),
        };
        out.extend(c);
        rest = if c.is_some() { &after[used..] } else { after };
    }
    out.push_str(rest);
    out
}

/// Returns the text without its HTML tags, if there are any.
fn without_tags(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut at, mut copied, mut close) = (0, 0, 0);
    while let Some(open) = text[at..].find('<').map(|open| at + open) {
        // Every closing bracket is looked for only once, which keeps this linear.
        if close < open {
            let Some(next) = text[open..].find('>') else { break };
            close = open + next;
        }
        at = open + 1;
        let starts = text[at..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        if starts && close - open < MAX_TAG {
            out.push_str(&text[copied..open]);
            at = close + 1;
            copied = at;
        }
    }
    out.push_str(&text[copied..]);
    (copied > 0).then_some(out)
}

/// Returns the text without what stands before a `>`, `|` or `:` at the front of its lines, if there is any.
fn without_line_marks(text: &str) -> Option<String> {
    let bare = |line: &str| {
        let word = line.trim_start().trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        let mark = line.trim_start().len() - word.len();
        let rest = word.trim_start().strip_prefix(['>', '|', ':'])?;
        (1..=MAX_LINE_MARK).contains(&mark).then(|| rest.to_owned())
    };
    let marked = text.lines().any(|line| bare(line).is_some());
    let lines = || text.lines().map(|line| bare(line).unwrap_or_else(|| line.to_owned()));
    marked.then(|| lines().collect::<Vec<_>>().join("\n"))
}

/// Returns the text that lines of base64 have in them, as the source of a mail does, if there are such lines.
fn base64_body(text: &str) -> Option<String> {
    let (mut body, mut open) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        let digits = line.trim_end_matches('=');
        let encoded = digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        let whole = encoded && line.len() >= MIN_BASE64_LINE;
        if whole || encoded && open {
            body.push_str(digits);
        }
        open = whole;
    }
    body.truncate(body.len() - usize::from(body.len() % 4 == 1));
    let decoded = BASE64.decode(body).ok().filter(|decoded| !decoded.is_empty())?;
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// Returns the links that the text has in base64, one a line, if there are any.
fn base64_links(text: &str) -> Option<String> {
    let starts = BASE64_LINKS.iter().flat_map(|link| text.match_indices(link));
    let links: Vec<_> = starts.take(MAX_PASSAGES).map(|(at, _)| base64_passage(&text[at..])).collect();
    (!links.is_empty()).then(|| links.join("\n"))
}

fn base64_passage(text: &str) -> String {
    let standard = |byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let mut digits: Vec<_> = text
        .bytes()
        .map(standard)
        .take(MAX_TAG)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    // One digit more than a multiple of four carries no whole byte.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    let decoded = BASE64.decode(digits).unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_inside_each_other_are_undone() {
        let last = |text: &str| decoded(text).pop().unwrap();
        assert_eq!(last("%252370 a%zz 5%"), "#70 a%zz 5%");
        assert_eq!(last("a=3Db"), "a=b");
        assert_eq!(last("&amp;amp;&#x23;&#35;&shy;&copy;&x"), "&##\u{200b}\u{fffd}&x");
        assert_eq!(last(r"https:\/\/a\u002Db\x2Dc\_d"), "https://a-b-c_d");
        assert_eq!(last(r"a\nb\"), "a\nb");
        assert_eq!(last("%25".repeat(9).as_str()), "%".repeat(9));
        assert_eq!(decoded("plain").len(), 1);
    }

    #[test]
    fn tags_and_base64_are_unpacked() {
        let unpacked = |text: &str| unpacked(text).collect::<Vec<_>>();
        assert_eq!(unpacked("a<wbr>b</b>c < d"), ["abc < d"]);
        assert_eq!(unpacked("u=a1aHR0cHM6Ly9hLmV4YW1wbGU&x=1"), ["https://a.example"]);
        assert!(unpacked("a < b").is_empty());
    }

    #[test]
    fn lines_of_a_mail_are_unpacked() {
        let unpacked = |text: &str| unpacked(text).collect::<Vec<_>>();
        assert_eq!(unpacked("Hi\nAB> one\n  2: two"), ["Hi\n one\n two"]);
        let body = "Come and play with us tonight, all of you: partyline://join/PLY1 and bring your friends.";
        let encoded = BASE64.encode(body);
        let (first, last) = encoded.split_at(76);
        assert_eq!(unpacked(&format!("Encoding-base64\r\n\r\n{first}\r\n{last}\r\n")), [body]);
    }
}
