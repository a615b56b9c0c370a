use proptest::prelude::*;

use super::*;

/// A Binding request with some attributes.
fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    message.extend_from_slice(&[9; 12]);
    for (kind, value) in attributes {
        append(&mut message, *kind, value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    set_length(&mut message, 0);
    message
}

#[test]
fn sealed_messages_verify_under_their_key_only() {
    for kind in [Integrity::Sha1, Integrity::Sha256] {
        let mut bytes = message(&[(0x8022, b"abc")]);
        seal(&mut bytes, kind, b"key");
        append_fingerprint(&mut bytes);
        let found = find(&bytes).unwrap();
        assert_eq!(found.kind, kind);
        assert!(found.verify(b"key"));
        assert!(!found.verify(b"other"));
        assert_eq!(fingerprint(&bytes), Some(true));
    }
}

#[test]
fn the_codec_agrees() {
    let key = stun_rs::HMACKey::new_short_term("password").unwrap();
    let message = stun_rs::StunMessageBuilder::new(stun_rs::methods::BINDING, stun_rs::MessageClass::Request)
        .with_attribute(stun_rs::attributes::stun::MessageIntegrity::new(key.clone()))
        .with_attribute(stun_rs::attributes::stun::MessageIntegritySha256::new(key.clone()))
        .with_attribute(stun_rs::attributes::stun::Fingerprint::default())
        .build();
    let mut bytes = vec![0; 200];
    let size = stun_rs::MessageEncoder::default().encode(&mut bytes, &message).unwrap();
    let found = find(&bytes[..size]).unwrap();
    assert_eq!(found.kind, Integrity::Sha256);
    assert!(found.verify(key.as_bytes()));
    assert_eq!(fingerprint(&bytes[..size]), Some(true));
}

#[test]
fn sha256_may_be_truncated_to_sixteen_bytes_and_no_further() {
    for (length, valid) in [(12, false), (16, true), (18, false), (28, true), (32, true)] {
        let mut bytes = message(&[]);
        set_length(&mut bytes, 4 + length);
        let code = Integrity::Sha256.code(b"key", &[&bytes]);
        append(&mut bytes, MESSAGE_INTEGRITY_SHA256, &code[..length]);
        assert_eq!(find(&bytes).unwrap().verify(b"key"), valid, "{length}");
    }
}

#[test]
fn integrity_behind_the_fingerprint_does_not_count() {
    let mut bytes = message(&[]);
    append_fingerprint(&mut bytes);
    seal(&mut bytes, Integrity::Sha1, b"key");
    assert_eq!(find(&bytes), None);
    assert_eq!(fingerprint(&bytes), Some(false));
}

proptest! {
    #[test]
    fn any_changed_bit_is_noticed(bit in 0usize..8 * 20, sha256: bool) {
        let kind = if sha256 { Integrity::Sha256 } else { Integrity::Sha1 };
        let mut bytes = message(&[(0x0006, b"user")]);
        seal(&mut bytes, kind, b"key");
        // The length field is computed, not compared.
        prop_assume!(!(16..32).contains(&bit));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!find(&bytes).is_some_and(|seal| seal.verify(b"key")));
    }

    #[test]
    fn garbage_is_searched_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (find(&bytes).map(|seal| seal.verify(b"key")), fingerprint(&bytes));
    }
}
