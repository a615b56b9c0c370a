//! Relay credentials that expire by themselves (draft-uberti-behave-turn-rest, the `use-auth-secret` of coturn).
//!
//! The username carries the time of expiry, and the password is an HMAC over it under a secret that the rendezvous
//! server shares with its relays. Relays check credentials without asking the rendezvous server.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use partyline_model::{Handle, Timestamp};
use partyline_wire::rendezvous::{RelayGrant, RelayServer};
use sha1::Sha1;

/// The relays a server hands out.
#[derive(Clone)]
pub struct RelayOffer {
    /// How to reach them, best first.
    pub servers: Vec<RelayServer>,
    /// The secret shared with the relays.
    pub secret: Vec<u8>,
    /// Their TURN realm.
    pub realm: String,
    /// How long a grant is valid.
    pub lifetime: Duration,
}

impl fmt::Debug for RelayOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOffer")
            .field("servers", &self.servers)
            .field("realm", &self.realm)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl RelayOffer {
    /// Returns credentials for one member.
    #[must_use]
    pub fn grant(&self, now: Timestamp, handle: Handle) -> RelayGrant {
        let expires = Timestamp(now.plus(self.lifetime).seconds() * 1000);
        let username = format!("{}:{handle}", expires.seconds());
        let password = relay_password(&self.secret, &username);
        RelayGrant { servers: self.servers.clone(), username, password, realm: self.realm.clone(), expires }
    }
}

/// Returns the password that belongs to a username: base64 of its HMAC-SHA1 under `secret`.
#[must_use]
pub fn relay_password(secret: &[u8], username: &str) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else { return String::new() };
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}
