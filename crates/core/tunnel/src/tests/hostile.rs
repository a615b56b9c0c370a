//! What members and strangers must not get away with.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use x25519_dalek::StaticSecret;

use super::{DIRECT, Device, Lan, OUTSIDE, PARTY, device_id, net, secrets, udp, v4, v6};
use crate::{DropReason, MAX_DATAGRAM_LEN, MIN_SCRATCH_LEN, Outbox, Received, Tunnel};

fn dropped(lan: &Lan, device: usize, reason: DropReason) -> u64 {
    lan.devices[device].tunnel.drops().get(reason)
}

fn offer(device: &mut Device, now: std::time::Instant, datagram: &[u8]) -> Received<'static> {
    // Leaked, so that a test can keep what was received.
    let scratch = vec![0; datagram.len().max(MIN_SCRATCH_LEN)].leak();
    device.tunnel.handle_datagram(now, OUTSIDE, datagram, scratch, &mut device.out)
}

#[test]
fn a_member_sends_from_its_own_addresses_only() {
    let mut lan = Lan::connected(3);
    // The first member's own engine now believes that the third one's addresses are its own.
    let secret = secrets(3)[0].clone();
    lan.devices[0].tunnel.set_party(lan.now, PARTY, secret, net(2));
    lan.send(0, &udp(v4(2), v4(1), 7, 10));
    lan.send(0, &udp(v6(2), v6(1), 7, 10));
    lan.run();
    assert!(lan.devices[1].received.is_empty());
    assert_eq!(lan.session(1, 0).drops.get(DropReason::Spoofed), 2);
}

#[test]
fn link_local_addresses_belong_to_the_member_with_the_same_identifier() {
    let mut lan = Lan::connected(2);
    let ours: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
    let theirs: std::net::Ipv6Addr = "fe80::2".parse().unwrap();
    lan.send(0, &udp(ours, theirs, 7, 10));
    lan.send(0, &udp(theirs, ours, 7, 10));
    lan.run();
    assert_eq!(lan.devices[1].received.len(), 1);
    assert_eq!(dropped(&lan, 0, DropReason::WrongSource), 1);
}

#[test]
fn members_cannot_reach_through_to_other_networks() {
    let mut lan = Lan::connected(2);
    let elsewhere = Ipv4Addr::new(192, 168, 1, 1);
    // Its engine believes that the second member owns an address of the second member's home network.
    let mut config = super::peer_config(1, &secrets(2)[1]);
    config.v4 = Some(elsewhere);
    lan.devices[0].tunnel.set_peer(lan.now, PARTY, device_id(1), config);
    lan.send(0, &udp(v4(0), elsewhere, 7, 10));
    lan.run();
    assert_eq!(lan.session(1, 0).drops.get(DropReason::NotForUs), 1);
}

#[test]
fn foreign_sources_and_destinations_stay_on_the_device() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp([192, 168, 1, 5], v4(1), 7, 10));
    lan.send(0, &udp(v4(0), [8, 8, 8, 8], 7, 10));
    assert!(lan.devices[0].out.is_empty());
    assert_eq!((dropped(&lan, 0, DropReason::WrongSource), dropped(&lan, 0, DropReason::NoRoute)), (1, 1));
}

#[test]
fn replayed_datagrams_are_dropped() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    lan.run();
    let (_, _, data) = lan.wire.last().unwrap().clone();
    assert_eq!(offer(&mut lan.devices[1], lan.now, &data), Received::Dropped(DropReason::Replay));
}

#[test]
fn a_replayed_initiation_is_dropped() {
    let mut lan = Lan::strangers(2);
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    assert_eq!(offer(&mut lan.devices[1], lan.now, &initiation), Received::Dropped(DropReason::Replay));
}

#[test]
fn a_stranger_with_our_public_key_is_turned_away() {
    let mut lan = Lan::strangers(2);
    let mut stranger = Tunnel::new(lan.now, [9; 32]);
    stranger.set_party(lan.now, PARTY, StaticSecret::from([99; 32]), net(5));
    stranger.set_peer(lan.now, PARTY, device_id(1), super::peer_config(1, &secrets(2)[1]));
    stranger.set_path(lan.now, PARTY, device_id(1), Some(DIRECT));
    stranger.rekey(lan.now, PARTY, device_id(1));
    let mut out = Outbox::new();
    stranger.handle_timeout(lan.now, &mut out);
    let initiation = out.bursts().next().unwrap().bytes.to_vec();
    assert_eq!(offer(&mut lan.devices[1], lan.now, &initiation), Received::Dropped(DropReason::UnknownPeer));
    assert_eq!(offer(&mut lan.devices[0], lan.now, &initiation), Received::Dropped(DropReason::UnknownPeer));
}

#[test]
fn a_flood_of_handshakes_costs_a_proof_of_address_and_members_give_it() {
    let mut lan = Lan::strangers(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    let answers: Vec<_> = (0..300).map(|_| offer(&mut lan.devices[1], lan.now, &initiation)).collect();
    assert!(matches!(answers[0], Received::HandshakeReply { peer: Some(_), .. }));
    assert!(
        matches!(&answers[299], Received::HandshakeReply { peer: None, datagram } if datagram.len() == 64)
    );
    assert_eq!(dropped(&lan, 1, DropReason::Flood), 100);
    // The member that is made to prove itself repeats its initiation with the cookie, and gets through.
    lan.up = true;
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    assert!(lan.session(0, 1).ready);
}

#[test]
fn a_buffer_that_is_too_small_is_refused_rather_than_overrun() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 1000));
    let (_, datagram) = lan.devices[0].take().pop().unwrap();
    let Device { tunnel, out, .. } = &mut lan.devices[1];
    let mut scratch = vec![0; MAX_DATAGRAM_LEN + 1];
    for len in [0, 147, 148, datagram.len() - 1] {
        let received = tunnel.handle_datagram(lan.now, OUTSIDE, &datagram, &mut scratch[..len], out);
        assert_eq!(received, Received::Dropped(DropReason::TooLong));
    }
    let room = &mut scratch[..datagram.len()];
    let received = tunnel.handle_datagram(lan.now, OUTSIDE, &datagram, room, out);
    assert!(matches!(received, Received::Packet { packet, .. } if packet.len() == 1028));
    let long = vec![4; MAX_DATAGRAM_LEN + 1];
    let received = tunnel.handle_datagram(lan.now, OUTSIDE, &long, &mut scratch, out);
    assert_eq!(received, Received::Dropped(DropReason::TooLong));
}

#[test]
fn every_packet_length_up_to_the_limit_goes_through() {
    let mut lan = Lan::connected(2);
    for len in (0..100).chain(1360..1373) {
        lan.send(0, &udp(v4(0), v4(1), 7, len));
        lan.run();
        assert_eq!(lan.devices[1].received.pop().unwrap().1.len(), len + 28);
    }
}

#[test]
fn a_datagram_for_a_removed_member_finds_nobody() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    let (_, datagram) = lan.devices[0].take().pop().unwrap();
    lan.devices[1].tunnel.remove_peer(PARTY, device_id(0));
    assert_eq!(offer(&mut lan.devices[1], lan.now, &datagram), Received::Dropped(DropReason::UnknownIndex));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_counted_and_nothing_else(
        mut garbage in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..6,
        length in prop::sample::select(vec![None, Some(32), Some(64), Some(92), Some(148)]),
    ) {
        let mut lan = Lan::connected(2);
        if let Some(length) = length {
            garbage.resize(length, 7);
        }
        if let Some(first) = garbage.first_chunk_mut::<4>() {
            *first = [kind, 0, 0, 0];
        }
        let received = offer(&mut lan.devices[1], lan.now, &garbage);
        prop_assert!(matches!(received, Received::Dropped(_)), "{received:?}");
        prop_assert_eq!(lan.devices[1].tunnel.drops().total(), 1);
    }

    #[test]
    fn a_changed_bit_is_noticed(bit in 0usize..8 * 150) {
        let mut lan = Lan::connected(2);
        lan.send(0, &udp(v4(0), v4(1), 7, 90));
        let (_, mut datagram) = lan.devices[0].take().pop().unwrap();
        prop_assert_eq!(datagram.len(), 150);
        datagram[bit / 8] ^= 1 << (bit % 8);
        let received = offer(&mut lan.devices[1], lan.now, &datagram);
        prop_assert!(matches!(received, Received::Dropped(_)), "{received:?}");
    }

    #[test]
    fn garbage_from_the_device_is_survived(
        mut packet in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x45u8, 0x60, 0x4f, 0x00]),
        to_member: bool,
    ) {
        let mut lan = Lan::connected(2);
        if let Some(first) = packet.first_mut() {
            *first = version;
        }
        if to_member && packet.len() >= 20 {
            packet[12..16].copy_from_slice(&v4(0).octets());
            packet[16..20].copy_from_slice(&v4(1).octets());
            let len = (packet.len() as u16).to_be_bytes();
            packet[2..4].copy_from_slice(&len);
        }
        lan.send(0, &packet);
        lan.run();
        prop_assert!(lan.devices[1].received.len() <= 1);
    }

    #[test]
    fn hostile_control_chunks_are_survived(chunks in proptest::collection::vec(
        (0u32..6, 0u8..16, 0u8..16, prop::sample::select(vec![0usize, 5, 1200, 1201])), 0..60,
    )) {
        let now = Lan::strangers(1).now;
        let mut reassembly = crate::control::Reassembly::default();
        for (number, index, count, len) in chunks {
            let mut udp = vec![0; 8];
            udp.extend(number.to_be_bytes());
            udp.extend([index, count]);
            udp.resize(14 + len, 1);
            if let Ok(Some(message)) = reassembly.take(now, &udp) {
                prop_assert!(message.len() <= crate::MAX_CONTROL_MESSAGE_LEN);
            }
        }
    }
}

#[test]
fn the_source_of_a_handshake_is_only_an_address() {
    // A cookie is bound to the address: another one has to prove itself anew.
    let mut lan = Lan::strangers(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    (0..250).for_each(|_| {
        offer(&mut lan.devices[1], lan.now, &initiation);
    });
    let mut packet = [0; MIN_SCRATCH_LEN];
    let other = IpAddr::from([198, 51, 100, 9]);
    let Device { tunnel, out, .. } = &mut lan.devices[1];
    let received = tunnel.handle_datagram(lan.now, other, &initiation, &mut packet, out);
    assert!(matches!(received, Received::HandshakeReply { peer: None, datagram } if datagram.len() == 64));
}
