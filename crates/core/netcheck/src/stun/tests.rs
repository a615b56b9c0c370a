use super::*;

/// RFC 5769, section 2.2, without its MESSAGE-INTEGRITY, whose key we are not given; the FINGERPRINT goes with it.
const ANSWER: [u8; 48] = [
    0x01, 0x01, 0x00, 0x1c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
    0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
    0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
];

fn server() -> SocketAddr {
    ([11, 0, 1, 1], 3478).into()
}

/// The answer with attributes put behind it.
fn with(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = [&ANSWER[..], attributes].concat();
    bytes[3] = u8::try_from(bytes.len() - 20).expect("short");
    bytes
}

#[test]
fn the_rfc_s_sample_answer_is_read() {
    let answer = answer(&ANSWER, server(), None).expect("well-formed");
    assert_eq!(answer, Answer { mapped: ([192, 0, 2, 1], 32853).into(), other: None });
    assert_eq!(answered_id(&ANSWER).map(|id| id[0]), Some(0xb7));
}

#[test]
fn an_answer_for_the_other_address_family_is_unusable() {
    let v6: SocketAddr = "[2001:db8::1]:3478".parse().expect("an address");
    assert_eq!(answer(&ANSWER, v6, None), Err(Flaw::Unusable));
}

#[test]
fn requests_and_indications_answer_nothing() {
    let id = [7; 12];
    assert_eq!(answered_id(&request(id, Change::AddressAndPort, None)), None);
    assert_eq!(request(id, Change::AddressAndPort, None).len(), 36);
    assert_eq!(request(id, Change::Nothing, None).len(), 28);
}

#[test]
fn a_wrong_fingerprint_spoils_an_answer() {
    assert_eq!(answer(&with(&[0x80, 0x28, 0, 4, 1, 2, 3, 4]), server(), None), Err(Flaw::Malformed));
}

#[test]
fn a_public_server_cannot_send_us_into_our_own_network() {
    for (address, accepted) in [
        ([11, 0, 1, 2], true),
        ([11, 0, 1, 1], false),
        ([192, 168, 1, 1], false),
        ([127, 0, 0, 1], false),
        ([100, 64, 0, 1], false),
        ([224, 0, 0, 1], false),
        ([0, 0, 0, 0], false),
    ] {
        let attribute = [&[0x80, 0x2c, 0, 8, 0, 1, 0x0d, 0x97][..], &address].concat();
        let other = answer(&with(&attribute), server(), None).expect("well-formed").other;
        assert_eq!(other.is_some(), accepted, "{address:?}");
    }
}
