use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use partyline_model::{IncomingLevel, PortRule, ServicePort};
use proptest::prelude::*;

use super::*;
use crate::testing::{ip, party_config, start, tcp, udp_ports, v4, v6};

struct Firewall {
    now: Instant,
    policy: IncomingPolicy,
    filter: IncomingFilter,
}

impl Firewall {
    fn of(level: IncomingLevel) -> Self {
        let policy = IncomingPolicy::of(level);
        Self { now: start(), filter: IncomingFilter::new(&policy), policy }
    }

    fn rule(&mut self, port: ServicePort, rule: PortRule) {
        self.policy.set_rule(port, Some(rule));
        self.filter.set_policy(&self.policy);
    }

    fn send(&mut self, packet: &[u8]) {
        let header = IpHeader::parse(packet).unwrap();
        let scope = Scope::of(header.destination, &party_config(0));
        self.filter.on_outgoing(self.now, packet, &header, scope);
    }

    fn admits(&self, packet: &[u8]) -> bool {
        self.filter.admits(self.now, packet, &IpHeader::parse(packet).unwrap())
    }
}

/// Packets between this computer, number 0, and a member, over IPv4 and IPv6.
fn address(member: usize, is_v6: bool) -> IpAddr {
    if is_v6 { v6(member).into() } else { v4(member).into() }
}

fn segment_from(member: usize, is_v6: bool, ports: [u16; 2], flags: u8) -> Vec<u8> {
    tcp(address(member, is_v6), address(0, is_v6), ports, flags)
}

fn segment_to(member: usize, is_v6: bool, ports: [u16; 2], flags: u8) -> Vec<u8> {
    tcp(address(0, is_v6), address(member, is_v6), ports, flags)
}

fn datagram_from(member: usize, is_v6: bool, ports: [u16; 2]) -> Vec<u8> {
    udp_ports(address(member, is_v6), address(0, is_v6), ports, 8)
}

fn datagram_to(member: usize, is_v6: bool, ports: [u16; 2]) -> Vec<u8> {
    udp_ports(address(0, is_v6), address(member, is_v6), ports, 8)
}

#[test]
fn member_reaches_games_and_no_system_services() {
    let firewall = Firewall::of(IncomingLevel::Games);
    for is_v6 in [false, true] {
        for port in [22, 135, 139, 445, 631, 3306, 3389, 5900] {
            assert!(!firewall.admits(&segment_from(1, is_v6, [40_000, port], SYN)), "{port}");
        }
        for port in [137, 445, 1900, 5353, 5355] {
            assert!(!firewall.admits(&datagram_from(1, is_v6, [40_000, port])), "{port}");
        }
        for port in [7777, 25_565, 27_015, 47_624] {
            assert!(firewall.admits(&segment_from(1, is_v6, [40_000, port], SYN)), "{port}");
            assert!(firewall.admits(&datagram_from(1, is_v6, [40_000, port])), "{port}");
        }
    }
}

#[test]
fn nothing_new_comes_in_where_the_user_wants_nothing() {
    let firewall = Firewall::of(IncomingLevel::Nothing);
    for port in [22, 1024, 27_015, 65_535] {
        assert!(!firewall.admits(&segment_from(1, false, [40_000, port], SYN)));
        assert!(!firewall.admits(&datagram_from(1, true, [40_000, port])));
    }
    let everything = Firewall::of(IncomingLevel::Everything);
    assert!(everything.admits(&segment_from(1, false, [40_000, 22], SYN)));
    assert!(everything.admits(&[&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 132], &[0; 10][..]].concat()));
}

#[test]
fn answers_of_a_member_come_in_and_strangers_to_the_flow_do_not() {
    for is_v6 in [false, true] {
        let mut firewall = Firewall::of(IncomingLevel::Nothing);
        firewall.send(&segment_to(1, is_v6, [50_000, 22], SYN));
        assert!(firewall.admits(&segment_from(1, is_v6, [22, 50_000], SYN | ACK)));
        assert!(firewall.admits(&segment_from(1, is_v6, [22, 50_000], ACK)));
        assert!(!firewall.admits(&segment_from(1, is_v6, [23, 50_000], SYN | ACK)), "another port");
        assert!(!firewall.admits(&segment_from(2, is_v6, [22, 50_000], SYN | ACK)), "another member");
        assert!(!firewall.admits(&datagram_from(1, is_v6, [22, 50_000])), "another protocol");
        firewall.send(&datagram_to(1, is_v6, [50_001, 27_015]));
        assert!(firewall.admits(&datagram_from(1, is_v6, [27_015, 50_001])));
        assert!(!firewall.admits(&datagram_from(2, is_v6, [27_015, 50_001])));
    }
}

#[test]
fn flow_ends_with_its_lifetime() {
    let mut firewall = Firewall::of(IncomingLevel::Nothing);
    firewall.send(&datagram_to(1, false, [50_001, 27_015]));
    firewall.now += Duration::from_secs(299);
    assert!(firewall.admits(&datagram_from(1, false, [27_015, 50_001])));
    firewall.now += Duration::from_secs(1);
    assert!(!firewall.admits(&datagram_from(1, false, [27_015, 50_001])));
    // A connection that was opened, but never went on, ends after 4 minutes, an established one after 2 hours and 4 minutes.
    firewall.send(&segment_to(1, false, [50_000, 80], SYN));
    firewall.send(&segment_to(1, false, [50_002, 80], SYN));
    firewall.send(&segment_to(1, false, [50_002, 80], ACK));
    firewall.now += Duration::from_secs(240);
    assert!(!firewall.admits(&segment_from(1, false, [80, 50_000], ACK)));
    firewall.now += Duration::from_secs(7_199);
    assert!(firewall.admits(&segment_from(1, false, [80, 50_002], ACK)));
    firewall.send(&segment_to(1, false, [50_002, 80], FIN | ACK));
    firewall.now += Duration::from_secs(240);
    assert!(!firewall.admits(&segment_from(1, false, [80, 50_002], ACK)));
}

#[test]
fn blocking_a_port_ends_connections_to_it_and_answers_do_not_open_it_again() {
    let mut firewall = Firewall::of(IncomingLevel::Games);
    let (incoming, answer) =
        (segment_from(1, false, [40_000, 27_015], ACK), segment_to(1, false, [27_015, 40_000], ACK));
    assert!(firewall.admits(&incoming));
    firewall.rule(ServicePort::tcp(27_015), PortRule::Block);
    firewall.rule(ServicePort::udp(27_015), PortRule::Block);
    firewall.send(&answer);
    firewall.send(&segment_to(1, false, [27_015, 40_000], SYN | ACK));
    assert!(!firewall.admits(&incoming));
    firewall.send(&datagram_to(1, false, [27_015, 40_000]));
    assert!(!firewall.admits(&datagram_from(1, false, [40_000, 27_015])));
    // The same for a system service that was reachable before.
    firewall.send(&segment_to(1, false, [445, 40_000], ACK));
    assert!(!firewall.admits(&segment_from(1, false, [40_000, 445], ACK)));
}

#[test]
fn own_connections_outlive_a_restart_and_a_change_of_the_level() {
    let mut firewall = Firewall::of(IncomingLevel::Everything);
    firewall.send(&segment_to(1, false, [50_000, 22], SYN));
    firewall.policy.level = IncomingLevel::Nothing;
    firewall.filter.set_policy(&firewall.policy);
    firewall.send(&segment_to(1, false, [50_000, 22], ACK));
    assert!(firewall.admits(&segment_from(1, false, [22, 50_000], ACK)));
}

#[test]
fn allowed_port_is_reachable_at_every_level() {
    for level in [IncomingLevel::Nothing, IncomingLevel::Games, IncomingLevel::Everything] {
        let mut firewall = Firewall::of(level);
        firewall.rule(ServicePort::tcp(445), PortRule::Allow);
        assert!(firewall.admits(&segment_from(1, false, [40_000, 445], SYN)), "{level:?}");
        firewall.rule(ServicePort::tcp(445), PortRule::Block);
        assert!(!firewall.admits(&segment_from(1, false, [40_000, 445], SYN)), "{level:?}");
    }
}

#[test]
fn discovery_by_broadcast_is_answered_by_anybody() {
    for to in [IpAddr::from([255; 4]), [10, 77, 0, 255].into(), [239, 255, 0, 1].into()] {
        let mut firewall = Firewall::of(IncomingLevel::Nothing);
        assert!(!firewall.admits(&datagram_from(2, false, [6112, 6112])));
        firewall.send(&udp_ports(v4(0), to, [6112, 6112], 8));
        for member in [1, 2] {
            assert!(firewall.admits(&datagram_from(member, false, [6112, 6112])), "answer to {to}");
            assert!(firewall.admits(&udp_ports(v4(member), to, [6112, 6112], 8)), "broadcast to {to}");
        }
        assert!(!firewall.admits(&datagram_from(1, false, [6112, 6113])));
        firewall.now += Duration::from_secs(120);
        assert!(!firewall.admits(&datagram_from(1, false, [6112, 6112])));
    }
}

#[test]
fn broadcasts_of_games_come_in_and_those_for_system_services_do_not() {
    let firewall = Firewall::of(IncomingLevel::Games);
    for (to, port, expected) in [
        (IpAddr::from([255; 4]), 27_015, true),
        ([224, 0, 2, 60].into(), 4445, true),
        ([10, 77, 0, 255].into(), 137, false),
        ([224, 0, 0, 251].into(), 5353, false),
        ([239, 255, 255, 250].into(), 1900, false),
    ] {
        assert_eq!(firewall.admits(&udp_ports(v4(1), to, [40_000, port], 8)), expected, "{to} {port}");
    }
}

#[test]
fn icmp_errors_and_echo_come_in_and_questions_about_the_computer_do_not() {
    for level in [IncomingLevel::Nothing, IncomingLevel::Games] {
        let firewall = Firewall::of(level);
        for (kind, expected) in [(0, true), (3, true), (8, true), (11, true), (13, false), (17, false)] {
            assert_eq!(
                firewall.admits(&ip(v4(1).into(), v4(0).into(), ICMP, &[kind; 8])),
                expected,
                "{kind}"
            );
        }
        for (kind, expected) in [(1, true), (2, true), (128, true), (129, true), (135, true), (139, false)] {
            assert_eq!(
                firewall.admits(&ip(v6(1).into(), v6(0).into(), ICMP_V6, &[kind; 8])),
                expected,
                "{kind}"
            );
        }
        assert!(!firewall.admits(&ip(v4(1).into(), v4(0).into(), ICMP_V6, &[128; 8])), "of the other family");
        for protocol in [2, 4, 41, 47, 50, 132, 136] {
            assert!(!firewall.admits(&ip(v4(1).into(), v4(0).into(), protocol, &[0; 40])), "{protocol}");
        }
    }
}

#[test]
fn fragments_do_not_smuggle_a_connection_in() {
    let firewall = Firewall::of(IncomingLevel::Games);
    let fragment = |packet: &[u8], offset: u16, more: bool, len: usize| {
        let mut fragment = packet[..20 + len].to_vec();
        fragment[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        fragment[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        fragment
    };
    let syn = segment_from(1, false, [40_000, 445], SYN);
    assert!(!firewall.admits(&fragment(&syn, 0, true, 16)), "the first one is judged");
    let game = segment_from(1, false, [40_000, 27_015], SYN);
    assert!(firewall.admits(&fragment(&game, 0, true, 16)));
    assert!(firewall.admits(&fragment(&game, 2, false, 4)));
    assert!(!firewall.admits(&fragment(&game, 0, true, 8)), "its flags are missing");
    assert!(!firewall.admits(&fragment(&game, 1, true, 8)), "it would overwrite the flags");
    let datagram = datagram_from(1, false, [40_000, 27_015]);
    assert!(
        firewall.admits(&fragment(&datagram, 0, true, 8))
            && firewall.admits(&fragment(&datagram, 1, false, 8))
    );
}

#[test]
fn extension_headers_do_not_hide_a_port() {
    let firewall = Firewall::of(IncomingLevel::Games);
    let segment = segment_from(1, true, [40_000, 445], SYN)[40..].to_vec();
    for (kind, header) in
        [(0, [6, 0, 1, 4, 0, 0, 0, 0]), (60, [6, 0, 1, 4, 0, 0, 0, 0]), (44, [6, 0, 0, 1, 0, 0, 0, 9])]
    {
        assert!(!firewall.admits(&ip(v6(1).into(), v6(0).into(), kind, &[&header[..], &segment].concat())));
    }
    assert!(
        !firewall.admits(&ip(v6(1).into(), v6(0).into(), 0, &[6, 9, 0, 0, 0, 0, 0, 0])),
        "it ends nowhere"
    );
    assert!(
        firewall.admits(&ip(v6(1).into(), v6(0).into(), 44, &[6, 0, 1, 0, 0, 0, 0, 9, 1, 2, 3])),
        "a later fragment"
    );
}

#[test]
fn outgoing_flood_forgets_old_flows_and_stays_bounded() {
    let mut firewall = Firewall::of(IncomingLevel::Nothing);
    for local in 1024..=u16::MAX {
        firewall.now += Duration::from_micros(100);
        firewall.send(&datagram_to(1, false, [local, 27_015]));
    }
    assert!(firewall.admits(&datagram_from(1, false, [27_015, u16::MAX])));
    assert!(!firewall.admits(&datagram_from(1, false, [27_015, 1024])));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_opens_no_system_service(
        packet in proptest::collection::vec(any::<u8>(), 0..120),
        is_outgoing in any::<bool>(),
    ) {
        let mut firewall = Firewall::of(IncomingLevel::Games);
        if let Some(header) = IpHeader::parse(&packet) {
            if is_outgoing {
                firewall.send(&packet);
            }
            let _ = firewall.admits(&packet);
            if !is_outgoing && let Transport::Whole(TCP, [_, _, 0, 22, ..]) = header.transport(&packet) {
                prop_assert!(!firewall.admits(&packet));
            }
        }
    }

    #[test]
    fn answer_to_whatever_was_sent_comes_in(
        is_v6 in any::<bool>(),
        is_tcp in any::<bool>(),
        ports in any::<[u16; 2]>(),
        games in any::<bool>(),
    ) {
        let mut firewall = Firewall::of(if games { IncomingLevel::Games } else { IncomingLevel::Nothing });
        let back = [ports[1], ports[0]];
        if is_tcp {
            firewall.send(&segment_to(1, is_v6, ports, SYN));
            prop_assert!(firewall.admits(&segment_from(1, is_v6, back, SYN | ACK)));
            prop_assert!(firewall.admits(&segment_from(1, is_v6, back, RST | ACK)));
        } else {
            firewall.send(&datagram_to(1, is_v6, ports));
            prop_assert!(firewall.admits(&datagram_from(1, is_v6, back)));
        }
        let unreachable = if is_v6 { (ICMP_V6, 1) } else { (ICMP, 3) };
        prop_assert!(firewall.admits(&ip(address(1, is_v6), address(0, is_v6), unreachable.0, &[unreachable.1; 16])));
    }
}
