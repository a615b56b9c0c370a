//! Packet paths of some members, joined by a network in virtual time that carries their real datagrams.

use std::collections::BTreeSet;

use partyline_model::PathKind;
use partyline_paths::{Config, RelayServer};
use partyline_tunnel::MAX_CONTROL_MESSAGE_LEN;

use super::*;
use crate::testing::{
    Exit, PARTY, address, after, device, device_config, host_candidate, packet, peer_info, secret, start,
};

/// Longer than anything takes that has to happen here.
const LONG: Duration = Duration::from_secs(60);

struct Member {
    number: u8,
    path: PacketPath,
    exit: Exit,
    events: Vec<Event>,
    scratch: Vec<u8>,
}

impl Member {
    fn new(now: Now, number: u8, others: &[u8]) -> Self {
        let paths = Paths::new([number; 32], Config::default());
        let tunnel = Tunnel::new(now.instant, [number; 32]);
        let mut path = PacketPath::new(now.instant, paths, tunnel, true);
        path.paths_mut().set_local(now.instant, vec![host_candidate(number)]);
        path.set_party(now.instant, PARTY, secret(number), &device_config(number));
        for other in others.iter().filter(|other| **other != number) {
            path.set_peer(now.instant, peer_info(number, *other));
        }
        Self { number, path, exit: Exit::default(), events: Vec::new(), scratch: vec![0; 4096] }
    }

    fn is_up(&self, peer: u8) -> bool {
        self.path.session(PARTY, device(peer)).is_some_and(|session| session.ready)
    }

    fn kind(&self, now: Now, peer: u8) -> Option<PathKind> {
        self.path.path(now.instant, PARTY, device(peer)).and_then(|view| view.kind)
    }

    fn flush(&mut self, now: Now) {
        self.path.drive(now);
        self.path.flush(now, &mut self.exit);
    }

    /// Does what connectivity does with a control message.
    fn handle_control(&mut self, now: Now, from: DeviceId, message: &ControlMessage) {
        match message {
            ControlMessage::RequestRelay { to } => self.path.on_relay_request(now.instant, PARTY, from, *to),
            ControlMessage::OfferRelay { to, rtt_ms } => {
                let rtt = Duration::from_millis((*rtt_ms).into());
                self.path.on_relay_offer(now.instant, PARTY, from, *to, rtt);
            }
            _ => {}
        }
    }
}

struct Net {
    now: Now,
    members: Vec<Member>,
    /// Pairs of members between which datagrams are lost.
    cut: BTreeSet<(u8, u8)>,
}

impl Net {
    fn new(count: u8) -> Self {
        let (now, all) = (start(), (1..=count).collect::<Vec<_>>());
        let members = all.iter().map(|number| Member::new(now, *number, &all)).collect();
        Self { now, members, cut: BTreeSet::new() }
    }

    /// Members with a session between each two of them.
    fn connected(count: u8) -> Self {
        let mut net = Self::new(count);
        net.run_until("all are connected", |net| {
            let is_connected = |me: &Member| (1..=count).all(|other| other == me.number || me.is_up(other));
            net.members.iter().all(is_connected)
        });
        net
    }

    fn member(&mut self, number: u8) -> &mut Member {
        &mut self.members[usize::from(number) - 1]
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now.instant + LONG;
        while !done(self) {
            assert!(self.now.instant < end, "not in time: {what}");
            self.step();
        }
    }

    /// Carries everything that waits, and moves on to the next moment at which something is due.
    fn step(&mut self) {
        while self.carry() {}
        let due = self.members.iter().filter_map(|member| member.path.poll_timeout()).min();
        let wait = due.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.now.instant));
        self.now = after(self.now, wait.max(Duration::from_millis(1)));
        for member in &mut self.members {
            if member.path.poll_timeout().is_some_and(|at| at <= self.now.instant) {
                member.path.handle_timeout(self.now, &|_, _| true);
            }
        }
    }

    /// Returns false if there was nothing to carry.
    fn carry(&mut self) -> bool {
        let (now, mut moved) = (self.now, false);
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.flush(now);
            let (from, sent) = (member.number, std::mem::take(&mut member.exit.sent));
            for (_, destination, bytes) in sent {
                moved = true;
                let to =
                    self.members.iter().map(|member| member.number).find(|to| address(*to) == destination);
                if let Some(to) = to.filter(|to| !self.cut.contains(&(from.min(*to), from.max(*to)))) {
                    self.receive(from, to, &bytes);
                }
            }
            while let Some(event) = self.members[index].path.poll_event() {
                moved = true;
                self.dispatch(from, event);
            }
        }
        moved
    }

    fn receive(&mut self, from: u8, to: u8, bytes: &[u8]) {
        let now = self.now;
        let Member { path, scratch, exit, .. } = self.member(to);
        let local = PathLocal::Socket(SocketId::MAIN);
        path.handle_datagram(now, local, address(from), bytes, scratch, exit);
    }

    fn dispatch(&mut self, from: u8, event: Event) {
        let now = self.now;
        match &event {
            Event::Signal { to, bytes, .. } => {
                let path = &mut self.member(to.0[0]).path;
                let peer = path.peers().id(PARTY, device(from)).expect("a known member");
                path.paths_mut().handle_signal(now.instant, peer, bytes);
            }
            Event::Control { from: sender, message, .. } => {
                self.member(from).handle_control(now, *sender, message);
            }
            _ => {}
        }
        self.member(from).events.push(event);
    }

    /// Sends an IP packet from one member's device to another's.
    fn send(&mut self, from: u8, to: u8, payload: &[u8]) {
        let now = self.now.instant;
        self.member(from).path.handle_packet(now, PARTY, &mut packet(from, to, payload));
    }
}

#[test]
fn members_get_a_session_and_exchange_packets() {
    let mut net = Net::connected(2);
    let up = |member: &Member, peer| {
        let up = member.events.iter().filter(|event| matches!(event, Event::SessionUp { .. })).count();
        (up, member.path.connected_devices().contains_key(&device(peer)))
    };
    assert_eq!((up(net.member(1), 2), up(net.member(2), 1)), ((1, true), (1, true)));
    net.send(1, 2, b"hello");
    net.run_until("delivered", |net| !net.members[1].exit.delivered.is_empty());
    assert_eq!(net.member(2).exit.delivered, [(PARTY, packet(1, 2, b"hello"))]);
}

#[test]
fn packet_for_a_removed_member_leaves_before_the_member_is_forgotten() {
    let mut net = Net::connected(2);
    net.send(1, 2, b"the last one");
    let now = net.now;
    net.member(1).path.remove_peer(now, PARTY, device(2));
    while net.carry() {}
    assert_eq!(net.member(2).exit.delivered, [(PARTY, packet(1, 2, b"the last one"))]);
    assert!(net.member(1).path.connected_devices().is_empty());
    let down = |event: &Event| matches!(event, Event::SessionDown { member, .. } if *member == device(2));
    assert_eq!(net.member(1).events.iter().filter(|event| down(event)).count(), 1);
    net.send(1, 2, b"late");
    assert!(!net.carry(), "nothing is sent to a removed member");
}

#[test]
fn sessions_of_a_party_end_with_it() {
    let mut net = Net::connected(3);
    let now = net.now.instant;
    net.member(1).path.remove_party(now, PARTY);
    while net.carry() {}
    let down = |event: &&Event| matches!(event, Event::SessionDown { .. });
    assert_eq!(net.member(1).events.iter().filter(down).count(), 2);
    assert!(!net.member(1).is_up(2) && !net.member(1).is_up(3));
}

#[test]
fn restarted_member_gets_a_new_session() {
    let mut net = Net::connected(2);
    let now = net.now;
    net.members[1] = Member::new(now, 2, &[1, 2]);
    net.member(1).path.set_peer(now.instant, PeerInfo { restarted: true, ..peer_info(1, 2) });
    net.run_until("connected again", |net| net.members[1].is_up(1));
    net.send(2, 1, b"back");
    net.run_until("delivered", |net| !net.members[0].exit.delivered.is_empty());
}

#[test]
fn control_message_arrives_and_a_malformed_one_is_counted() {
    let mut net = Net::connected(2);
    let now = net.now;
    let path = &mut net.member(1).path;
    path.send_control(now.instant, PARTY, device(2), &ControlMessage::Ping(7));
    path.tunnel.send_control(now.instant, PARTY, device(2), &[0xff; 9], &mut path.outbox).unwrap();
    while net.carry() {}
    let is_ping = |event: &&Event| matches!(event, Event::Control { from, message: ControlMessage::Ping(7), .. } if *from == device(1));
    assert_eq!(net.member(2).events.iter().filter(is_ping).count(), 1);
    assert_eq!(net.member(2).path.malformed(), 1);
}

#[test]
fn control_message_that_is_too_long_is_dropped() {
    let mut net = Net::connected(2);
    let now = net.now;
    let message = ControlMessage::Forward { to: [0; 8], message: vec![0; MAX_CONTROL_MESSAGE_LEN] };
    net.member(1).path.send_control(now.instant, PARTY, device(2), &message);
    while net.carry() {}
    assert!(!net.member(2).events.iter().any(|event| matches!(event, Event::Control { .. })));
    assert_eq!(net.member(2).path.malformed(), 0, "not even a part of it is sent");
}

#[test]
fn members_without_a_path_are_connected_by_a_member_that_reaches_both() {
    let mut net = Net::new(3);
    net.cut.insert((1, 2));
    net.run_until("connected through member 3", |net| net.members[0].is_up(2) && net.members[1].is_up(1));
    let now = net.now;
    assert_eq!(net.member(1).kind(now, 2), Some(PathKind::MemberRelay));
    net.send(1, 2, b"by way of 3");
    net.run_until("delivered", |net| !net.members[1].exit.delivered.is_empty());
    assert_eq!(net.member(2).exit.delivered, [(PARTY, packet(1, 2, b"by way of 3"))]);
    assert!(net.member(3).path.member_relays().counters().forwarded > 0);
    assert!(net.member(3).exit.delivered.is_empty(), "the relaying member cannot read it");
}

#[test]
fn member_whose_user_does_not_serve_others_relays_nothing() {
    let mut net = Net::new(3);
    net.cut.insert((1, 2));
    net.member(3).path.member_relays_mut().set_serves_members(false);
    let end = net.now.instant + Duration::from_secs(30);
    while net.now.instant < end {
        net.step();
    }
    assert!(!net.member(1).is_up(2));
    assert_eq!(net.member(3).path.member_relays().counters().forwarded, 0);
}

#[test]
fn forwarded_message_of_an_unknown_member_is_dropped() {
    let mut net = Net::connected(2);
    let (now, drops) = (net.now, net.member(2).path.tunnel().drops());
    let forwarded = ControlMessage::Forwarded { from: [9; 8], message: vec![4; 64] };
    net.member(1).path.send_control(now.instant, PARTY, device(2), &forwarded);
    net.member(2).events.clear();
    while net.carry() {}
    assert!(!net.member(2).events.iter().any(|event| matches!(event, Event::Control { .. })));
    assert_eq!(net.member(2).path.tunnel().drops(), drops, "its content is not even looked at");
}

#[test]
fn datagram_for_neither_machine_is_handed_back() {
    let mut net = Net::new(1);
    let now = net.now;
    let Member { path, scratch, exit, .. } = net.member(1);
    let request = partyline_netcheck::binding_request([7; 12]);
    let stun_response = crate::testing::binding_response(&request, address(1));
    let local = PathLocal::Socket(SocketId::MAIN);
    assert!(path.handle_datagram(now, local, address(9), &stun_response, scratch, exit));
    assert!(exit.sent.is_empty() && exit.delivered.is_empty());
}

#[test]
fn stream_to_a_relay_is_used_and_closed_when_it_carries_something_else() {
    let mut net = Net::new(2);
    let (now, relay) = (net.now, address(99));
    let server = RelayServer {
        name: "relay".to_owned(),
        transport: RelayTransport::Tcp,
        address: relay,
        host: "relay.example".to_owned(),
        username: "ana".to_owned(),
        password: "secret".to_owned(),
    };
    net.member(1).path.paths_mut().set_relays(now.instant, vec![server]);
    let opened = |net: &Net| {
        net.members[0].events.iter().find_map(|event| match event {
            Event::Output(Output::StreamOpen { id, tls: false, address, .. }) => Some((*id, *address)),
            _ => None,
        })
    };
    net.run_until("a stream is asked for", |net| opened(net).is_some());
    let (id, to) = opened(&net).unwrap();
    assert_eq!(to, relay);
    let now = net.now;
    let member = net.member(1);
    member.exit.sent.clear();
    member.path.handle_stream(now, id, StreamInput::Opened, &mut member.scratch, &mut member.exit);
    member.flush(now);
    let allocate = member.exit.sent.iter().find(|(local, ..)| *local == Local::Stream(id));
    assert_eq!(allocate.map(|(_, _, bytes)| bytes[..2].to_vec()), Some(vec![0, 3]), "an Allocate request");
    let input = StreamInput::Data(vec![0xff; 8]);
    member.path.handle_stream(now, id, input, &mut member.scratch, &mut member.exit);
    let closed = std::iter::from_fn(|| member.path.poll_event())
        .any(|event| matches!(event, Event::Output(Output::StreamClose { id: closed }) if closed == id));
    assert!(closed);
}

#[test]
fn paths_stay_out_of_a_party_for_as_long_as_it_is_on() {
    let mut net = Net::new(2);
    let (now, local) = (net.now, PathLocal::Socket(SocketId::MAIN));
    let Member { path, exit, scratch, .. } = net.member(1);
    let DeviceConfig { v4, v6, .. } = device_config(2);
    let sources = [std::net::IpAddr::from(v4.addr()), v6.addr().into()].map(|ip| SocketAddr::new(ip, 4000));
    let mut dropped = |path: &mut PacketPath| {
        for source in sources {
            path.handle_datagram(now, local, source, &[0xff; 32], scratch, exit);
        }
        path.paths().counters().inside_party
    };
    assert_eq!(dropped(path), 2);
    path.remove_party(now.instant, PARTY);
    assert_eq!(dropped(path), 2, "addresses like any other now");
}
