//! Removal of IP addresses from what is exported.
//!
//! Addresses appear in fields, inside `Debug` output and in error texts, so they are recognised by their form in every
//! string rather than by the names of fields. Text that merely looks like an address, such as a version of four numbers,
//! is removed as well.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};

const REPLACEMENT: &str = "(address)";

/// Replaces the addresses in a span's attributes, events and status.
pub(super) fn redact_span(span: &mut Span) {
    redact_attributes(&mut span.attributes);
    for event in &mut span.events {
        redact_string(&mut event.name);
        redact_attributes(&mut event.attributes);
    }
    if let Some(status) = &mut span.status {
        redact_string(&mut status.message);
    }
}

fn redact_attributes(attributes: &mut [KeyValue]) {
    for attribute in attributes {
        if let Some(Value::StringValue(text)) =
            attribute.value.as_mut().and_then(|value| value.value.as_mut())
        {
            redact_string(text);
        }
    }
}

fn redact_string(text: &mut String) {
    if let Cow::Owned(redacted) = redact(text) {
        *text = redacted;
    }
}

fn redact(text: &str) -> Cow<'_, str> {
    let is_separator = |letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '.' | ':'));
    if !text.contains(['.', ':']) || !text.split(is_separator).any(has_address) {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_separator) {
        let word = piece.trim_end_matches(is_separator);
        redacted.push_str(if has_address(word) { REPLACEMENT } else { word });
        redacted.push_str(&piece[word.len()..]);
    }
    Cow::Owned(redacted)
}

/// Returns true if a word of letters, digits, dots and colons is an address, or has one after a prefix such as `turn:`.
fn has_address(word: &str) -> bool {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
    let suffixes = || word.match_indices(':').map(|(at, _)| &word[at + 1..]);
    is_address(word)
        || is_address(word.trim_end_matches(['.', ':']))
        || suffixes().any(is_address)
        || word.split(':').any(|part| part.trim_matches('.').parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_removed_in_every_form() {
        for (text, expected) in [
            ("203.0.113.7", "(address)"),
            ("from 203.0.113.7:4242.", "from (address)"),
            ("[2001:db8::1]:443", "[(address)]:443"),
            ("fe80::1%eth0", "(address)%eth0"),
            (
                "Direct { remote: 10.0.0.1:5, local: [::1]:6 }",
                "Direct { remote: (address), local: [(address)]:6 }",
            ),
            ("turn:203.0.113.7:3478?transport=udp", "(address)?transport=udp"),
            ("10.0.0.1->10.0.0.2", "(address)->(address)"),
            ("::ffff:192.0.2.1", "(address)"),
            ("udp://192.0.2.1/", "udp://(address)/"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn other_text_is_left_alone() {
        for text in [
            "",
            "no answer in 3.5 s",
            "std::io::Error",
            "wss://party.example:443",
            "12:30:45",
            "partyline_paths::peer",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(_)), "{text}");
        }
    }
}
