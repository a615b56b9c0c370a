//! Sessions, renewal of keys, broadcast and the control channel, from end to end.

use std::{net::Ipv6Addr, time::Duration};

use x25519_dalek::StaticSecret;

use super::{DIRECT, Device, Lan, OTHER_PARTY};
use crate::{
    CONTROL_PORT, ControlTooLong, DropReason, Event, MAX_CONTROL_MESSAGE_LEN, Outbox, PathConfig, PeerConfig,
    RELAY_HEADROOM, Tunnel,
    testing::{PARTY, device_id, party_config, peer_config, secrets, udp, v4, v6},
};

const INITIATION: u8 = 1;

#[test]
fn path_leads_to_a_session_that_carries_packets_both_ways() {
    let mut lan = Lan::without_paths(2);
    assert_eq!(lan.devices[0].tunnel.poll_timeout(), None);
    lan.set_paths(Some(DIRECT));
    lan.run();
    assert_eq!(lan.count(INITIATION), 1);
    assert_eq!(lan.wire[0].0, 0, "the lower key initiates");
    for (from, to) in [(0, 1), (1, 0)] {
        let packets = [udp(v4(from), v4(to), 7, 100), udp(v6(from), v6(to), 7, 1300)];
        packets.iter().for_each(|packet| lan.send(from, packet));
        lan.run();
        let received: Vec<_> = lan.devices[to].received.drain(..).collect();
        assert_eq!(received, packets.map(|packet| (device_id(from), packet)));
    }
    let view = lan.session(0, 1);
    assert!(view.ready && view.last_handshake == Some(lan.now));
    assert_eq!((view.sent_packets, view.sent_bytes), (2, 128 + 1348));
    assert_eq!((view.received_packets, view.received_bytes), (2, 128 + 1348));
    assert_eq!(view.drops.total(), 0);
}

#[test]
fn ready_session_is_reported_once() {
    let mut lan = Lan::connected(2);
    for device in [0, 1] {
        let tunnel = &mut lan.devices[device].tunnel;
        assert_eq!(
            tunnel.poll_event(),
            Some(Event::SessionReady { party: PARTY, peer: device_id(1 - device) })
        );
        assert_eq!(tunnel.poll_event(), None);
    }
}

#[test]
fn newest_packets_wait_for_the_handshake() {
    let mut lan = Lan::without_paths(2);
    for len in 0..40 {
        lan.send(1, &udp(v4(1), v4(0), 7, len));
    }
    lan.set_paths(Some(DIRECT));
    lan.run();
    let lengths: Vec<_> = lan.devices[0].received.iter().map(|(_, packet)| packet.len() - 28).collect();
    assert_eq!(lengths, (8..40).collect::<Vec<_>>());
    assert_eq!(lan.session(1, 0).drops.get(DropReason::PendingOverflow), 8);
}

#[test]
fn waiting_packets_expire() {
    let mut lan = Lan::without_paths(2);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    lan.advance(Duration::from_secs(4));
    assert_eq!(lan.devices[0].tunnel.poll_timeout(), None);
    lan.set_paths(Some(DIRECT));
    lan.run();
    assert!(lan.devices[1].received.is_empty());
    assert_eq!(lan.devices[0].tunnel.drops().get(DropReason::PendingExpired), 1);
}

#[test]
fn lost_initiation_is_repeated() {
    let mut lan = Lan::without_paths(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.advance(Duration::from_millis(1900));
    assert_eq!(lan.count(INITIATION), 2);
    lan.up = true;
    lan.advance(Duration::from_secs(2));
    assert!(lan.session(0, 1).ready && lan.session(1, 0).ready);
}

#[test]
fn unanswered_initiation_is_repeated_at_once_on_another_path() {
    let mut lan = Lan::without_paths(2);
    lan.up = false;
    lan.set_paths(Some(DIRECT));
    lan.run();
    lan.up = true;
    lan.set_paths(Some(PathConfig { headroom: RELAY_HEADROOM, mtu: None }));
    lan.run();
    assert!(lan.session(0, 1).ready);
    assert_eq!(lan.count(INITIATION), 2);
    lan.set_paths(Some(DIRECT));
    lan.run();
    assert_eq!(lan.count(INITIATION), 2, "a ready session needs no other handshake");
}

#[test]
fn fallback_initiator_initiates_after_two_seconds_of_silence() {
    let mut lan = Lan::without_paths(2);
    lan.devices[1].tunnel.set_path(lan.now, PARTY, device_id(0), Some(DIRECT));
    lan.advance(Duration::from_millis(1900));
    assert!(lan.wire.is_empty());
    lan.advance(Duration::from_millis(200));
    assert_eq!((lan.wire[0].0, lan.wire[0].2[0]), (1, INITIATION));
    assert!(lan.session(1, 0).ready);
}

#[test]
fn keys_are_renewed_by_the_preferred_initiator_only() {
    let mut lan = Lan::connected(2);
    let first = lan.session(0, 1).last_handshake;
    lan.advance(Duration::from_secs(400));
    assert_eq!(lan.count(INITIATION), 3);
    assert!(lan.wire.iter().all(|(from, _, datagram)| datagram[0] != INITIATION || *from == 0));
    assert!(lan.session(0, 1).last_handshake > first);
    assert!(lan.session(1, 0).last_handshake > first);
}

#[test]
fn nothing_is_sent_without_a_path() {
    let mut lan = Lan::connected(2);
    lan.set_paths(None);
    lan.send(0, &udp(v4(0), v4(1), 7, 10));
    lan.advance(Duration::from_secs(300));
    assert!(lan.wire.is_empty());
}

#[test]
fn rekey_restores_the_session_with_a_restarted_member() {
    let mut lan = Lan::connected(2);
    lan.devices[1] = Device::new(lan.now, 1, &secrets(2));
    lan.devices[1].tunnel.set_path(lan.now, PARTY, device_id(0), Some(DIRECT));
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    lan.send(1, &udp(v4(1), v4(0), 7, 10));
    lan.run();
    assert_eq!(lan.devices[0].received.len(), 1);
}

#[test]
fn rekey_that_went_to_where_a_restarted_member_was_is_repeated_on_the_next_path() {
    let mut lan = Lan::connected(2);
    lan.devices[1] = Device::new(lan.now, 1, &secrets(2));
    lan.devices[1].tunnel.set_path(lan.now, PARTY, device_id(0), Some(DIRECT));
    lan.up = false;
    lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
    lan.run();
    assert_eq!(lan.count(INITIATION), 1, "lost: it went to the socket from before");
    lan.up = true;
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(DIRECT));
    lan.run();
    assert!(lan.session(1, 0).ready, "at once, and not when the retry is due");
    assert_eq!(lan.count(INITIATION), 2);
}

#[test]
fn another_source_is_roaming_only_within_its_address_family() {
    let mut lan = Lan::connected(2);
    let roamed = |lan: &mut Lan, source: &str| {
        lan.source = source.parse().unwrap();
        lan.devices[0].tunnel.rekey(lan.now, PARTY, device_id(1));
        lan.run();
        lan.devices[0].tunnel.handshakes().roamed
    };
    assert_eq!(roamed(&mut lan, "192.0.2.1"), 0);
    assert_eq!(roamed(&mut lan, "2001:db8::1"), 0, "a path over IPv6 is used beside the one over IPv4");
    assert_eq!(roamed(&mut lan, "192.0.2.1"), 0);
    assert_eq!(roamed(&mut lan, "192.0.2.2"), 1);
    assert_eq!(roamed(&mut lan, "2001:db8::2"), 2);
}

#[test]
fn changed_address_keeps_the_session_and_changed_key_does_not() {
    let mut lan = Lan::connected(2);
    let mut config = peer_config(1, &secrets(2)[1]);
    config.v4 = Some(v4(8));
    let tunnel = &mut lan.devices[0].tunnel;
    tunnel.set_peer(lan.now, PARTY, device_id(1), config);
    assert!(tunnel.session(PARTY, device_id(1)).unwrap().ready);
    let config = peer_config(1, &StaticSecret::from([99; 32]));
    tunnel.set_peer(lan.now, PARTY, device_id(1), config);
    assert!(!tunnel.session(PARTY, device_id(1)).unwrap().ready);
    tunnel.remove_peer(PARTY, device_id(1));
    assert_eq!(tunnel.session(PARTY, device_id(1)), None);
}

#[test]
fn broadcast_and_multicast_reach_every_member_once() {
    let mut lan = Lan::connected(3);
    let packets = [
        udp(v4(1), [255, 255, 255, 255], 4445, 50),
        udp(v4(1), [10, 77, 0, 255], 4445, 50),
        udp(v4(1), [224, 0, 0, 251], 5353, 50),
        udp(v6(1), "ff02::fb".parse::<std::net::Ipv6Addr>().unwrap(), 5353, 50),
    ];
    packets.iter().for_each(|packet| lan.send(1, packet));
    lan.run();
    for other in [0, 2] {
        let received: Vec<_> = lan.devices[other].received.drain(..).collect();
        assert_eq!(received, packets.clone().map(|packet| (device_id(1), packet)));
    }
    assert!(lan.devices[1].received.is_empty());
}

#[test]
fn multicast_for_routers_is_not_sent() {
    let mut lan = Lan::connected(2);
    lan.send(0, &udp(v4(0), [224, 0, 0, 22], 1, 8));
    lan.send(0, &udp(v6(0), "ff02::16".parse::<std::net::Ipv6Addr>().unwrap(), 1, 8));
    lan.send(0, &udp(v6(0), "ff02::2".parse::<std::net::Ipv6Addr>().unwrap(), 1, 8));
    assert!(lan.devices[0].outbox.is_empty());
    assert_eq!(lan.devices[0].tunnel.drops().get(DropReason::RouterMulticast), 3);
}

#[test]
fn broadcasts_are_rate_limited() {
    let mut lan = Lan::connected(2);
    for _ in 0..600 {
        lan.send(0, &udp(v4(0), [255; 4], 4445, 5));
        lan.run();
    }
    assert_eq!(lan.devices[1].received.len(), 500);
    assert_eq!(lan.devices[0].tunnel.drops().get(DropReason::BroadcastRateLimited), 100);
    lan.now += Duration::from_secs(1);
    lan.send(0, &udp(v4(0), [255; 4], 4445, 5));
    lan.run();
    assert_eq!(lan.devices[1].received.len(), 501);
}

#[test]
fn drops_of_a_member_are_counted_over_all_parties_while_it_is_present() {
    let mut lan = Lan::connected(3);
    let other_secret = StaticSecret::from([98; 32]);
    let tunnel = &mut lan.devices[0].tunnel;
    tunnel.set_party(OTHER_PARTY, other_secret.clone(), party_config(0));
    tunnel.set_peer(lan.now, OTHER_PARTY, device_id(1), peer_config(1, &StaticSecret::from([99; 32])));
    lan.set_paths(None);
    let mut broadcast = udp(v4(0), [255; 4], 4445, 5);
    lan.send(0, &broadcast.clone());
    let Device { tunnel, outbox, .. } = &mut lan.devices[0];
    tunnel.handle_packet(lan.now, OTHER_PARTY, &mut broadcast, outbox);
    let no_path = |tunnel: &Tunnel, member| {
        tunnel.peer_drops().get(&device_id(member)).map(|drops| drops.get(DropReason::NoPath))
    };
    assert_eq!((no_path(tunnel, 1), no_path(tunnel, 2)), (Some(2), Some(1)));
    tunnel.remove_peer(PARTY, device_id(2));
    assert_eq!((no_path(tunnel, 2), tunnel.drops().get(DropReason::NoPath)), (None, 3));
}

#[test]
fn parties_share_only_the_tunnel() {
    let mut lan = Lan::connected(2);
    let keys = [98, 99].map(|byte| StaticSecret::from([byte; 32]));
    for (member, other) in [(0, 1), (1, 0)] {
        let tunnel = &mut lan.devices[member].tunnel;
        tunnel.set_party(OTHER_PARTY, keys[member].clone(), party_config(member));
        tunnel.set_peer(lan.now, OTHER_PARTY, device_id(other), peer_config(other, &keys[other]));
        tunnel.set_path(lan.now, OTHER_PARTY, device_id(other), Some(DIRECT));
    }
    lan.advance(Duration::from_secs(4));
    let tunnel = &mut lan.devices[0].tunnel;
    assert!(tunnel.session(OTHER_PARTY, device_id(1)).unwrap().ready);
    lan.send(0, &udp(v4(0), [255; 4], 4445, 5));
    assert!(lan.devices[0].outbox.bursts().all(|burst| burst.party == PARTY));
    lan.run();
    let tunnel = &mut lan.devices[0].tunnel;
    tunnel.remove_party(PARTY);
    assert!(tunnel.session(PARTY, device_id(1)).is_none());
    assert!(tunnel.session(OTHER_PARTY, device_id(1)).is_some());
}

#[test]
fn control_messages_of_all_sizes_arrive_and_never_reach_the_device() {
    let mut lan = Lan::connected(2);
    for len in [0, 1, 1200, 1201, MAX_CONTROL_MESSAGE_LEN] {
        let message: Vec<_> = (0..len).map(|i| (i % 251) as u8).collect();
        let Device { tunnel, outbox, .. } = &mut lan.devices[0];
        tunnel.send_control(lan.now, PARTY, device_id(1), &message, outbox).unwrap();
        lan.run();
        assert_eq!(lan.devices[1].control.pop(), Some((device_id(0), message)));
    }
    assert!(lan.devices[1].received.is_empty());
    let Device { tunnel, outbox, .. } = &mut lan.devices[0];
    let long = vec![0; MAX_CONTROL_MESSAGE_LEN + 1];
    let refused = tunnel.send_control(lan.now, PARTY, device_id(1), &long, outbox);
    assert_eq!(refused, Err(ControlTooLong(MAX_CONTROL_MESSAGE_LEN + 1)));
}

#[test]
fn local_programs_cannot_use_the_control_port() {
    let mut lan = Lan::connected(2);
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    // A payload that is one complete control message: its number, chunk 0 of 1, bytes.
    for destination in [v6(1), all_nodes] {
        let mut packet = udp(v6(0), destination, CONTROL_PORT, 50);
        packet[48..54].copy_from_slice(&[0, 0, 0, 9, 0, 1]);
        lan.send(0, &packet);
    }
    lan.run();
    assert!(lan.devices[1].control.is_empty());
    assert_eq!(lan.devices[0].tunnel.drops().get(DropReason::ReservedPort), 2);
}

#[test]
fn datagrams_of_one_size_share_a_burst_with_relay_headroom() {
    let mut lan = Lan::connected(2);
    let relayed = PathConfig { headroom: RELAY_HEADROOM, mtu: None };
    lan.devices[0].tunnel.set_path(lan.now, PARTY, device_id(1), Some(relayed));
    for len in [1000, 1000, 1000, 200, 1000] {
        lan.send(0, &udp(v4(0), v4(1), 7, len));
    }
    let shapes: Vec<_> = lan.devices[0]
        .outbox
        .bursts()
        .map(|burst| (burst.headroom, burst.segment, burst.bytes.len()))
        .collect();
    assert_eq!(shapes, [(4, 1064, 3 * 1064 + 264), (4, 1064, 1064)]);
    lan.run();
    assert_eq!(lan.devices[1].received.len(), 5);
}

#[test]
fn outbox_that_is_not_emptied_stays_bounded() {
    let mut lan = Lan::connected(2);
    for _ in 0..1000 {
        lan.send(0, &udp(v4(0), v4(1), 7, 1372));
    }
    assert!(lan.devices[0].tunnel.drops().get(DropReason::OutboxFull) > 500);
}

#[test]
fn packets_of_an_unknown_party_are_dropped() {
    let mut tunnel = Tunnel::new(Lan::without_paths(1).now, [0; 32]);
    let mut outbox = Outbox::new();
    let now = Lan::without_paths(1).now;
    tunnel.handle_packet(now, PARTY, &mut udp(v4(0), v4(1), 7, 4), &mut outbox);
    tunnel.set_path(now, PARTY, device_id(1), Some(DIRECT));
    assert!(outbox.is_empty() && tunnel.poll_timeout().is_none());
    assert_eq!(tunnel.drops().get(DropReason::UnknownParty), 1);
}

#[test]
fn packets_go_to_the_member_that_claimed_the_address_last() {
    let mut lan = Lan::connected(3);
    let secrets = secrets(3);
    let claim = |lan: &mut Lan, member: usize, host: u8| {
        let config =
            PeerConfig { v4: Some([10, 77, 0, host].into()), ..peer_config(member, &secrets[member]) };
        lan.devices[0].tunnel.set_peer(lan.now, PARTY, device_id(member), config);
    };
    let sent_to = |lan: &mut Lan| {
        let before = [1, 2].map(|member| lan.session(0, member).sent_packets);
        lan.send(0, &udp(v4(0), v4(1), 7, 10));
        let after = [1, 2].map(|member| lan.session(0, member).sent_packets);
        [after[0] - before[0], after[1] - before[1]]
    };
    assert_eq!(sent_to(&mut lan), [1, 0]);
    claim(&mut lan, 1, 99);
    assert_eq!(sent_to(&mut lan), [0, 0]);
    claim(&mut lan, 2, 2);
    claim(&mut lan, 1, 98);
    assert_eq!(sent_to(&mut lan), [0, 1]);
    // An address that another member has claimed since stays with that member.
    claim(&mut lan, 1, 2);
    claim(&mut lan, 2, 97);
    assert_eq!(sent_to(&mut lan), [1, 0]);
}
