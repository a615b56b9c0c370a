//! Long-term credentials of a TURN client.

use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, StunMessage, StunMessageBuilder,
    attributes::stun::{MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, Realm, UserName},
};

use crate::stun;

/// The long-term credentials with which a client signs its requests (RFC 8489, section 9.2).
#[derive(Debug, Clone)]
pub struct LongTermCredentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// The server's realm.
    pub realm: String,
    /// The nonce of the server's last challenge.
    pub nonce: Nonce,
    /// True to sign with SHA-256 as RFC 8489 has it, false to sign as RFC 5389 does.
    pub sha256: bool,
}

impl LongTermCredentials {
    /// Takes the nonce from a challenge (401 or 438).
    ///
    /// # Panics
    /// If the response is no challenge.
    #[must_use]
    pub fn from_challenge(challenge: &StunMessage, realm: &str, username: &str, password: &str) -> Self {
        assert!(matches!(stun::error_code(challenge), 401 | 438), "no challenge: {challenge:?}");
        Self {
            username: username.into(),
            password: password.into(),
            realm: realm.into(),
            nonce: challenge.get::<Nonce>().expect("a nonce").expect_nonce().clone(),
            sha256: false,
        }
    }

    /// Returns the key of the message integrity.
    #[must_use]
    pub fn key(&self) -> HMACKey {
        let algorithm = Algorithm::from(if self.sha256 { AlgorithmId::SHA256 } else { AlgorithmId::MD5 });
        HMACKey::new_long_term(&self.username, &self.realm, &self.password, algorithm).expect("a valid key")
    }

    /// Adds the credentials to a request.
    #[must_use]
    pub fn sign(&self, request: StunMessageBuilder) -> StunMessage {
        let request = request
            .with_attribute(UserName::new(&self.username).expect("a valid user name"))
            .with_attribute(Realm::new(&self.realm).expect("a valid realm"))
            .with_attribute(self.nonce.clone());
        if !self.sha256 {
            return request.with_attribute(MessageIntegrity::new(self.key())).build();
        }
        request
            .with_attribute(stun::password_algorithms())
            .with_attribute(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)))
            .with_attribute(MessageIntegritySha256::new(self.key()))
            .build()
    }
}
