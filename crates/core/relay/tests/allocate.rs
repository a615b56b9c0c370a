//! Allocate, Refresh, CreatePermission and ChannelBind requests and their limits (RFC 8656, sections 7, 8, 10 and 12).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use partyline_relay::{Quotas, Settings};
use stun_rs::{
    AddressFamily,
    attributes::{
        stun::{UnknownAttributes, XorMappedAddress},
        turn::{
            AdditionalAddressFamily, AddressErrorCode, ChannelNumber, DontFragment, EvenPort, LifeTime,
            RequestedAddressFamily, RequestedTrasport, ReservationToken, XorRelayedAddress,
        },
    },
    methods,
};

fn lifetime(answer: &stun_rs::StunMessage) -> u32 {
    answer.get::<LifeTime>().unwrap().expect_life_time().as_u32()
}

fn refresh(seconds: u32) -> stun_rs::StunMessageBuilder {
    request(methods::REFRESH).with_attribute(LifeTime::new(seconds))
}

#[test]
fn success_response_has_relayed_address_lifetime_and_mapped_address() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let answer = alice.call(&mut lab, allocate());
    assert_eq!(code(&answer), 0);
    let relayed = relayed(&answer);
    assert_eq!(relayed.ip(), address("198.51.100.1:0").ip());
    assert!((49_152..).contains(&relayed.port()));
    assert_eq!(lifetime(&answer), 600);
    let mapped = answer.get::<XorMappedAddress>().unwrap().expect_xor_mapped_address();
    assert_eq!(*mapped.socket_address(), alice.client.address);
    assert_eq!(lab.server.open_sockets(), 1);
}

#[test]
fn retransmission_gets_the_same_response_and_another_request_437() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let message = alice.sign(allocate());
    let first = lab.ask(alice.client, &message).unwrap();
    let again = lab.ask(alice.client, &message).unwrap();
    assert_eq!(relayed(&first), relayed(&again));
    assert_eq!(code(&alice.call(&mut lab, allocate())), 437);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (1, 1));
}

#[test]
fn transport_other_than_udp_is_refused() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    assert_eq!(code(&alice.call(&mut lab, request(methods::ALLOCATE))), 400);
    let tcp = alice
        .sign(request(methods::ALLOCATE).with_attribute(RequestedTrasport::from(stun_rs::protocols::UDP)));
    // The codec knows no other protocol, so one is written over.
    let mut bytes = encode(&tcp);
    assert_eq!(&bytes[20..25], &[0, 0x19, 0, 4, 17]);
    bytes[24] = 6;
    let end = bytes.len() - 24;
    bytes.truncate(end);
    let key = alice.key();
    seal(&mut bytes, key.as_bytes());
    lab.packet(alice.client, &bytes);
    let answer = lab.transmits().pop().unwrap();
    let (answer, _) = stun_rs::MessageDecoder::default().decode(&answer.payload).unwrap();
    assert_eq!(code(&answer), 442);
}

/// MESSAGE-INTEGRITY, by hand.
fn seal(bytes: &mut Vec<u8>, key: &[u8]) {
    use hmac::Mac;
    let length = (bytes.len() + 4) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let mut mac = <hmac::Hmac<sha1::Sha1> as Mac>::new_from_slice(key).unwrap();
    mac.update(bytes);
    bytes.extend_from_slice(&[0, 8, 0, 20]);
    bytes.extend_from_slice(&mac.finalize().into_bytes());
}

#[test]
fn lifetime_is_between_ten_minutes_and_the_maximum() {
    for (asked, given) in [(1, 600), (600, 600), (1800, 1800), (100_000, 3600)] {
        let mut lab = Lab::new(settings());
        let alice = alice(&mut lab);
        let answer = alice.call(&mut lab, allocate().with_attribute(LifeTime::new(asked)));
        assert_eq!(lifetime(&answer), given);
        assert_eq!(lifetime(&alice.call(&mut lab, refresh(asked))), given);
    }
}

#[test]
fn allocation_expires_unless_refreshed() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    alice.relayed(&mut lab);
    lab.advance(599);
    assert_eq!(code(&alice.call(&mut lab, refresh(600))), 0);
    lab.advance(599);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (1, 1));
    assert_eq!(lab.server.core.poll_timeout(), Some(lab.now.instant + Duration::from_secs(1)));
    lab.advance(1);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (0, 0));
    assert_eq!(lab.server.core.poll_timeout(), None);
    assert_eq!(code(&alice.call(&mut lab, refresh(600))), 437);
}

#[test]
fn refresh_with_lifetime_zero_deletes_the_allocation() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    alice.relayed(&mut lab);
    assert_eq!(lifetime(&alice.call(&mut lab, refresh(0))), 0);
    assert!(lab.server.open_sockets() == 0);
    assert_eq!(code(&alice.call(&mut lab, refresh(0))), 437);
}

#[test]
fn disconnected_client_loses_its_allocation() {
    let mut lab = Lab::new(settings());
    let client = partyline_relay::Client {
        transport: partyline_relay::ClientTransport::Stream(5),
        address: address("192.0.2.1:1"),
    };
    Caller::new(&mut lab, client, "alice", "a").relayed(&mut lab);
    lab.server.core.handle_disconnect(client);
    lab.advance(0);
    assert!(lab.server.open_sockets() == 0);
}

#[test]
fn address_families_are_allocated_as_requested() {
    let mut lab = Lab::new(settings());
    let (alice, bob) = (alice(&mut lab), bob(&mut lab));
    let answer =
        alice.call(&mut lab, allocate().with_attribute(RequestedAddressFamily::new(AddressFamily::IPv6)));
    assert!(relayed(&answer).is_ipv6());
    assert_eq!(code(&alice.call(&mut lab, permission("203.0.113.1:1"))), 443);
    assert_eq!(code(&alice.call(&mut lab, permission("[2001:db8:1::1]:1"))), 0);
    let mismatch = refresh(600).with_attribute(RequestedAddressFamily::new(AddressFamily::IPv4));
    assert_eq!(code(&alice.call(&mut lab, mismatch)), 443);

    let both =
        bob.call(&mut lab, allocate().with_attribute(AdditionalAddressFamily::new(AddressFamily::IPv6)));
    let addresses = both.attributes().iter().filter(|attribute| attribute.is_xor_relayed_address()).count();
    assert_eq!((addresses, lab.server.open_sockets()), (2, 3));
    let one = refresh(0).with_attribute(RequestedAddressFamily::new(AddressFamily::IPv4));
    assert_eq!(code(&bob.call(&mut lab, one)), 0);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (2, 2));
}

#[test]
fn unsupported_address_family_gets_440_or_an_address_error_code() {
    let now = Lab::new(settings()).now;
    let mut lab = Lab::new(settings());
    let v4 = partyline_relay::RelayAddress {
        local: address("198.51.100.1:0").ip(),
        public: address("198.51.100.1:0").ip(),
    };
    let listener = partyline_relay::Listener {
        local: address("198.51.100.1:3478"),
        public: address("198.51.100.1:3478"),
    };
    lab.server.core = partyline_relay::Relay::new(settings(), vec![listener], &[v4], [7; 32]);
    lab.now = now;
    let alice = alice(&mut lab);
    let v6 = allocate().with_attribute(RequestedAddressFamily::new(AddressFamily::IPv6));
    assert_eq!(code(&alice.call(&mut lab, v6)), 440);
    let both =
        alice.call(&mut lab, allocate().with_attribute(AdditionalAddressFamily::new(AddressFamily::IPv6)));
    assert!(relayed(&both).is_ipv4());
    let error = both.get::<AddressErrorCode>().unwrap().expect_address_error_code();
    assert_eq!((error.family(), error.error_code().error_code()), (AddressFamily::IPv6, 440));
}

#[test]
fn conflicting_and_unsupported_attributes_get_their_error_codes() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let (v4, v6) = (AddressFamily::IPv4, AddressFamily::IPv6);
    let token = || ReservationToken::from([0; 8]);
    for (attributes, expected) in [
        (
            allocate()
                .with_attribute(RequestedAddressFamily::new(v4))
                .with_attribute(AdditionalAddressFamily::new(v6)),
            400,
        ),
        (allocate().with_attribute(AdditionalAddressFamily::new(v4)), 400),
        (
            allocate().with_attribute(AdditionalAddressFamily::new(v6)).with_attribute(EvenPort::new(true)),
            400,
        ),
        (allocate().with_attribute(EvenPort::new(true)), 508),
        (allocate().with_attribute(token()), 508),
        (allocate().with_attribute(token()).with_attribute(EvenPort::new(false)), 400),
        (allocate().with_attribute(token()).with_attribute(RequestedAddressFamily::new(v4)), 400),
        (allocate().with_attribute(DontFragment::default()), 420),
    ] {
        let answer = alice.call(&mut lab, attributes);
        assert_eq!(code(&answer), expected);
        let unknown = answer
            .get::<UnknownAttributes>()
            .map(|list| list.expect_unknown_attributes().attributes().to_vec());
        assert_eq!(unknown, (expected == 420).then(|| vec![0x001A]));
    }
    assert!(
        alice
            .call(&mut lab, allocate().with_attribute(EvenPort::new(false)))
            .get::<XorRelayedAddress>()
            .is_some()
    );
    assert_eq!(lab.server.relayed_addresses().next().unwrap().port() % 2, 0);
}

#[test]
fn quotas_of_user_address_and_server_are_enforced() {
    let limited =
        |quotas| Settings { quotas: Quotas { unauthenticated_per_second: 10_000, ..quotas }, ..settings() };
    let third = |settings: Settings, clients: [(&str, &str, &str); 3]| {
        let mut lab = Lab::new(settings);
        let codes = clients.map(|(at, user, password)| {
            let caller = Caller::new(&mut lab, udp(at), user, password);
            code(&caller.call(&mut lab, allocate()))
        });
        assert_eq!(codes[..2], [0, 0]);
        codes[2]
    };
    let (a, b) = ("alice", "bob");
    let user = limited(Quotas { allocations_per_user: 2, ..Quotas::default() });
    assert_eq!(
        third(user.clone(), [("192.0.2.1:1", a, "a"), ("192.0.2.2:1", a, "a"), ("192.0.2.3:1", a, "a")]),
        486
    );
    assert_eq!(third(user, [("192.0.2.1:1", a, "a"), ("192.0.2.2:1", a, "a"), ("192.0.2.3:1", b, "b")]), 0);
    let address = limited(Quotas { allocations_per_address: 2, ..Quotas::default() });
    assert_eq!(
        third(address.clone(), [("192.0.2.1:1", a, "a"), ("192.0.2.1:2", b, "b"), ("192.0.2.1:3", b, "b")]),
        486
    );
    assert_eq!(
        third(
            address,
            [("[2001:db8::1]:1", a, "a"), ("[2001:db8::2]:1", b, "b"), ("[2001:db8::3]:1", b, "b")]
        ),
        486
    );
    let server = limited(Quotas { allocations: 2, ..Quotas::default() });
    assert_eq!(
        third(server, [("192.0.2.1:1", a, "a"), ("192.0.2.2:1", b, "b"), ("192.0.2.3:1", b, "b")]),
        508
    );
}

#[test]
fn taken_port_is_replaced_and_full_port_range_gets_508() {
    let mut lab = Lab::new(Settings { ports: 50_000..=50_001, ..settings() });
    let (alice, bob) = (alice(&mut lab), bob(&mut lab));
    lab.server.failing_sockets = 3;
    assert_eq!(code(&alice.call(&mut lab, allocate())), 0);
    lab.server.failing_sockets = 100;
    assert_eq!(code(&bob.call(&mut lab, allocate())), 508);
    lab.server.failing_sockets = 0;
    assert_eq!(code(&bob.call(&mut lab, allocate())), 0);
    let carol = Caller::new(&mut lab, udp("192.0.2.3:1"), "bob", "b");
    assert_eq!(code(&carol.call(&mut lab, allocate())), 508);
    assert_eq!((lab.server.open_sockets(), lab.server.core.counters().allocations_active), (2, 2));
}

#[test]
fn permissions_and_channels_need_an_allocation_and_valid_attributes() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    for message in [permission("203.0.113.1:1"), channel(0x4000, "203.0.113.1:1"), refresh(600)] {
        assert_eq!(code(&alice.call(&mut lab, message)), 437);
    }
    alice.relayed(&mut lab);
    for (message, expected) in [
        (request(methods::CREATE_PERMMISSION), 400),
        (request(methods::CHANNEL_BIND).with_attribute(ChannelNumber::new(0x4000)), 400),
        (channel(0x3FFF, "203.0.113.1:1"), 400),
        (channel(0x8000, "203.0.113.1:1"), 400),
        (channel(0x4000, "203.0.113.1:1"), 0),
        (channel(0x4000, "203.0.113.1:1"), 0),
        (channel(0x4000, "203.0.113.2:1"), 400),
        (channel(0x4001, "203.0.113.1:1"), 400),
        (permission("127.0.0.1:1"), 403),
        (channel(0x4002, "192.168.1.1:1"), 403),
        (permission("198.51.100.1:1"), 0),
    ] {
        assert_eq!(code(&alice.call(&mut lab, message)), expected);
    }
}

#[test]
fn another_user_cannot_delete_an_allocation() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    alice.relayed(&mut lab);
    let intruder = Caller::new_with_nonce(&alice, "bob", "b");
    assert_eq!(code(&intruder.call(&mut lab, refresh(0))), 441);
    assert_eq!(lab.server.open_sockets(), 1);
}
