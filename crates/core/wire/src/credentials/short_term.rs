//! Short-term credentials (RFC 8489, section 9.1).
//!
//! The first request carries both integrity attributes, since nothing is known about the server. Both sides then use
//! the one with which the server protects its first response. A response without it is treated as if it had never
//! arrived.

use stun_rs::{
    HMACKey, StunMessage, StunMessageBuilder,
    attributes::stun::{MessageIntegrity, MessageIntegritySha256, UserName},
};

use super::integrity::Integrity;

/// The key, and the attribute that the server uses.
pub(super) struct ShortTerm {
    key: HMACKey,
    agreed: Option<Integrity>,
}

impl ShortTerm {
    pub(super) fn new(password: &str) -> Option<Self> {
        Some(Self { key: HMACKey::new_short_term(password).ok()?, agreed: None })
    }

    pub(super) fn add_attributes(
        &self,
        message: StunMessageBuilder,
        username: &str,
    ) -> Option<StunMessageBuilder> {
        let message = message.with_attribute(UserName::new(username).ok()?);
        let sha1 = || MessageIntegrity::new(self.key.clone());
        let sha256 = || MessageIntegritySha256::new(self.key.clone());
        Some(match self.agreed {
            None => message.with_attribute(sha1()).with_attribute(sha256()),
            Some(Integrity::Sha1) => message.with_attribute(sha1()),
            Some(Integrity::Sha256) => message.with_attribute(sha256()),
        })
    }

    /// Returns true if a response verifies with the agreed attribute. Before one is agreed on, SHA-256 counts if the
    /// response has it: a wrong SHA-256 is not made good by a right SHA-1.
    pub(super) fn verify(&mut self, bytes: &[u8], message: &StunMessage) -> bool {
        let best = if message.get::<MessageIntegritySha256>().is_some() {
            Integrity::Sha256
        } else {
            Integrity::Sha1
        };
        let kind = self.agreed.unwrap_or(best);
        let verified = kind.verify(bytes, message, &self.key);
        self.agreed = self.agreed.or(verified.then_some(kind));
        verified
    }
}

#[cfg(test)]
mod tests {
    use stun_rs::{
        MessageClass, MessageDecoder, MessageEncoderBuilder, TransactionId,
        attributes::stun::{Fingerprint, XorMappedAddress},
        methods::BINDING,
    };

    use super::*;
    use crate::credentials::Credentials;

    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    /// RFC 5769, section 2.2: a response signed with [`PASSWORD`].
    const SAMPLE: [u8; 80] = [
        0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
        0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00,
        0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53,
        0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
    ];

    fn decode(bytes: &[u8]) -> StunMessage {
        MessageDecoder::default().decode(bytes).expect("well-formed").0
    }

    fn request(credentials: &Credentials) -> StunMessage {
        let begun = StunMessageBuilder::new(BINDING, MessageClass::Request);
        decode(&credentials.sign(begun).expect("it can be signed"))
    }

    fn kinds(credentials: &Credentials) -> (bool, bool) {
        let request = request(credentials);
        assert!(request.get::<UserName>().is_some());
        (request.get::<MessageIntegrity>().is_some(), request.get::<MessageIntegritySha256>().is_some())
    }

    /// Returns a response signed with a password.
    fn response(sha1: bool, sha256: bool, password: &str) -> Vec<u8> {
        let key = HMACKey::new_short_term(password).expect("a password");
        let seen = std::net::SocketAddr::from(([192, 0, 2, 1], 4000));
        let mut message = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(TransactionId::from([7; 12]))
            .with_attribute(XorMappedAddress::from(seen));
        if sha1 {
            message = message.with_attribute(MessageIntegrity::new(key.clone()));
        }
        if sha256 {
            message = message.with_attribute(MessageIntegritySha256::new(key));
        }
        let message = message.with_attribute(Fingerprint::default()).build();
        let mut bytes = vec![0; 300];
        let length = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).expect("room");
        bytes.truncate(length);
        bytes
    }

    fn verify(credentials: &mut Credentials, bytes: &[u8]) -> bool {
        credentials.verify(bytes, &decode(bytes))
    }

    #[test]
    fn rfc_5769_response_verifies_with_its_password_only() {
        let mut own = Credentials::short_term("evtj:h6vY", PASSWORD).expect("a password");
        assert!(own.signs_requests() && verify(&mut own, &SAMPLE));
        let mut other = Credentials::short_term("evtj:h6vY", "another").expect("a password");
        assert!(!verify(&mut other, &SAMPLE));
        let mut changed = SAMPLE;
        changed[45] ^= 1;
        assert!(!verify(&mut own, &changed));
    }

    #[test]
    fn later_requests_use_the_attribute_of_the_first_verified_response() {
        for (sha1, sha256, kept) in
            [(true, false, (true, false)), (false, true, (false, true)), (true, true, (false, true))]
        {
            let mut credentials = Credentials::short_term("anna", PASSWORD).expect("a password");
            assert_eq!(kinds(&credentials), (true, true));
            assert!(!verify(&mut credentials, &response(false, false, PASSWORD)), "no integrity attribute");
            assert!(!verify(&mut credentials, &response(sha1, sha256, "another")));
            assert_eq!(kinds(&credentials), (true, true), "a forged response settles nothing");
            assert!(verify(&mut credentials, &response(sha1, sha256, PASSWORD)));
            assert_eq!(kinds(&credentials), kept);
            let switched = response(!kept.0, !kept.1, PASSWORD);
            assert!(!verify(&mut credentials, &switched), "the agreed attribute stays");
        }
    }
}
