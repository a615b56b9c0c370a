//! Names what a text leads to that is no invite.

use std::net::{IpAddr, SocketAddr};

/// The maximum characters of a name that is shown.
const MAX_SHOWN: usize = 60;

/// Returns what the first link or address of a text is, such as "a link to discord.gg".
pub(super) fn name(text: &str) -> Option<String> {
    let words = || text.split(is_separator).map(trimmed).filter(|word| !word.is_empty());
    let alone = words().nth(1).is_none();
    words().find_map(link).or_else(|| words().find_map(|word| address(word).or_else(|| domain(word, alone))))
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "<>\"'`()[]{}|*„“”«»‘’「」『』《》【】（），。、；！？".contains(c)
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(|c: char| ".,;!?_~…".contains(c)).trim_end_matches([':', '='])
}

fn link(word: &str) -> Option<String> {
    // The last one: redirects carry their destination in the query.
    let (before, rest) = word.rsplit_once("://")?;
    let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).next()?;
    let scheme = scheme.to_ascii_lowercase();
    if matches!(&*scheme, "http" | "https" | "ws" | "wss" | "ftp") {
        return host(rest).map(|host| format!("a link to {host}"));
    }
    let named = !scheme.is_empty() && scheme != "partyline";
    named.then(|| format!("a link that starts with {}://", shown(&scheme)))
}

fn host(rest: &str) -> Option<String> {
    let authority = rest.split(['/', '?', '#', '\\', '&']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?.to_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host);
    let sound = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-');
    sound.then(|| shown(host))
}

fn address(word: &str) -> Option<String> {
    let socket = word.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = socket.or_else(|| word.parse::<IpAddr>().ok())?;
    Some(format!("the address {ip}"))
}

/// Recognises links without a scheme. In a sentence they need a path or a port, since a full stop without a space after
/// it looks like a domain.
fn domain(word: &str, alone: bool) -> Option<String> {
    let host = host(word)?;
    let (_, top) = host.rsplit_once('.')?;
    let plausible = top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic());
    let ended = word.contains(['/', ':']) || word.starts_with("www.");
    let whole = host.split('.').all(|label| !label.is_empty());
    (plausible && whole && (alone || ended)).then(|| format!("a link to {host}"))
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_invite_is_named() {
        for (text, expected) in [
            ("https://discord.gg/abc123", "a link to discord.gg"),
            ("look: <https://www.Example.org:8443/x?y=1>.", "a link to example.org"),
            ("https://user:secret@example.org/", "a link to example.org"),
            ("https://l.example/?u=https://discord.gg/x&h=AT0", "a link to discord.gg"),
            ("steam://connect/192.0.2.1:27015", "a link that starts with steam://"),
            ("discord.gg/abc", "a link to discord.gg"),
            ("example.org", "a link to example.org"),
            ("192.0.2.1", "the address 192.0.2.1"),
            ("connect to 192.0.2.1:25565!", "the address 192.0.2.1"),
            ("2001:db8::7", "the address 2001:db8::7"),
            ("加入https://discord.gg/x。", "a link to discord.gg"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "hello", "Nice.Really nice", "1.5 hours", "partyline://quit", "://", "a:b", "e.g. this"]
        {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
