//! Credentials of clients: of relays, and of STUN servers that want to know who asks.
//!
//! Short-term ones (RFC 8489, section 9.1; [`short_term`]) sign the first request. Long-term ones (section 9.2) wait for
//! the server's challenge. There, a server that offers PASSWORD-ALGORITHMS is answered with SHA-256 throughout; one that does not, like older
//! coturns, with MD5 and SHA-1. The nonce cookie says which of the two the server meant, so that nobody on the way
//! can strip the offer.

mod short_term;

use self::short_term::ShortTerm;
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageEncoderBuilder, StunMessage, StunMessageBuilder,
    attributes::stun::{
        MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm,
        UserHash, UserName,
    },
    get_input_text,
};

/// The longest request that is sent, in bytes.
const MAX_REQUEST: usize = 1500;
/// How a nonce starts that says what the server supports (RFC 8489, section 9.2).
const NONCE_COOKIE: &str = "obMatJos2";

/// The server's challenge cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeError;

/// User name and password, and what was agreed on with the server.
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
        f.debug_struct("Credentials").field("signs", &self.signs_requests()).finish_non_exhaustive()
    }
}

struct Challenge {
    realm: Realm,
    nonce: Nonce,
    /// The server's offer, to be repeated to it, and our choice.
    algorithms: Option<(PasswordAlgorithms, AlgorithmId)>,
    anonymous: bool,
    key: HMACKey,
}

impl Credentials {
    /// Long-term ones, before any challenge.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        let mechanism = Mechanism::LongTerm { password: password.into(), challenge: None };
        Self { username: username.into(), mechanism }
    }

    /// Short-term ones, which sign from the first request on. `None` if the password has forbidden characters
    /// (RFC 8265).
    #[must_use]
    pub fn short_term(username: &str, password: &str) -> Option<Self> {
        let mechanism = Mechanism::ShortTerm(ShortTerm::new(password)?);
        Some(Self { username: username.into(), mechanism })
    }

    /// Whether these are that user's long-term credentials.
    #[must_use]
    pub fn belong_to(&self, username: &str, password: &str) -> bool {
        let own = matches!(&self.mechanism, Mechanism::LongTerm { password: own, .. } if own == password);
        own && self.username == username
    }

    /// Takes the realm and nonce of an error response (401 or 438). `true` if the nonce is a new one, so that asking
    /// again makes sense.
    ///
    /// # Errors
    /// There is no nonce or realm, no algorithm that we know, or somebody on the way took the offer of algorithms out.
    /// Short-term credentials know no challenge: the server does not take them.
    pub fn on_challenge(&mut self, message: &StunMessage) -> Result<bool, ChallengeError> {
        let Mechanism::LongTerm { password, challenge } = &mut self.mechanism else {
            return Err(ChallengeError);
        };
        let nonce = message.get::<Nonce>().and_then(|a| a.as_nonce().ok()).ok_or(ChallengeError)?.clone();
        let realm = match message.get::<Realm>().and_then(|a| a.as_realm().ok()) {
            Some(realm) => realm.clone(),
            None => challenge.as_ref().ok_or(ChallengeError)?.realm.clone(),
        };
        let fresh = challenge.as_ref().is_none_or(|old| old.nonce.as_str() != nonce.as_str());
        let (wants_algorithms, anonymous) = cookie(nonce.as_str());
        let algorithms = choose(message)?;
        if wants_algorithms && algorithms.is_none() {
            return Err(ChallengeError);
        }
        let id = algorithms.as_ref().map_or(AlgorithmId::MD5, |(_, id)| *id);
        let key = HMACKey::new_long_term(&self.username, realm.as_str(), &*password, Algorithm::from(id))
            .map_err(|_| ChallengeError)?;
        *challenge = Some(Challenge { realm, nonce, algorithms, anonymous, key });
        Ok(fresh)
    }

    /// Encodes a request, signed as far as that is possible. `None` if it cannot be encoded: a user name that is too
    /// long or has forbidden characters.
    #[must_use]
    pub fn sign(&self, message: StunMessageBuilder) -> Option<Vec<u8>> {
        let message = self.add_attributes(message)?;
        let mut bytes = vec![0; MAX_REQUEST];
        let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }

    /// Adds what a signed request has, with long-term credentials once there is a challenge; only a FINGERPRINT may come behind it. `None` as with
    /// [`Self::sign`].
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

    /// Whether requests are signed, so that answers must be proven.
    #[must_use]
    pub const fn signs_requests(&self) -> bool {
        !matches!(self.mechanism, Mechanism::LongTerm { challenge: None, .. })
    }

    /// Whether a response carries an integrity attribute made with our key, of the kind that was agreed on. What is
    /// compared is no secret of ours but a server's proof, once per transaction that cannot be guessed, so the
    /// comparison need not take constant time. The first proof of a server settles the kind with short-term credentials.
    #[must_use]
    pub fn verify(&mut self, bytes: &[u8], message: &StunMessage) -> bool {
        match &mut self.mechanism {
            Mechanism::LongTerm { challenge: None, .. } => false,
            Mechanism::LongTerm { challenge: Some(challenge), .. } => {
                challenge.integrity().proves(bytes, message, &challenge.key)
            }
            Mechanism::ShortTerm(term) => term.verify(bytes, message),
        }
    }
}

/// The attribute that proves a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integrity {
    Sha1,
    Sha256,
}

impl Integrity {
    fn proves(self, bytes: &[u8], message: &StunMessage, key: &HMACKey) -> bool {
        match self {
            Self::Sha256 => {
                let (attribute, text) = (
                    message.get::<MessageIntegritySha256>(),
                    get_input_text::<MessageIntegritySha256>(bytes),
                );
                let attribute = attribute.and_then(|a| a.as_message_integrity_sha256().ok());
                attribute.zip(text).is_some_and(|(a, text)| a.validate(&text, key))
            }
            Self::Sha1 => {
                let (attribute, text) =
                    (message.get::<MessageIntegrity>(), get_input_text::<MessageIntegrity>(bytes));
                let attribute = attribute.and_then(|a| a.as_message_integrity().ok());
                attribute.zip(text).is_some_and(|(a, text)| a.validate(&text, key))
            }
        }
    }
}

impl Challenge {
    const fn integrity(&self) -> Integrity {
        if self.algorithms.is_some() { Integrity::Sha256 } else { Integrity::Sha1 }
    }

    fn add_attributes(&self, message: StunMessageBuilder, username: &str) -> Option<StunMessageBuilder> {
        let message = if self.anonymous {
            message.with_attribute(UserHash::new(username, self.realm.as_str()).ok()?)
        } else {
            message.with_attribute(UserName::new(username).ok()?)
        };
        let message = message.with_attribute(self.realm.clone()).with_attribute(self.nonce.clone());
        Some(match &self.algorithms {
            Some((offer, id)) => message
                .with_attribute(offer.clone())
                .with_attribute(PasswordAlgorithm::new(Algorithm::from(*id)))
                .with_attribute(MessageIntegritySha256::new(self.key.clone())),
            None => message.with_attribute(MessageIntegrity::new(self.key.clone())),
        })
    }
}

/// The server's offer with our choice from it: SHA-256 if offered.
fn choose(message: &StunMessage) -> Result<Option<(PasswordAlgorithms, AlgorithmId)>, ChallengeError> {
    let Some(offer) = message.get::<PasswordAlgorithms>().and_then(|a| a.as_password_algorithms().ok())
    else {
        return Ok(None);
    };
    let known = [AlgorithmId::SHA256, AlgorithmId::MD5];
    let choice =
        known.into_iter().find(|id| offer.iter().any(|a| a.algorithm() == *id)).ok_or(ChallengeError)?;
    Ok(Some((offer.clone(), choice)))
}

/// What a nonce cookie says: password algorithms, user name anonymity. Its first base64 digit holds the top six bits
/// of the set, of which those are the first two.
fn cookie(nonce: &str) -> (bool, bool) {
    let digit =
        nonce.strip_prefix(NONCE_COOKIE).filter(|rest| rest.len() >= 4).and_then(|rest| rest.bytes().next());
    let bits = match digit {
        Some(c @ b'A'..=b'Z') => c - b'A',
        Some(c @ b'a'..=b'z') => c - b'a' + 26,
        Some(c @ b'0'..=b'9') => c - b'0' + 52,
        Some(b'+') => 62,
        Some(b'/') => 63,
        _ => 0,
    };
    (bits & 0b10_0000 != 0, bits & 0b01_0000 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_tells_what_the_server_supports() {
        assert_eq!(cookie("obMatJos2gAAAnonce"), (true, false));
        assert_eq!(cookie("obMatJos2QAAAnonce"), (false, true));
        assert_eq!(cookie("obMatJos2wAAAnonce"), (true, true));
        assert_eq!(cookie("obMatJos2AAAAnonce"), (false, false));
        assert_eq!(cookie("obMatJos2é"), (false, false));
        assert_eq!(cookie("anything else"), (false, false));
    }
}
