//! Long-term credentials against a server's challenges (RFC 8489, section 9.2).

use partyline_wire::credentials::{ChallengeError, Credentials};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoder, MessageEncoderBuilder, StunMessage,
    StunMessageBuilder,
    attributes::stun::{
        ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, PasswordAlgorithms,
        Realm, UserHash, UserName,
    },
    get_input_text,
    methods::BINDING,
};

/// What the cookies of these nonces say: password algorithms and anonymity, only the first, nothing.
const BOTH: &str = "obMatJos2wAAAnonce";
const ALGORITHMS: &str = "obMatJos2gAAAnonce";
const NEITHER: &str = "obMatJos2AAAAnonce";

fn encode(message: StunMessageBuilder) -> Vec<u8> {
    let mut bytes = vec![0; 600];
    let length = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).expect("room");
    bytes.truncate(length);
    bytes
}

fn decode(bytes: &[u8]) -> StunMessage {
    MessageDecoder::default().decode(bytes).expect("well-formed").0
}

/// A server that wants to know who asks.
fn challenge(nonce: &str, offered: &[AlgorithmId]) -> StunMessage {
    let code = stun_rs::ErrorCode::new(401, "Unauthenticated").expect("a valid code");
    let mut message = StunMessageBuilder::new(BINDING, MessageClass::ErrorResponse)
        .with_attribute(ErrorCode::from(code))
        .with_attribute(Realm::new("example").expect("a realm"))
        .with_attribute(Nonce::new(nonce).expect("a nonce"));
    if !offered.is_empty() {
        let mut offer = PasswordAlgorithms::default();
        offered.iter().for_each(|id| offer.add(PasswordAlgorithm::new(Algorithm::from(*id))));
        message = message.with_attribute(offer);
    }
    decode(&encode(message))
}

fn request(credentials: &Credentials) -> (Vec<u8>, StunMessage) {
    let begun = StunMessageBuilder::new(BINDING, MessageClass::Request);
    let bytes = credentials.sign(begun).expect("it can be signed");
    let message = decode(&bytes);
    (bytes, message)
}

fn key(id: AlgorithmId) -> HMACKey {
    HMACKey::new_long_term("anna", "example", "secret", Algorithm::from(id)).expect("a key")
}

#[test]
fn sha256_is_preferred_for_requests_and_responses() {
    let mut credentials = Credentials::new("anna", "secret");
    assert!(!credentials.signs_requests());
    let offered = challenge(ALGORITHMS, &[AlgorithmId::MD5, AlgorithmId::SHA256]);
    assert_eq!(credentials.on_challenge(&offered), Ok(true));
    let (bytes, message) = request(&credentials);
    assert!(message.get::<MessageIntegrity>().is_none() && message.get::<UserName>().is_some());
    let text = get_input_text::<MessageIntegritySha256>(&bytes).expect("signed");
    let proof = message.get::<MessageIntegritySha256>().and_then(|a| a.as_message_integrity_sha256().ok());
    assert!(proof.expect("signed").validate(&text, &key(AlgorithmId::SHA256)));
    let chosen = message.get::<PasswordAlgorithm>().and_then(|a| a.as_password_algorithm().ok());
    assert_eq!(chosen.expect("the choice").algorithm(), AlgorithmId::SHA256);
    assert!(
        message.get::<PasswordAlgorithms>().is_some(),
        "the offer is repeated, so that the server sees it"
    );

    let answer = |sha256: bool| {
        let begun = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse);
        let key = key(AlgorithmId::SHA256);
        encode(if sha256 {
            begun.with_attribute(MessageIntegritySha256::new(key))
        } else {
            begun.with_attribute(MessageIntegrity::new(key))
        })
    };
    for sha256 in [true, false] {
        let bytes = answer(sha256);
        assert_eq!(credentials.verify(&bytes, &decode(&bytes)), sha256, "only with the agreed algorithm");
    }
}

#[test]
fn stripped_offer_of_algorithms_is_detected() {
    let mut credentials = Credentials::new("anna", "secret");
    assert_eq!(credentials.on_challenge(&challenge(BOTH, &[])), Err(ChallengeError));
    assert!(
        !credentials.signs_requests(),
        "the client sends no password to a server whose offer was stripped"
    );
}

#[test]
fn username_hash_is_used_where_supported_and_old_servers_get_md5() {
    let mut credentials = Credentials::new("anna", "secret");
    assert_eq!(credentials.on_challenge(&challenge(BOTH, &[AlgorithmId::SHA256])), Ok(true));
    let (_, message) = request(&credentials);
    assert!(message.get::<UserHash>().is_some() && message.get::<UserName>().is_none());

    let mut credentials = Credentials::new("anna", "secret");
    assert_eq!(credentials.on_challenge(&challenge(NEITHER, &[])), Ok(true));
    assert_eq!(credentials.on_challenge(&challenge(NEITHER, &[])), Ok(false), "the same nonce again");
    let (bytes, message) = request(&credentials);
    assert!(message.get::<UserName>().is_some() && message.get::<MessageIntegritySha256>().is_none());
    let text = get_input_text::<MessageIntegrity>(&bytes).expect("signed");
    let proof = message.get::<MessageIntegrity>().and_then(|a| a.as_message_integrity().ok());
    assert!(proof.expect("signed").validate(&text, &key(AlgorithmId::MD5)));
}
