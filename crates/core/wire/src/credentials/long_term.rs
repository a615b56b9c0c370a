//! Long-term credentials (RFC 8489, section 9.2): a server's challenge, and the requests that answer it.
//!
//! A server that offers PASSWORD-ALGORITHMS is answered with SHA-256 throughout; one that does not, like older
//! versions of coturn, with MD5 and SHA-1. The nonce cookie says which of the two the server meant, so that nobody on
//! the path can strip the offer.

use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, StunMessage, StunMessageBuilder,
    attributes::stun::{
        MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm,
        UserHash, UserName,
    },
};

use super::integrity::Integrity;

/// How a nonce starts that carries the server's security features (RFC 8489, section 9.2).
const NONCE_COOKIE: &str = "obMatJos2";
/// The security feature bit "password algorithms" in the first base64 digit after the cookie.
const PASSWORD_ALGORITHMS: u8 = 0b10_0000;
/// The security feature bit "user name anonymity".
const USERNAME_ANONYMITY: u8 = 0b01_0000;

/// The server's challenge cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's challenge cannot be answered")]
pub struct ChallengeError;

/// A server's challenge with our answer to it.
pub(super) struct Challenge {
    realm: Realm,
    nonce: Nonce,
    /// The server's offer, which each request repeats, and our choice from it.
    algorithms: Option<(PasswordAlgorithms, AlgorithmId)>,
    anonymous: bool,
    key: HMACKey,
}

impl Challenge {
    /// Reads the challenge of an error response (401 or 438). A response without a realm keeps that of `previous`.
    pub(super) fn read(
        message: &StunMessage,
        previous: Option<&Self>,
        username: &str,
        password: &str,
    ) -> Result<Self, ChallengeError> {
        let nonce = message.get::<Nonce>().and_then(|a| a.as_nonce().ok()).ok_or(ChallengeError)?.clone();
        let realm = match message.get::<Realm>().and_then(|a| a.as_realm().ok()) {
            Some(realm) => realm.clone(),
            None => previous.ok_or(ChallengeError)?.realm.clone(),
        };
        let features = security_features(nonce.as_str());
        let algorithms = choose(message)?;
        if features & PASSWORD_ALGORITHMS != 0 && algorithms.is_none() {
            return Err(ChallengeError);
        }
        let id = algorithms.as_ref().map_or(AlgorithmId::MD5, |(_, id)| *id);
        let key = HMACKey::new_long_term(username, realm.as_str(), password, Algorithm::from(id))
            .map_err(|_| ChallengeError)?;
        Ok(Self { realm, nonce, algorithms, anonymous: features & USERNAME_ANONYMITY != 0, key })
    }

    /// Returns the answer of another user to the same challenge; `None` if the name or password has forbidden characters.
    pub(super) fn for_user(&self, username: &str, password: &str) -> Option<Self> {
        let id = self.algorithms.as_ref().map_or(AlgorithmId::MD5, |(_, id)| *id);
        let key =
            HMACKey::new_long_term(username, self.realm.as_str(), password, Algorithm::from(id)).ok()?;
        let (realm, nonce, algorithms) = (self.realm.clone(), self.nonce.clone(), self.algorithms.clone());
        Some(Self { realm, nonce, algorithms, anonymous: self.anonymous, key })
    }

    pub(super) fn has_nonce_of(&self, other: &Self) -> bool {
        self.nonce.as_str() == other.nonce.as_str()
    }

    pub(super) fn add_attributes(
        &self,
        message: StunMessageBuilder,
        username: &str,
    ) -> Option<StunMessageBuilder> {
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

    pub(super) fn verify(&self, bytes: &[u8], message: &StunMessage) -> bool {
        let integrity = if self.algorithms.is_some() { Integrity::Sha256 } else { Integrity::Sha1 };
        integrity.verify(bytes, message, &self.key)
    }
}

/// Returns the server's offer and our choice from it, SHA-256 if offered.
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

/// Returns the top six bits of the security feature set in a nonce cookie, which its first base64 digit holds; zero
/// without a cookie.
fn security_features(nonce: &str) -> u8 {
    let digit =
        nonce.strip_prefix(NONCE_COOKIE).filter(|rest| rest.len() >= 4).and_then(|rest| rest.bytes().next());
    match digit {
        Some(c @ b'A'..=b'Z') => c - b'A',
        Some(c @ b'a'..=b'z') => c - b'a' + 26,
        Some(c @ b'0'..=b'9') => c - b'0' + 52,
        Some(b'+') => 62,
        Some(b'/') => 63,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonce_cookie_carries_the_security_features() {
        assert_eq!(security_features("obMatJos2gAAAnonce"), PASSWORD_ALGORITHMS);
        assert_eq!(security_features("obMatJos2QAAAnonce"), USERNAME_ANONYMITY);
        assert_eq!(security_features("obMatJos2wAAAnonce"), PASSWORD_ALGORITHMS | USERNAME_ANONYMITY);
        for nonce in ["obMatJos2AAAAnonce", "obMatJos2é", "anything else"] {
            assert_eq!(security_features(nonce), 0, "{nonce}");
        }
    }
}
