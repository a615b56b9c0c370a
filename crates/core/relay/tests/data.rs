//! What is relayed, what is dropped, and why (RFC 8656, sections 11 and 12).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::net::IpAddr;

use common::*;
use partyline_relay::{Client, ClientTransport, Forward, PeerPolicy, Settings};
use proptest::prelude::*;
use stun_rs::{
    AddressFamily, MessageClass, MessageDecoder, StunMessageBuilder,
    attributes::turn::{Data, RequestedAddressFamily, XorPeerAddress},
    methods,
};

const PEER: &str = "203.0.113.1:9";

fn send(peer: &str, payload: &[u8]) -> Vec<u8> {
    let message = StunMessageBuilder::new(methods::SEND, MessageClass::Indication)
        .with_attribute(XorPeerAddress::from(address(peer)))
        .with_attribute(Data::new(payload));
    encode(&message.build())
}

#[test]
fn indications_are_relayed_both_ways_while_the_permission_lasts() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let relayed = alice.relayed(&mut lab);
    assert_eq!(lab.packet(alice.client, &send(PEER, b"hi")).0, Forward::Consumed);
    assert_eq!(lab.peer_sends(relayed, address(PEER), b"hi").0, Forward::Consumed);
    assert_eq!(lab.server.core.counters().dropped.no_permission, 2);

    alice.call(&mut lab, permission(PEER));
    let (forward, bytes) = lab.packet(alice.client, &send(PEER, b"hi"));
    assert!(matches!(forward, Forward::ToPeer { peer, .. } if peer == address(PEER)));
    assert_eq!(bytes, b"hi");
    // A permission is for the address, whatever the port.
    let (forward, bytes) = lab.peer_sends(relayed, address("203.0.113.1:77"), b"yo!");
    assert!(matches!(forward, Forward::ToClient { client, .. } if client == alice.client));
    let (data, _) = MessageDecoder::default().decode(&bytes).unwrap();
    assert_eq!(data.get::<Data>().unwrap().expect_data().as_bytes(), b"yo!");
    let from = data.get::<XorPeerAddress>().unwrap().expect_xor_peer_address();
    assert_eq!(*from.socket_address(), address("203.0.113.1:77"));

    lab.advance(300);
    assert_eq!(lab.packet(alice.client, &send(PEER, b"hi")).0, Forward::Consumed);
    assert_eq!(lab.peer_sends(relayed, address(PEER), b"hi").0, Forward::Consumed);
}

#[test]
fn channel_data_is_relayed_both_ways() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    let relayed = alice.relayed(&mut lab);
    assert_eq!(lab.packet(alice.client, &channel_data(0x4000, b"hi")).0, Forward::Consumed);
    assert_eq!(lab.server.core.counters().dropped.no_channel, 1);
    alice.call(&mut lab, channel(0x4000, PEER));
    let (forward, bytes) = lab.packet(alice.client, &channel_data(0x4000, b"hi"));
    assert!(matches!(forward, Forward::ToPeer { peer, .. } if peer == address(PEER)));
    assert_eq!(bytes, b"hi");
    assert_eq!(lab.peer_sends(relayed, address(PEER), b"yo!").1, channel_data(0x4000, b"yo!"));
    assert_eq!(lab.packet(udp("192.0.2.7:7"), &channel_data(0x4000, b"hi")).0, Forward::Consumed);
}

#[test]
fn channel_data_on_streams_is_padded() {
    let mut lab = Lab::new(settings());
    let client = Client { transport: ClientTransport::Stream(1), address: address("192.0.2.1:1") };
    let alice = Caller::new(&mut lab, client, "alice", "a");
    let relayed = alice.relayed(&mut lab);
    alice.call(&mut lab, channel(0x4000, PEER));
    let (_, bytes) = lab.peer_sends(relayed, address(PEER), b"yo!");
    assert_eq!(bytes, [0x40, 0, 0, 3, b'y', b'o', b'!', 0]);
}

#[test]
fn two_allocations_of_one_server_are_relayed_directly() {
    let mut lab = Lab::new(settings());
    let (alice, bob) = (alice(&mut lab), bob(&mut lab));
    let (a, b) = (alice.relayed(&mut lab), bob.relayed(&mut lab));
    alice.call(&mut lab, channel(0x4000, &b.to_string()));
    assert_eq!(lab.packet(alice.client, &channel_data(0x4000, b"hi")).0, Forward::Consumed);
    bob.call(&mut lab, permission(&a.to_string()));
    let (forward, bytes) = lab.packet(alice.client, &channel_data(0x4000, b"hi"));
    assert!(matches!(forward, Forward::ToClient { client, .. } if client == bob.client));
    let (data, _) = MessageDecoder::default().decode(&bytes).unwrap();
    assert_eq!(*data.get::<XorPeerAddress>().unwrap().expect_xor_peer_address().socket_address(), a);
    bob.call(&mut lab, channel(0x4001, &a.to_string()));
    assert_eq!(lab.packet(alice.client, &channel_data(0x4000, b"hi")).1, channel_data(0x4001, b"hi"));
    assert_eq!(lab.packet(bob.client, &channel_data(0x4001, b"yo")).1, channel_data(0x4000, b"yo"));
    let counters = lab.server.core.counters();
    assert_eq!((counters.packets.from_clients, counters.packets.to_clients), (3, 3));
}

#[test]
fn server_does_not_relay_to_its_own_listeners() {
    for (allow_private, to_own_address) in [(false, false), (true, true)] {
        let mut lab =
            Lab::new(Settings { peers: PeerPolicy { allow_private, denied: Vec::new() }, ..settings() });
        let alice = alice(&mut lab);
        alice.relayed(&mut lab);
        alice.call(&mut lab, permission("198.51.100.1:1"));
        assert_eq!(lab.packet(alice.client, &send("198.51.100.1:3478", b"x")).0, Forward::Consumed);
        assert_eq!(lab.packet(alice.client, &send("198.51.100.1:3479", b"x")).0, Forward::Consumed);
        let other = lab.packet(alice.client, &send("198.51.100.1:22", b"x")).0;
        assert_eq!(other != Forward::Consumed, to_own_address);
    }
}

#[test]
fn bandwidth_is_limited_per_allocation_and_per_server() {
    for total in [false, true] {
        let mut limited = settings();
        limited.quotas.bandwidth_per_allocation = (!total).then_some(10_000);
        limited.quotas.bandwidth = total.then_some(10_000);
        let mut lab = Lab::new(limited);
        let (alice, bob) = (alice(&mut lab), bob(&mut lab));
        for caller in [&alice, &bob] {
            caller.relayed(&mut lab);
            caller.call(&mut lab, channel(0x4000, PEER));
        }
        let packet = channel_data(0x4000, &[0; 1000]);
        let mut pass =
            |client| (0..30).filter(|_| lab.packet(client, &packet).0 != Forward::Consumed).count();
        assert_eq!((pass(alice.client), pass(bob.client)), (10, if total { 0 } else { 10 }));
    }
}

/// A stranger has credentials for a party of its own. Neither may it reach others than members, nor may others reach it.
#[test]
fn relay_credentials_make_no_open_proxy() {
    let mut lab = Lab::new(Settings { foreign_payloads: false, ..settings() });
    let alice = alice(&mut lab);
    let relayed = alice.relayed(&mut lab);
    alice.call(&mut lab, channel(0x4000, PEER));
    let wireguard = |kind: u8, len: usize| {
        let mut bytes = vec![0; len];
        bytes[0] = kind;
        bytes
    };
    let dns = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\xff\x00\x01".to_vec();
    let quic = [&[0xC3, 0, 0, 0, 1][..], &[7; 1195]].concat();
    let turn = encode(&allocate().build());
    let foreign =
        [dns, quic, turn, channel_data(0x4000, b"x"), wireguard(1, 147), wireguard(4, 31), Vec::new()];
    for payload in &foreign {
        assert_eq!(lab.packet(alice.client, &channel_data(0x4000, payload)).0, Forward::Consumed);
        assert_eq!(lab.packet(alice.client, &send(PEER, payload)).0, Forward::Consumed);
        assert_eq!(lab.peer_sends(relayed, address(PEER), payload).0, Forward::Consumed);
    }
    let counters = lab.server.core.counters();
    assert_eq!(counters.dropped.foreign_payload, 3 * foreign.len() as u64);
    assert_eq!((counters.packets.from_clients, counters.packets.to_clients), (0, 0));

    let check = encode(&request(methods::BINDING).build());
    let own =
        [wireguard(1, 148), wireguard(2, 92), wireguard(3, 64), wireguard(4, 32), wireguard(4, 1452), check];
    for payload in &own {
        assert_ne!(lab.packet(alice.client, &channel_data(0x4000, payload)).0, Forward::Consumed);
        assert_ne!(lab.packet(alice.client, &send(PEER, payload)).0, Forward::Consumed);
        assert_ne!(lab.peer_sends(relayed, address(PEER), payload).0, Forward::Consumed);
    }
}

/// What only the server's own computer may reach, such as an admin page, trusts the addresses of that computer.
#[test]
fn relay_is_no_way_into_its_own_computer() {
    let own = ["203.0.113.50", "2001:db8:5::1"].map(|text| text.parse::<IpAddr>().unwrap());
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    alice.relayed(&mut lab);
    assert_eq!(code(&alice.call(&mut lab, permission("203.0.113.50:22"))), 0, "not known to be its own");
    lab.server.core.set_interface_addresses(own);
    assert_eq!(lab.packet(alice.client, &send("203.0.113.50:22", b"x")).0, Forward::Consumed);
    assert_eq!(lab.server.core.counters().dropped.forbidden_peer, 1);
    // The second address that it listens on, at any port, and the interfaces' addresses.
    for peer in ["203.0.113.50:22", "203.0.113.50:3478", "198.51.100.2:22", "198.51.100.2:3478"] {
        assert_eq!(code(&alice.call(&mut lab, permission(peer))), 403, "{peer}");
        assert_eq!(code(&alice.call(&mut lab, channel(0x4000, peer))), 403, "{peer}");
    }
    let bob = bob(&mut lab);
    let v6 = RequestedAddressFamily::new(AddressFamily::IPv6);
    assert_eq!(code(&bob.call(&mut lab, allocate().with_attribute(v6))), 0);
    for peer in ["[2001:db8:5::1]:22", "[64:ff9b::203.0.113.50]:22", "[2002:cb00:7132::1]:22"] {
        assert_eq!(code(&bob.call(&mut lab, permission(peer))), 403, "{peer}");
    }
    lab.server.core.set_interface_addresses([]);
    assert_eq!(
        code(&alice.call(&mut lab, permission("203.0.113.50:22"))),
        0,
        "an interface lost the address"
    );
}

#[test]
fn one_network_cannot_use_up_the_bandwidth_of_others() {
    let mut limited = settings();
    limited.quotas.bandwidth_per_network = Some(10_000);
    limited.quotas.bandwidth_per_allocation = None;
    let mut lab = Lab::new(limited);
    let mut pass = |at: &str| {
        let caller = Caller::new(&mut lab, udp(at), "alice", "a");
        let relayed = caller.relayed(&mut lab);
        caller.call(&mut lab, channel(0x4000, PEER));
        let packet = channel_data(0x4000, &[0; 1000]);
        let sent = (0..30).filter(|_| lab.packet(caller.client, &packet).0 != Forward::Consumed).count();
        let received = lab.peer_sends(relayed, address(PEER), &[0; 1000]).0 != Forward::Consumed;
        (sent, received)
    };
    assert_eq!(pass("192.0.2.1:1"), (10, false));
    assert_eq!(pass("192.0.2.1:2"), (0, false), "another allocation of the same address");
    assert_eq!(pass("[2001:db8:1::1]:1"), (10, false));
    assert_eq!(pass("[2001:db8:1::2]:1"), (0, false), "another address of the same /64");
    assert_eq!(pass("[2001:db8:2::1]:1"), (10, false));
    assert_eq!(lab.server.core.counters().dropped.network_bandwidth, 20 + 30 + 20 + 30 + 20 + 5);
}

#[test]
fn each_drop_is_counted_by_its_reason() {
    let mut lab = Lab::new(settings());
    let alice = alice(&mut lab);
    lab.packet(alice.client, &channel_data(0x4000, b"x"));
    lab.packet(alice.client, &[0x80, 0, 0, 0]);
    alice.relayed(&mut lab);
    lab.packet(alice.client, &channel_data(0x4000, b"x"));
    lab.packet(alice.client, &send(PEER, b"x"));
    alice.call(&mut lab, permission("198.51.100.1:1"));
    lab.packet(alice.client, &send("198.51.100.1:3478", b"x"));
    let dropped: Vec<_> = lab.server.core.counters().dropped.each().filter(|(_, count)| *count > 0).collect();
    let once = ["malformed", "no_allocation", "no_permission", "no_channel", "forbidden_peer"];
    assert_eq!(dropped, once.map(|reason| (reason, 1)));
}

proptest! {
    /// Whatever a client with an allocation sends, nothing is relayed to a peer without a permission.
    #[test]
    fn hostile_packets_reach_only_permitted_peers(packets in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 0..120)), 1..40)) {
        let mut lab = Lab::new(settings());
        let alice = alice(&mut lab);
        let relayed = alice.relayed(&mut lab);
        alice.call(&mut lab, channel(0x4000, PEER));
        for (kind, mut bytes) in packets {
            let head: &[u8] = match kind {
                0 => &[0x40, 0],
                1 => &[0, 0x16, 0, bytes.len().saturating_sub(20) as u8, 0x21, 0x12, 0xA4, 0x42],
                _ => &[0, 1, 0, bytes.len().saturating_sub(20) as u8, 0x21, 0x12, 0xA4, 0x42],
            };
            let length = head.len().min(bytes.len());
            bytes[..length].copy_from_slice(&head[..length]);
            if let (Forward::ToPeer { peer, .. }, payload) = lab.packet(alice.client, &bytes) {
                prop_assert_eq!(peer.ip(), address(PEER).ip());
                prop_assert!(payload.len() <= bytes.len());
            }
            lab.peer_sends(relayed, address(PEER), &bytes);
            for answer in lab.transmits() {
                prop_assert!(answer.payload.len() <= 4 * bytes.len());
            }
        }
    }
}
