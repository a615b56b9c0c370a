//! Hostile members, strangers and local programs.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use partyline_model::{IncomingLevel, IncomingPolicy, PortRule, ServicePort};
use proptest::prelude::*;
use x25519_dalek::StaticSecret;

use super::{DIRECT, Device, Lan, SOURCE};
use crate::{
    DropReason, MAX_DATAGRAM_LEN, MIN_SCRATCH_LEN, Outbox, Received, Tunnel,
    testing::{PARTY, device_id, party_config, peer_config, secrets, udp, v4, v6},
};

fn dropped(lan: &Lan, device: usize, reason: DropReason) -> u64 {
    lan.devices[device].tunnel.drops().get(reason)
}

fn receive(device: &mut Device, lan_now: std::time::Instant, datagram: &[u8]) -> Received<'static> {
    receive_from(device, lan_now, SOURCE, datagram)
}

fn receive_from(
    device: &mut Device,
    lan_now: std::time::Instant,
    source: IpAddr,
    datagram: &[u8],
) -> Received<'static> {
    let scratch = vec![0; datagram.len().max(MIN_SCRATCH_LEN)].leak();
    device.tunnel.handle_datagram(lan_now, source, datagram, scratch, &mut device.outbox)
}

#[test]
fn member_reaches_games_and_no_system_service_unless_it_is_allowed() {
    let mut lan = Lan::connected(2);
    let mut policy = IncomingPolicy::default();
    lan.devices[1].tunnel.set_incoming_policy(PARTY, &policy);
    let (login, game) = (udp(v4(0), v4(1), 22, 8), udp(v4(0), v4(1), 27_015, 8));
    lan.send(0, &login);
    lan.send(0, &game);
    lan.run();
    assert_eq!(lan.devices[1].received, [(device_id(0), game)]);
    assert_eq!(lan.session(1, 0).drops.incoming_blocked, 1);
    policy.set_rule(ServicePort::udp(22), Some(PortRule::Allow));
    lan.devices[1].tunnel.set_incoming_policy(PARTY, &policy);
    lan.send(0, &login);
    lan.run();
    assert_eq!(lan.devices[1].received.len(), 2);
}

#[test]
fn control_channel_is_open_whatever_the_policy_says() {
    let mut lan = Lan::connected(2);
    lan.devices[1].tunnel.set_incoming_policy(PARTY, &IncomingPolicy::of(IncomingLevel::Nothing));
    let (now, to) = (lan.now, lan.devices[1].id);
    let device = &mut lan.devices[0];
    device.tunnel.send_control(now, PARTY, to, b"hello", &mut device.outbox).unwrap();
    lan.run();
    assert_eq!(lan.devices[1].control, [(device_id(0), b"hello".to_vec())]);
}

#[test]
fn member_cannot_send_from_addresses_of_another() {
    let mut lan = Lan::connected(3);
    // The first member's own engine now believes that the third one's addresses are its own.
    let secret = secrets(3)[0].clone();
    lan.devices[0].tunnel.set_party(PARTY, secret, party_config(2));
    lan.send(0, &udp(v4(2), v4(1), 7, 10));
    lan.send(0, &udp(v6(2), v6(1), 7, 10));
    lan.run();
    assert!(lan.devices[1].received.is_empty());
    assert_eq!(lan.session(1, 0).drops.get(DropReason::SpoofedSource), 2);
}

#[test]
fn link_local_address_belongs_to_the_member_with_its_interface_identifier() {
    let mut lan = Lan::connected(2);
    let ours: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
    let theirs: std::net::Ipv6Addr = "fe80::2".parse().unwrap();
    lan.send(0, &udp(ours, theirs, 7, 10));
    lan.send(0, &udp(theirs, ours, 7, 10));
    lan.run();
    assert_eq!(lan.devices[1].received.len(), 1);
    assert_eq!(dropped(&lan, 0, DropReason::ForeignSource), 1);
}

#[test]
fn member_cannot_reach_other_networks_through_the_tunnel() {
    let mut lan = Lan::connected(2);
    let elsewhere = Ipv4Addr::new(192, 168, 1, 1);
    // Its engine believes that the second member owns an address of the second member's home network.
    let mut config = peer_config(1, &secrets(2)[1]);
    config.v4 = Some(elsewhere);
    lan.devices[0].tunnel.set_peer(lan.now, PARTY, device_id(1), config);
    lan.send(0, &udp(v4(0), elsewhere, 7, 10));
    lan.run();
    assert_eq!(lan.session(1, 0).drops.get(DropReason::ForeignDestination), 1);
}

#[test]
fn member_cannot_change_the_routes_of_another() {
    let mut lan = Lan::connected(2);
    let mut advertisement = udp(v6(0), "ff02::1".parse::<std::net::Ipv6Addr>().unwrap(), 7, 16);
    (advertisement[6], advertisement[40]) = (58, 134);
    let mut redirect = udp(v4(0), v4(1), 7, 16);
    (redirect[9], redirect[20]) = (1, 5);
    for packet in [advertisement, redirect, udp(v4(0), Ipv4Addr::BROADCAST, 68, 16)] {
        lan.send(0, &packet);
    }
    lan.run();
    assert!(lan.devices[1].received.is_empty());
    assert_eq!(lan.session(1, 0).drops.get(DropReason::NetworkConfiguration), 3);
}

#[test]
fn packets_with_foreign_addresses_are_not_sent() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp([192, 168, 1, 5], v4(1), 7, 10));
    lan.send(0, &udp(v4(0), [8, 8, 8, 8], 7, 10));
    assert!(lan.devices[0].outbox.is_empty());
    assert_eq!((dropped(&lan, 0, DropReason::ForeignSource), dropped(&lan, 0, DropReason::NoRoute)), (1, 1));
}

#[test]
fn replayed_datagram_is_dropped() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    lan.run();
    let (_, _, data) = lan.wire.last().unwrap().clone();
    assert_eq!(receive(&mut lan.devices[1], lan.now, &data), Received::Dropped(DropReason::Replayed));
}

#[test]
fn replayed_initiation_is_dropped() {
    let mut lan = Lan::without_paths(2);
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    assert_eq!(receive(&mut lan.devices[1], lan.now, &initiation), Received::Dropped(DropReason::Replayed));
}

/// A tunnel whose key no member knows, but which knows the key of the second member.
fn stranger(lan: &Lan) -> Tunnel {
    let (now, target) = (lan.now, &secrets(lan.devices.len())[1]);
    let mut stranger = Tunnel::new(now, [9; 32]);
    stranger.set_party(PARTY, StaticSecret::from([99; 32]), party_config(5));
    stranger.set_peer(now, PARTY, device_id(1), peer_config(1, target));
    stranger.set_path(now, PARTY, device_id(1), Some(DIRECT));
    stranger
}

/// Makes a tunnel initiate a handshake with the second member, and returns the initiation.
fn initiation_of(tunnel: &mut Tunnel, now: std::time::Instant) -> Vec<u8> {
    let mut outbox = Outbox::new();
    tunnel.rekey(now, PARTY, device_id(1));
    tunnel.handle_timeout(now, &mut outbox);
    outbox.bursts().next().unwrap().bytes.to_vec()
}

#[test]
fn initiation_of_a_stranger_is_rejected() {
    let mut lan = Lan::without_paths(2);
    let initiation = initiation_of(&mut stranger(&lan), lan.now);
    assert_eq!(
        receive(&mut lan.devices[1], lan.now, &initiation),
        Received::Dropped(DropReason::UnknownPeer)
    );
    assert_eq!(
        receive(&mut lan.devices[0], lan.now, &initiation),
        Received::Dropped(DropReason::UnknownPeer)
    );
}

/// Messages a second in the floods below.
const FLOOD: u64 = 50_000;

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));

/// Sends a message to the second member `FLOOD` times within a second, from the address that `source` returns.
fn flood(lan: &mut Lan, message: &[u8], source: impl Fn(u64) -> IpAddr) {
    let mut scratch = [0; MIN_SCRATCH_LEN];
    for number in 0..FLOOD {
        lan.now += Duration::from_secs(1) / FLOOD as u32;
        let Device { tunnel, outbox, .. } = &mut lan.devices[1];
        tunnel.handle_datagram(lan.now, source(number), message, &mut scratch, outbox);
    }
}

/// Two members with a session, and a third one without, whose preferred initiation the second one expects.
fn flooded_party() -> Lan {
    let mut lan = Lan::without_paths(3);
    let ids = [device_id(0), device_id(1), device_id(2)];
    lan.devices[1].tunnel.set_path(lan.now, PARTY, ids[2], Some(DIRECT));
    lan.devices[2].tunnel.set_path(lan.now, PARTY, ids[1], Some(DIRECT));
    lan.run();
    assert!(lan.session(1, 2).ready);
    lan
}

/// The member without a session initiates a handshake, at most `attempts` times. The one with a session sends a packet.
fn assert_members_are_served(lan: &mut Lan, attempts: usize) {
    lan.source = IpAddr::from([198, 51, 100, 7]);
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(DIRECT));
    lan.run();
    for _ in 1..attempts {
        lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
        lan.run();
    }
    assert!(lan.session(1, 0).ready, "{:?}", lan.devices[1].tunnel.drops());
    lan.send(2, &udp(v4(2), v4(1), 7, 10));
    lan.run();
    assert!(lan.devices[1].received.iter().any(|(from, _)| *from == device_id(2)));
}

#[test]
fn handshake_flood_from_one_source_starves_no_other() {
    let mut lan = flooded_party();
    let initiation = initiation_of(&mut stranger(&lan), lan.now);
    flood(&mut lan, &initiation, |_| ATTACKER);
    let processed = dropped(&lan, 1, DropReason::UnknownPeer);
    assert!(processed <= 120, "{processed} of {FLOOD} were worth an X25519 operation");
    assert_members_are_served(&mut lan, 1);
}

#[test]
fn handshake_flood_that_passes_the_cookie_starves_no_other() {
    let mut lan = flooded_party();
    let mut stranger = stranger(&lan);
    let initiation = initiation_of(&mut stranger, lan.now);
    flood(&mut lan, &initiation, |_| ATTACKER);
    let Received::HandshakeReply { datagram: cookie, .. } =
        receive_from(&mut lan.devices[1], lan.now, ATTACKER, &initiation)
    else {
        panic!("no cookie")
    };
    stranger.handle_datagram(lan.now, SOURCE, cookie, &mut [0; MIN_SCRATCH_LEN], &mut Outbox::new());
    let proven = initiation_of(&mut stranger, lan.now);
    let before = lan.devices[1].tunnel.drops();
    flood(&mut lan, &proven, |_| ATTACKER);
    let since = |reason| dropped(&lan, 1, reason) - before.get(reason);
    let processed = since(DropReason::UnknownPeer);
    assert!((100..=140).contains(&processed), "{processed} of {FLOOD} were worth an X25519 operation");
    assert_eq!(since(DropReason::HandshakeSourceLimited), FLOOD - processed);
    assert_members_are_served(&mut lan, 1);
}

#[test]
fn handshake_flood_from_forged_addresses_costs_a_member_one_repetition() {
    let mut lan = flooded_party();
    let initiation = initiation_of(&mut stranger(&lan), lan.now);
    flood(&mut lan, &initiation, |number| IpAddr::from((0x0b00_0000 + number as u32).to_be_bytes()));
    let processed = dropped(&lan, 1, DropReason::UnknownPeer);
    assert!(processed <= 300, "{processed} of {FLOOD} were worth an X25519 operation");
    assert_members_are_served(&mut lan, 2);
}

#[test]
fn handshake_flood_from_one_ipv6_prefix_is_one_source() {
    let mut lan = flooded_party();
    let initiation = initiation_of(&mut stranger(&lan), lan.now);
    let prefix = 0x2001_0db8_0000_0001_u128 << 64;
    flood(&mut lan, &initiation, |number| std::net::Ipv6Addr::from(prefix + u128::from(number)).into());
    assert!(dropped(&lan, 1, DropReason::UnknownPeer) <= 120);
    assert_members_are_served(&mut lan, 1);
}

#[test]
fn flood_of_forged_responses_does_not_keep_the_genuine_one_out() {
    let mut lan = Lan::without_paths(2);
    // A second tunnel with the key and the indices of the first member, and with another key for the second member,
    // makes responses that are addressed to the first member's session.
    let forger = StaticSecret::from([99; 32]);
    let secrets = [secrets(2)[0].clone(), forger];
    let mut twins = [0, 1].map(|member| Device::new(lan.now, member, &secrets));
    twins[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(DIRECT));
    let initiation = initiation_of(&mut twins[0].tunnel, lan.now);
    let Received::HandshakeReply { datagram: forged, .. } = receive(&mut twins[1], lan.now, &initiation)
    else {
        panic!("no response")
    };
    lan.up = false;
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(DIRECT));
    lan.run();
    let (_, _, genuine) = lan.wire.pop().unwrap();
    let mut scratch = [0; MIN_SCRATCH_LEN];
    for _ in 0..FLOOD {
        let Device { tunnel, outbox, .. } = &mut lan.devices[0];
        tunnel.handle_datagram(lan.now, ATTACKER, forged, &mut scratch, outbox);
    }
    assert_eq!(dropped(&lan, 0, DropReason::Unauthenticated), 100, "the rest cost no X25519 operation");
    let Received::HandshakeReply { datagram: response, .. } = receive(&mut lan.devices[1], lan.now, &genuine)
    else {
        panic!("no response")
    };
    receive(&mut lan.devices[0], lan.now, response);
    assert!(lan.session(0, 1).ready);
}

#[test]
fn initiations_above_the_rate_need_a_cookie_and_members_obtain_it() {
    let mut lan = Lan::without_paths(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    let answers: Vec<_> = (0..300).map(|_| receive(&mut lan.devices[1], lan.now, &initiation)).collect();
    assert!(matches!(answers[0], Received::HandshakeReply { peer: Some(_), .. }));
    assert!(
        matches!(&answers[299], Received::HandshakeReply { peer: None, datagram } if datagram.len() == 64)
    );
    assert_eq!(dropped(&lan, 1, DropReason::HandshakeRateLimited), 200);
    // The member that is made to prove itself repeats its initiation with the cookie, and gets through.
    lan.up = true;
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    assert!(lan.session(0, 1).ready);
}

#[test]
fn short_scratch_buffer_is_refused() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 1000));
    let (_, datagram) = lan.devices[0].take_sent().pop().unwrap();
    let Device { tunnel, outbox, .. } = &mut lan.devices[1];
    let mut scratch = vec![0; MAX_DATAGRAM_LEN + 1];
    for len in [0, 147, 148, datagram.len() - 1] {
        let received = tunnel.handle_datagram(lan.now, SOURCE, &datagram, &mut scratch[..len], outbox);
        assert_eq!(received, Received::Dropped(DropReason::TooLong));
    }
    let room = &mut scratch[..datagram.len()];
    let received = tunnel.handle_datagram(lan.now, SOURCE, &datagram, room, outbox);
    assert!(matches!(received, Received::Packet { packet, .. } if packet.len() == 1028));
    let long = vec![4; MAX_DATAGRAM_LEN + 1];
    let received = tunnel.handle_datagram(lan.now, SOURCE, &long, &mut scratch, outbox);
    assert_eq!(received, Received::Dropped(DropReason::TooLong));
}

#[test]
fn packets_of_every_length_up_to_the_mtu_arrive() {
    let mut lan = Lan::connected(2);
    for len in (0..100).chain(1360..1373) {
        lan.send(0, &udp(v4(0), v4(1), 7, len));
        lan.run();
        assert_eq!(lan.devices[1].received.pop().unwrap().1.len(), len + 28);
    }
}

#[test]
fn datagram_for_a_removed_member_is_dropped() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    let (_, datagram) = lan.devices[0].take_sent().pop().unwrap();
    lan.devices[1].tunnel.remove_peer(PARTY, device_id(0));
    assert_eq!(
        receive(&mut lan.devices[1], lan.now, &datagram),
        Received::Dropped(DropReason::UnknownReceiverIndex)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn malformed_datagrams_are_counted_once(
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
        let received = receive(&mut lan.devices[1], lan.now, &garbage);
        prop_assert!(matches!(received, Received::Dropped(_)), "{received:?}");
        prop_assert_eq!(lan.devices[1].tunnel.drops().total(), 1);
    }

    #[test]
    fn datagram_with_a_flipped_bit_is_dropped(bit in 0usize..8 * 150) {
        let mut lan = Lan::connected(2);
        lan.send(0, &udp(v4(0), v4(1), 7, 90));
        let (_, mut datagram) = lan.devices[0].take_sent().pop().unwrap();
        prop_assert_eq!(datagram.len(), 150);
        datagram[bit / 8] ^= 1 << (bit % 8);
        let received = receive(&mut lan.devices[1], lan.now, &datagram);
        prop_assert!(matches!(received, Received::Dropped(_)), "{received:?}");
    }

    #[test]
    fn malformed_packets_from_the_device_do_not_panic(
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
}

#[test]
fn cookie_is_bound_to_the_source_address() {
    // A cookie is bound to the address: another one has to obtain its own.
    let mut lan = Lan::without_paths(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.run();
    let (_, _, initiation) = lan.wire[0].clone();
    for host in 0..=250 {
        receive_from(&mut lan.devices[1], lan.now, IpAddr::from([203, 0, 113, host]), &initiation);
    }
    let mut packet = [0; MIN_SCRATCH_LEN];
    let other = IpAddr::from([198, 51, 100, 9]);
    let Device { tunnel, outbox, .. } = &mut lan.devices[1];
    let received = tunnel.handle_datagram(lan.now, other, &initiation, &mut packet, outbox);
    assert!(matches!(received, Received::HandshakeReply { peer: None, datagram } if datagram.len() == 64));
}
