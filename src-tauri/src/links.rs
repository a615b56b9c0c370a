//! Invite links that reach the app from outside.

use std::sync::{Mutex, PoisonError};

/// The longest text that is examined, in bytes. Links are far shorter.
const MAX_LINK_LEN: usize = 4096;

/// Returns true if a text looks like an invite link. The engine decides whether it is valid.
pub fn is_invite(text: &str) -> bool {
    let plain = text.len() <= MAX_LINK_LEN
        && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    let web = |scheme: &str| text.strip_prefix(scheme).is_some_and(|rest| rest.contains("/join#"));
    plain && (text.starts_with("partyline://join/") || web("https://") || web("http://"))
}

/// The invite link that was opened last, until the user interface takes it. On a cold start the link arrives before the user
/// interface listens.
#[derive(Debug, Default)]
pub struct PendingLink(Mutex<Option<String>>);

impl PendingLink {
    /// Stores the first invite among the arguments and returns it, if there is one.
    pub fn keep<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let link = words.into_iter().map(str::trim).find(|word| is_invite(word))?.to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
        Some(link)
    }

    /// Returns the link and forgets it.
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invite_links_are_recognised() {
        assert!(is_invite("partyline://join/AbC_-9"));
        assert!(is_invite("https://play.example/join#AbC"));
        assert!(is_invite("http://10.0.0.1:4480/join#AbC"));
        for other in
            ["", "https://play.example/", "partyline://quit", "file:///etc/passwd", "partyline://join/a b"]
        {
            assert!(!is_invite(other), "{other}");
        }
        assert!(!is_invite(&format!("partyline://join/{}", "a".repeat(MAX_LINK_LEN))));
    }

    #[test]
    fn pending_link_is_taken_once() {
        let arrived = PendingLink::default();
        assert_eq!(arrived.keep(["--minimised"]), None);
        assert_eq!(arrived.keep(["x", " partyline://join/a "]).as_deref(), Some("partyline://join/a"));
        assert_eq!(arrived.take().as_deref(), Some("partyline://join/a"));
        assert_eq!(arrived.take(), None);
    }
}
