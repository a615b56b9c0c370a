//! Binding requests (RFC 8489), NAT behavior discovery (RFC 5780), and classic clients (RFC 3489).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use partyline_relay::{Client, ClientTransport, Settings};
use stun_rs::{
    MessageDecoder, StunMessage, StunMessageBuilder,
    attributes::{
        discovery::{ChangeRequest, ChangeRequestFlags, OtherAddress, Padding, ResponseOrigin, ResponsePort},
        stun::{Fingerprint, MappedAddress, UnknownAttributes, XorMappedAddress},
    },
    methods::{BINDING, REFRESH},
};

fn ask(
    lab: &mut Lab,
    builder: StunMessageBuilder,
) -> (ClientTransport, std::net::SocketAddr, StunMessage, usize) {
    lab.packet(udp("192.0.2.1:1000"), &encode(&builder.build()));
    let answer = lab.transmits().pop().unwrap();
    let (message, length) = MessageDecoder::default().decode(&answer.payload).unwrap();
    (answer.transport, answer.destination, message, length)
}

#[test]
fn response_has_mapped_address_origin_and_other_address() {
    let mut lab = Lab::new(settings());
    let (transport, to, answer, length) = ask(&mut lab, request(BINDING));
    assert_eq!((transport, to), (ClientTransport::Udp(0), address("192.0.2.1:1000")));
    assert_eq!(*answer.get::<XorMappedAddress>().unwrap().expect_xor_mapped_address().socket_address(), to);
    let origin = answer.get::<ResponseOrigin>().unwrap().expect_response_origin();
    assert_eq!(*origin.socket_address(), address("198.51.100.1:3478"));
    let other = answer.get::<OtherAddress>().unwrap().expect_other_address();
    assert_eq!(*other.socket_address(), address("198.51.100.2:3479"));
    // A bare request has 20 bytes; a response of four times that cannot amplify a flood much.
    assert!(length <= 80, "{length}");
}

/// A request with a forged source address aims the answer at a third party.
#[test]
fn stun_answers_are_at_most_four_times_as_long_as_their_questions() {
    let fingerprint = |builder: StunMessageBuilder| builder.with_attribute(Fingerprint::default());
    let change = ChangeRequest::new(Some(ChangeRequestFlags::ChangePort.into()));
    let questions = [
        encode(&request(BINDING).build()),
        encode(&fingerprint(request(BINDING)).build()),
        encode(&request(BINDING).with_attribute(change).build()),
        encode(&request(BINDING).with_attribute(Padding::new("x".repeat(500)).unwrap()).build()),
        encode(&request(REFRESH).build()),
        encode(&allocate().build()),
        encode(&fingerprint(allocate()).build()),
    ];
    let addresses = ["198.51.100.1:3478", "198.51.100.2:3479", "[2001:db8::1]:3478", "[2001:db8::2]:3479"];
    for realm in ["p", REALM, "a realm of 28 characters, ok", "a realm that is too long for a short question"]
    {
        let mut lab = Lab::with_listeners(Settings { realm: realm.into(), ..settings() }, &addresses);
        let (mut answered, mut silent) = (0, 0);
        for (listener, client) in [(0, "192.0.2.1:1000"), (2, "[2001:db8:1::1]:1000")] {
            let client = Client { transport: ClientTransport::Udp(listener), address: address(client) };
            for question in &questions {
                lab.packet(client, question);
                let answer = lab.transmits().pop();
                if answer.is_some() {
                    answered += 1
                } else {
                    silent += 1
                };
                let length = answer.map_or(0, |answer| answer.payload.len());
                assert!(length <= 4 * question.len(), "{length} for {} bytes, {realm}", question.len());
            }
        }
        // A Refresh without anything is not what a client sends, and the only one that goes unanswered.
        let dropped = lab.server.core.counters().dropped.amplification;
        assert_eq!((answered + silent, dropped), (14, silent), "{realm}");
        assert!(silent <= 2 || realm.len() > 28, "{silent} silent, {realm}");
    }
}

#[test]
fn ipv6_answer_to_a_bare_request_leaves_out_what_is_too_much() {
    let mut lab = Lab::with_listeners(settings(), &["[2001:db8::1]:3478", "[2001:db8::2]:3479"]);
    let mut ask = |builder: StunMessageBuilder| {
        lab.packet(udp("[2001:db8:1::1]:1000"), &encode(&builder.build()));
        MessageDecoder::default().decode(&lab.transmits().pop().unwrap().payload).unwrap().0
    };
    let bare = ask(request(BINDING));
    assert!(bare.get::<XorMappedAddress>().is_some() && bare.get::<OtherAddress>().is_some());
    assert!(bare.get::<ResponseOrigin>().is_none() && bare.get::<MappedAddress>().is_none());
    let longer = ask(request(BINDING).with_attribute(Fingerprint::default()));
    assert!(longer.get::<OtherAddress>().is_some() && longer.get::<ResponseOrigin>().is_some());
}

#[test]
fn change_request_selects_the_listener_that_answers() {
    let (ip, port) = (ChangeRequestFlags::ChangeIp, ChangeRequestFlags::ChangePort);
    for (flags, listener, origin) in [
        (None, 0, "198.51.100.1:3478"),
        (Some(ip.into()), 1, "198.51.100.2:3478"),
        (Some(port.into()), 2, "198.51.100.1:3479"),
        (Some(ip | port), 3, "198.51.100.2:3479"),
    ] {
        let mut lab = Lab::new(settings());
        let (transport, _, answer, _) =
            ask(&mut lab, request(BINDING).with_attribute(ChangeRequest::new(flags)));
        assert_eq!(transport, ClientTransport::Udp(listener));
        assert_eq!(
            *answer.get::<ResponseOrigin>().unwrap().expect_response_origin().socket_address(),
            address(origin)
        );
    }
}

#[test]
fn response_port_and_padding_exclude_each_other() {
    let mut lab = Lab::new(settings());
    let padding = || Padding::new("x".repeat(100)).unwrap();
    let (_, to, ..) = ask(&mut lab, request(BINDING).with_attribute(ResponsePort::from(4000)));
    assert_eq!(to, address("192.0.2.1:4000"));
    let (.., answer, _) = ask(&mut lab, request(BINDING).with_attribute(padding()));
    assert_eq!(answer.get::<Padding>().unwrap().expect_padding().as_str().len(), 100);
    let both = request(BINDING).with_attribute(ResponsePort::from(4000)).with_attribute(padding());
    assert_eq!(code(&ask(&mut lab, both).2), 400);
}

#[test]
fn fingerprint_is_checked_and_returned() {
    let mut lab = Lab::new(settings());
    let message = request(BINDING).with_attribute(Fingerprint::default());
    let (.., answer, _) = ask(&mut lab, message);
    assert!(answer.get::<Fingerprint>().is_some());
    let mut bytes = encode(&request(BINDING).with_attribute(Fingerprint::default()).build());
    bytes[10] ^= 1;
    lab.packet(udp("192.0.2.1:1"), &bytes);
    assert!(lab.transmits().is_empty());
    assert_eq!(lab.server.core.counters().dropped.malformed, 1);
}

#[test]
fn indications_responses_and_unknown_methods_are_not_answered() {
    let mut lab = Lab::new(settings());
    for kind in [0x0011u16, 0x0101, 0x0111, 0x0002, 0x0017] {
        let mut bytes = encode(&request(BINDING).build());
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        lab.packet(udp("192.0.2.1:1"), &bytes);
        assert!(lab.transmits().is_empty(), "{kind:x}");
    }
}

#[test]
fn unknown_comprehension_required_attribute_gets_420() {
    let mut lab = Lab::new(settings());
    let mut bytes = encode(&request(BINDING).build());
    bytes.extend_from_slice(&[0x7F, 0x01, 0, 0]);
    bytes[3] = 4;
    lab.packet(udp("192.0.2.1:1"), &bytes);
    let payload = lab.transmits().pop().unwrap().payload;
    assert_eq!(code(&MessageDecoder::default().decode(&payload).unwrap().0), 420);
}

#[test]
fn rfc_3489_client_gets_an_rfc_3489_response() {
    let mut lab = Lab::new(settings());
    let mut bytes = vec![0, 1, 0, 8];
    bytes.extend_from_slice(&[0xAB; 16]);
    bytes.extend_from_slice(&[0, 3, 0, 4, 0, 0, 0, 6]);
    lab.packet(udp("192.0.2.1:1000"), &bytes);
    let answer = lab.transmits().pop().unwrap();
    assert_eq!(answer.transport, ClientTransport::Udp(3));
    assert_eq!(answer.payload[..4], [1, 1, 0, 36]);
    assert_eq!(answer.payload[4..20], [0xAB; 16]);
    assert_eq!(answer.payload[20..32], [0, 1, 0, 8, 0, 1, 0x03, 0xE8, 192, 0, 2, 1]);
    assert_eq!(answer.payload[32..44], [0, 4, 0, 8, 0, 1, 0x0D, 0x97, 198, 51, 100, 2]);
}

#[test]
fn change_request_without_another_listener_gets_420_and_names_the_attribute() {
    let mut lab = Lab::with_listeners(settings(), &["198.51.100.1:3478"]);
    let flags = Some(ChangeRequestFlags::ChangeIp.into());
    let (.., answer, _) = ask(&mut lab, request(BINDING).with_attribute(ChangeRequest::new(flags)));
    assert_eq!(code(&answer), 420);
    let unknown = answer.get::<UnknownAttributes>().unwrap().expect_unknown_attributes();
    assert_eq!(unknown.attributes(), [0x0003]);
    assert_eq!(lab.server.core.counters().refused.unknown_attribute, 1);
    assert_eq!(lab.server.core.counters().bindings, 0);
}
