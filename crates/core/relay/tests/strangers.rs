//! A thousand strangers at once take nothing from members, counted in packets rather than in time.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use partyline_relay::{Forward, Settings};
use stun_rs::methods::BINDING;

const STRANGERS: u16 = 1_000;

/// What a stranger sends: rubbish, questions without credentials, wrong credentials, and data for somebody else's channel.
fn rubbish(number: u16) -> Vec<u8> {
    match number % 5 {
        0 => vec![0xFF; usize::from(number)],
        1 => encode(&request(BINDING).build()),
        2 => encode(&allocate().build()),
        3 => channel_data(0x4000, &[0; 1000]),
        _ => vec![0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42, 0, 0],
    }
}

#[test]
fn thousand_strangers_take_neither_packets_nor_places_from_members() {
    let mut limited = settings();
    limited.quotas.unauthenticated_per_second = 10;
    limited.quotas.bandwidth = Some(1_000_000);
    let mut lab = Lab::new(Settings { foreign_payloads: false, ..limited });
    let (alice, bob) = (alice(&mut lab), bob(&mut lab));
    let (a, b) = (alice.relayed(&mut lab), bob.relayed(&mut lab));
    alice.call(&mut lab, channel(0x4000, &b.to_string()));
    bob.call(&mut lab, channel(0x4000, &a.to_string()));
    let game = channel_data(0x4000, &[&[4, 0, 0, 0][..], &[0; 96]].concat());
    let (mut answers, mut bytes) = (0, 0);
    for round in 0..10u16 {
        for number in 0..STRANGERS {
            // A few addresses with many ports each, as one attacker has them.
            let stranger = udp(&format!("203.0.113.{}:{}", number % 20, 1000 + number));
            let packet = rubbish(number + round);
            assert_eq!(lab.packet(stranger, &packet).0, Forward::Consumed);
            answers += lab.transmits().len();
            bytes += packet.len();
            if number % 100 == 0 {
                let (forward, _) = lab.packet(alice.client, &game);
                assert!(matches!(forward, Forward::ToClient { client, .. } if client == bob.client));
            }
        }
        assert_eq!(
            code(&alice.call(&mut lab, permission("203.0.113.200:1"))),
            0,
            "answered in round {round}"
        );
        assert_eq!(code(&bob.call(&mut lab, channel(0x4000, &a.to_string()))), 0);
    }
    assert!(bytes > 1_000_000, "more than the server relays in a second");
    // Twenty addresses, each with the answers of two seconds.
    assert!(answers <= 20 * 20, "{answers}");
    let counters = lab.server.core.counters();
    assert_eq!(counters.allocations_active, 2);
    assert_eq!((counters.packets.from_clients, counters.packets.to_clients), (100, 100));
    assert_eq!(counters.dropped.server_bandwidth + counters.dropped.network_bandwidth, 0);
}
