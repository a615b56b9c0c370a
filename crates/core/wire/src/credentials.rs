//! Credentials with which a client authenticates to TURN and STUN servers.
//!
//! Short-term credentials (RFC 8489, section 9.1) sign the first request. Long-term credentials (section 9.2) wait
//! for the server's challenge.

mod integrity;
mod long_term;
mod short_term;

use stun_rs::{MessageEncoderBuilder, StunMessage, StunMessageBuilder};

pub use self::long_term::ChallengeError;
use self::{long_term::Challenge, short_term::ShortTerm};

/// The maximum length of a signed request in bytes.
const MAX_REQUEST: usize = 1500;

/// A user name and password, and what was agreed on with one server.
pub struct Credentials {
    username: String,
    mechanism: Mechanism,
}

enum Mechanism {
    /// With the server's latest challenge.
    LongTerm {
        password: String,
        challenge: Option<Challenge>,
    },
    ShortTerm(ShortTerm),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("signs_requests", &self.signs_requests()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Returns long-term credentials that have seen no challenge yet.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        let mechanism = Mechanism::LongTerm { password: password.into(), challenge: None };
        Self { username: username.into(), mechanism }
    }

    /// Returns short-term credentials, which sign from the first request on. `None` if the password has forbidden
    /// characters (RFC 8265).
    #[must_use]
    pub fn short_term(username: &str, password: &str) -> Option<Self> {
        let mechanism = Mechanism::ShortTerm(ShortTerm::new(password)?);
        Some(Self { username: username.into(), mechanism })
    }

    /// Returns long-term credentials for the same server that answer its latest challenge, if these have seen one.
    #[must_use]
    pub fn with_user(&self, username: &str, password: &str) -> Self {
        let challenge = match &self.mechanism {
            Mechanism::LongTerm { challenge: Some(challenge), .. } => challenge.for_user(username, password),
            Mechanism::LongTerm { .. } | Mechanism::ShortTerm(_) => None,
        };
        Self {
            username: username.into(),
            mechanism: Mechanism::LongTerm { password: password.into(), challenge },
        }
    }

    /// Returns true if these are the long-term credentials with this user name and password.
    #[must_use]
    pub fn belong_to(&self, username: &str, password: &str) -> bool {
        let own = matches!(&self.mechanism, Mechanism::LongTerm { password: own, .. } if own == password);
        own && self.username == username
    }

    /// Takes the realm and nonce of an error response (401 or 438). Returns true if the nonce is new, so that repeating
    /// the request makes sense.
    ///
    /// # Errors
    /// The response has no nonce or realm or no algorithm that we know, or its offer of algorithms was stripped on the
    /// path. Short-term credentials have no challenges: the server does not accept them.
    pub fn on_challenge(&mut self, message: &StunMessage) -> Result<bool, ChallengeError> {
        let Mechanism::LongTerm { password, challenge } = &mut self.mechanism else {
            return Err(ChallengeError);
        };
        let new = Challenge::read(message, challenge.as_ref(), &self.username, password)?;
        let fresh = challenge.as_ref().is_none_or(|old| !old.has_nonce_of(&new));
        *challenge = Some(new);
        Ok(fresh)
    }

    /// Encodes a request, signed if possible. `None` if it cannot be encoded, since the user name is too long or has
    /// forbidden characters.
    #[must_use]
    pub fn sign(&self, message: StunMessageBuilder) -> Option<Vec<u8>> {
        let message = self.add_attributes(message)?;
        let mut bytes = vec![0; MAX_REQUEST];
        let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }

    /// Adds the attributes of a signed request; with long-term credentials only once there is a challenge. Nothing but
    /// FINGERPRINT may follow them. Returns `None` as [`Self::sign`] does.
    #[must_use]
    pub fn add_attributes(&self, message: StunMessageBuilder) -> Option<StunMessageBuilder> {
        match &self.mechanism {
            Mechanism::LongTerm { challenge: Some(challenge), .. } => {
                challenge.add_attributes(message, &self.username)
            }
            Mechanism::LongTerm { challenge: None, .. } => Some(message),
            Mechanism::ShortTerm(term) => term.add_attributes(message, &self.username),
        }
    }

    /// Returns true if requests are signed, so that responses must be verified.
    #[must_use]
    pub const fn signs_requests(&self) -> bool {
        !matches!(self.mechanism, Mechanism::LongTerm { challenge: None, .. })
    }

    /// Returns true if a response carries the agreed integrity attribute, made with our key. With short-term
    /// credentials the first response that verifies settles which attribute that is.
    #[must_use]
    pub fn verify(&mut self, bytes: &[u8], message: &StunMessage) -> bool {
        match &mut self.mechanism {
            Mechanism::LongTerm { challenge: None, .. } => false,
            Mechanism::LongTerm { challenge: Some(challenge), .. } => challenge.verify(bytes, message),
            Mechanism::ShortTerm(term) => term.verify(bytes, message),
        }
    }
}
