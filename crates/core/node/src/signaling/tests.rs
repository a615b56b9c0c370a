//! Signaling of some devices, joined by a LAN, by tunnels, and by a rendezvous server in memory. Everything that travels
//! between them travels as the real bytes.

use std::{collections::BTreeSet, time::Duration};

use partyline_model::{AddressScope, CandidateKind, Handle, KickScope, PartyPhase};
use partyline_party::Standing;
use partyline_tests_netsim::dht::DhtNetwork;
use partyline_wire::rendezvous::{ClientFrame, RefusalCode, VERSION};
use rand_core::SeedableRng as _;

use super::*;
use crate::{
    control::ControlMessage,
    testing::{after, start},
};

const URL: &str = "wss://party.example";
const SECOND: Duration = Duration::from_secs(1);
const ANA: usize = 0;
const BEN: usize = 1;
const CARL: usize = 2;

/// The address of a device on the LAN.
fn lan_address(device: usize) -> SocketAddr {
    ([192, 168, 1, device as u8 + 1], 41_640).into()
}

/// A rendezvous server: presence, records and messages of topics.
#[derive(Default)]
struct Server {
    up: bool,
    topics: BTreeMap<Topic, BTreeMap<Handle, (usize, Vec<u8>)>>,
    /// How many of the next messages are refused because they came too fast.
    refusals: usize,
    /// True while questions are not answered.
    silent: bool,
    /// Devices that nothing reaches any more, without their knowing.
    deaf: BTreeSet<usize>,
    /// Messages that were accepted, and questions.
    messages: usize,
    questions: usize,
}

impl Server {
    /// Returns the frames that a frame causes, and to which device each goes.
    fn handle(&mut self, from: usize, frame: ClientFrame) -> Vec<(usize, ServerFrame)> {
        match frame {
            ClientFrame::Enter { topic, proof, record } => {
                let handle = proof.handle();
                let present = self.topics.entry(topic).or_default();
                let older =
                    present.remove(&handle).map(|(device, _)| device).filter(|device| *device != from);
                // Entering under another handle leaves the one before.
                present.retain(|_, (device, _)| *device != from);
                let members = present
                    .iter()
                    .map(|(handle, (_, record))| TopicMember { handle: *handle, record: record.clone() });
                let roster = ServerFrame::Roster { topic, members: members.collect(), more: false };
                let mut frames = vec![(from, roster)];
                let (code, detail) = (RefusalCode::Replaced, "replaced".to_owned());
                frames.extend(older.map(|older| {
                    (older, ServerFrame::Refused { topic: Some(topic), id: None, code, detail })
                }));
                frames.extend(Self::present(present, topic, handle, &record));
                present.insert(handle, (from, record));
                frames
            }
            ClientFrame::Announce { topic, record } => {
                let present = self.topics.entry(topic).or_default();
                let own = present.iter().find(|(_, (device, _))| *device == from).map(|(handle, _)| *handle);
                let Some(handle) = own else { return Vec::new() };
                present.insert(handle, (from, record.clone()));
                Self::present(present, topic, handle, &record)
            }
            ClientFrame::Send { topic, id, .. } if self.refusals > 0 => {
                self.refusals -= 1;
                let (topic, id, code) = (Some(topic), Some(id), RefusalCode::RateLimited);
                vec![(from, ServerFrame::Refused { topic, id, code, detail: "too fast".to_owned() })]
            }
            ClientFrame::Send { topic, to, message, .. } => {
                self.messages += 1;
                let present = self.topics.entry(topic).or_default();
                let sender =
                    present.iter().find(|(_, (device, _))| *device == from).map(|(handle, _)| *handle);
                let to = present.get(&to).map(|(device, _)| *device);
                let message =
                    ServerFrame::Message { topic, from: sender.unwrap_or(Handle([0; 16])), message };
                to.map(|to| (to, message)).into_iter().collect()
            }
            ClientFrame::Leave { topic } => {
                self.topics.entry(topic).or_default().retain(|_, (device, _)| *device != from);
                Vec::new()
            }
            ClientFrame::Time { echo } => {
                self.questions += 1;
                let answer = ServerFrame::TimeReply { echo, time: crate::testing::UNIX };
                if self.silent { Vec::new() } else { vec![(from, answer)] }
            }
            ClientFrame::Relays { .. } => Vec::new(),
        }
    }

    fn present(
        present: &BTreeMap<Handle, (usize, Vec<u8>)>,
        topic: Topic,
        handle: Handle,
        record: &[u8],
    ) -> Vec<(usize, ServerFrame)> {
        let others = present.iter().filter(|(other, _)| **other != handle).map(|(_, (device, _))| *device);
        others.map(|to| (to, ServerFrame::Present { topic, handle, record: record.to_vec() })).collect()
    }

    fn disconnect(&mut self, device: usize) {
        self.topics.values_mut().for_each(|present| present.retain(|_, (other, _)| *other != device));
    }
}

struct Device {
    key: DeviceKey,
    signaling: Signaling,
    events: Vec<Event>,
}

impl Device {
    fn new(now: Now, seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let key = DeviceKey::generate(&mut rng);
        Self {
            key,
            signaling: Signaling::new(now, rng, 1400, Vec::new(), TrustedServers::default()),
            events: Vec::new(),
        }
    }

    /// Returns what was handed on last about how to reach another member.
    fn peer(&self, device: DeviceId) -> Option<&PeerInfo> {
        self.events.iter().rev().find_map(|event| match event {
            Event::PeerChanged(info) if info.device == device => Some(&**info),
            _ => None,
        })
    }

    /// Returns true if enough is known of another member to check paths to it.
    fn knows(&self, device: DeviceId) -> bool {
        self.peer(device).is_some_and(|info| info.paths.is_some())
    }

    fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| matches(event)).count()
    }
}

struct World {
    now: Now,
    devices: Vec<Device>,
    /// Pairs of devices that receive each other's beacons.
    lan: BTreeSet<(usize, usize)>,
    server: Server,
    internet: Internet,
    dht: Option<DhtNetwork>,
    /// What nodes of the DHT have answered, and when it arrives where.
    answers: Vec<(Instant, usize, SocketAddr, Vec<u8>)>,
}

/// Datagrams between the public addresses of devices, each behind a NAT with address and port-dependent filtering.
#[derive(Default)]
struct Internet {
    /// Devices whose NAT lets everything in.
    open: BTreeSet<usize>,
    /// Where each device has sent something.
    sent: BTreeSet<(usize, SocketAddr)>,
    /// The datagrams on their way so far, of which every one whose number is here is lost.
    count: usize,
    lost: BTreeSet<usize>,
    /// Those whose number is here arrive after the next one to the same device.
    late: BTreeSet<usize>,
    held: Vec<(usize, SocketAddr, Vec<u8>)>,
    /// Devices that neither send nor receive.
    cut: BTreeSet<usize>,
}

/// The address of a device on the internet.
fn public_address(device: usize) -> SocketAddr {
    ([5, 5, 5, device as u8 + 1], 41_640).into()
}

impl World {
    fn new(count: usize) -> Self {
        let now = start();
        let devices = (0..count).map(|number| Device::new(now, number as u8 + 1)).collect();
        Self {
            now,
            devices,
            lan: BTreeSet::new(),
            server: Server::default(),
            internet: Internet::default(),
            dht: None,
            answers: Vec::new(),
        }
    }

    /// Ana's party, in which the others are, too.
    fn with_party(count: usize, servers: &[&str], lan: &[(usize, usize)]) -> (Self, PartyId) {
        let mut world = Self::new(count);
        world.lan = lan.iter().copied().collect();
        world.server.up = true;
        let (party, link) = world.create(servers);
        (BEN..count).for_each(|device| world.join(device, &link));
        world.advance(5 * SECOND);
        (world, party)
    }

    fn create(&mut self, servers: &[&str]) -> (PartyId, String) {
        let request = NewPartyRequest {
            name: "Friday".to_owned(),
            display_name: "Ana".to_owned(),
            servers: servers.iter().map(|url| (*url).to_owned()).collect(),
            range: Some("10.77.0.0/24".parse().expect("a range")),
        };
        let Device { key, signaling, .. } = &mut self.devices[ANA];
        signaling.create(self.now, key, request).expect("a party")
    }

    fn join(&mut self, device: usize, link: &str) {
        let Device { key, signaling, .. } = &mut self.devices[device];
        signaling.join(self.now, key, link, format!("Member {device}")).expect("a membership");
    }

    fn id(&self, device: usize) -> DeviceId {
        self.devices[device].key.id()
    }

    fn knows(&self, device: usize, other: usize) -> bool {
        self.devices[device].knows(self.id(other))
    }

    fn signaling(&mut self, device: usize) -> &mut Signaling {
        &mut self.devices[device].signaling
    }

    fn connect(&mut self, party: PartyId, one: usize, other: usize) {
        let (now, one_id, other_id) = (self.now, self.id(one), self.id(other));
        self.signaling(one).on_session_up(now, party, other_id);
        self.signaling(other).on_session_up(now, party, one_id);
        self.run();
    }

    fn advance(&mut self, span: Duration) {
        let end = self.now.instant + span;
        self.run();
        while self.now.instant < end {
            let timeouts = self.devices.iter().filter_map(|device| device.signaling.poll_timeout());
            let due = timeouts.chain(self.answers.iter().map(|(at, ..)| *at)).min();
            let wait = due.unwrap_or(end).min(end).saturating_duration_since(self.now.instant);
            self.now = after(self.now, wait.max(Duration::from_millis(1)));
            for device in &mut self.devices {
                device.signaling.handle_timeout(self.now);
            }
            let now = self.now.instant;
            let arrived: Vec<_> = self.answers.extract_if(.., |(at, ..)| *at <= now).collect();
            for (_, device, source, bytes) in arrived {
                let now = self.now;
                self.signaling(device).handle_dht(now, source, &bytes);
            }
            self.run();
        }
    }

    fn run(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for device in 0..self.devices.len() {
                while let Some(event) = self.devices[device].signaling.poll_event() {
                    moved = true;
                    self.perform(device, &event);
                    self.devices[device].events.push(event);
                }
            }
        }
    }

    fn perform(&mut self, device: usize, event: &Event) {
        let now = self.now;
        match event {
            Event::Output(Output::Beacon { to, bytes }) => {
                for other in 0..self.devices.len() {
                    let hears = self.lan.contains(&(device.min(other), device.max(other)));
                    if hears && other != device && to.is_none_or(|to| to == lan_address(other)) {
                        self.signaling(other).handle_beacon(now, lan_address(device), bytes);
                    }
                }
            }
            Event::Output(Output::DeviceUp { party, .. }) => {
                self.signaling(device).handle_device(*party, DeviceInput::Up("party0".to_owned()));
            }
            Event::Output(Output::ServerOpen { id, .. }) if self.server.up => {
                self.signaling(device).handle_server(now, *id, ServerInput::Opened);
                let welcome = ServerFrame::Welcome { version: VERSION, challenge: [7; 32], time: now.unix };
                let welcome = ServerInput::Frame(welcome.encode().expect("a frame"));
                self.signaling(device).handle_server(now, *id, welcome);
            }
            Event::Output(Output::ServerOpen { id, .. } | Output::ServerClose { id }) => {
                self.server.disconnect(device);
                self.signaling(device).handle_server(now, *id, ServerInput::Closed(None));
            }
            Event::Output(Output::ServerSend { frame, .. }) => {
                let frame = ClientFrame::decode(frame).expect("a frame");
                for (to, frame) in self.server.handle(device, frame) {
                    self.tell(to, frame);
                }
            }
            Event::SeenByDht(addresses) => {
                let seen = |address: &SocketAddr| Candidate {
                    kind: CandidateKind::ServerReflexive,
                    address: *address,
                };
                let candidates = addresses.iter().map(seen).collect();
                self.signaling(device).set_candidates(now.instant, candidates);
            }
            Event::Output(Output::Resolve { host, port }) => {
                let router = self.dht.as_mut().map(DhtNetwork::any_live_node);
                let addresses: Vec<SocketAddr> = router.into_iter().collect();
                self.signaling(device).handle_resolved(now, host, *port, &addresses);
            }
            Event::Datagram { .. } if self.internet.cut.contains(&device) => {}
            Event::Datagram { to, bytes } if bytes.starts_with(b"d") => {
                let answer =
                    self.dht.as_mut().and_then(|dht| dht.deliver(public_address(device), *to, bytes));
                self.answers.extend(answer.map(|(delay, bytes)| (now.instant + delay, device, *to, bytes)));
            }
            Event::Datagram { to, bytes } => {
                self.internet.sent.insert((device, *to));
                self.internet.count += 1;
                let (count, source) = (self.internet.count, public_address(device));
                let receiver = (0..self.devices.len()).find(|other| public_address(*other) == *to);
                let lets_in = |other: &usize| {
                    self.internet.open.contains(other) || self.internet.sent.contains(&(*other, source))
                };
                if let Some(other) =
                    receiver.filter(|other| !self.internet.cut.contains(other)).filter(lets_in)
                    && !self.internet.lost.contains(&count)
                {
                    self.deliver(count, other, source, bytes);
                }
            }
            Event::Control { party, to, message: ControlMessage::Sealed { topic, sealed } } => {
                let (from, to) = (self.id(device), *to);
                let receiver =
                    self.devices.iter_mut().find(|device| device.key.id() == to).expect("a device");
                receiver.signaling.handle_sealed(now, *party, from, topic, sealed);
            }
            _ => {}
        }
    }

    /// Delivers a datagram, and after it those to the same device that are late.
    fn deliver(&mut self, count: usize, device: usize, source: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        if self.internet.late.contains(&count) {
            self.internet.held.push((device, source, bytes.to_vec()));
            return;
        }
        self.signaling(device).handle_direct(now, source, bytes);
        let overtaken: Vec<_> = self.internet.held.extract_if(.., |(to, ..)| *to == device).collect();
        for (_, source, bytes) in overtaken {
            self.signaling(device).handle_direct(now, source, &bytes);
        }
    }

    /// Delivers a server's frame.
    fn tell(&mut self, device: usize, frame: ServerFrame) {
        if self.server.deaf.contains(&device) {
            return;
        }
        let (now, bytes) = (self.now, frame.encode().expect("a frame"));
        let id = self.server_id(device);
        self.signaling(device).handle_server(now, id, ServerInput::Frame(bytes));
    }

    fn server_id(&self, device: usize) -> ServerId {
        let opened = self.devices[device].events.iter().rev().find_map(|event| match event {
            Event::Output(Output::ServerOpen { id, .. }) => Some(*id),
            _ => None,
        });
        // The first event of a connection is handled before it is recorded.
        opened.unwrap_or(ServerId(1))
    }

    fn problem(&self, device: usize, party: PartyId) -> Option<ErrorCode> {
        let party = self.devices[device].signaling.party(party)?;
        party.problem().map(|problem| problem.code)
    }
}

mod contact_lists;
mod direct;

fn is_removal_of(device: DeviceId) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::PeerRemoved { device: removed, .. } if *removed == device)
}

#[test]
fn members_on_one_lan_find_each_other_without_a_server() {
    let (world, party) = World::with_party(2, &[], &[(ANA, BEN)]);
    assert!(world.knows(ANA, BEN) && world.knows(BEN, ANA));
    let ben = world.devices[BEN].signaling.party(party).expect("a party");
    assert_eq!(ben.phase(), PartyPhase::Up, "the owner sent the range");
    let up = world.devices[BEN].count(|event| matches!(event, Event::PartyUp { .. }));
    assert_eq!(up, 1);
}

#[test]
fn members_apart_find_each_other_through_a_server() {
    let (world, party) = World::with_party(2, &[URL], &[]);
    assert!(world.knows(ANA, BEN) && world.knows(BEN, ANA));
    assert!(world.devices[ANA].signaling.is_online(world.now.instant, party, &world.id(BEN)));
    assert_eq!(world.devices[ANA].signaling.server_status(URL), (true, None));
    assert_eq!(world.devices[ANA].count(|event| matches!(event, Event::Online(true))), 1, "reported once");
}

#[test]
fn members_apart_without_a_server_find_each_other_through_a_member_that_is_connected_to_both() {
    let (mut world, party) = World::with_party(3, &[], &[(ANA, BEN), (ANA, CARL)]);
    assert!(!world.knows(BEN, CARL) && !world.knows(CARL, BEN));
    world.connect(party, ANA, BEN);
    world.connect(party, ANA, CARL);
    world.advance(SECOND);
    assert!(world.knows(BEN, CARL) && world.knows(CARL, BEN));
    for device in &world.devices {
        let tunnel = &device.signaling.counters().tunnel;
        assert!(tunnel.received > 0);
        assert_eq!(tunnel.dropped.not_for_me, 0, "what is for one member alone is not passed on");
    }
}

#[test]
fn announcement_reaches_members_over_every_channel() {
    let (mut world, _) = World::with_party(2, &[URL], &[(ANA, BEN)]);
    let received = |world: &World| {
        let counters = world.devices[BEN].signaling.counters();
        (counters.server.received, counters.beacon.received)
    };
    let (server, beacon) = received(&world);
    let now = world.now.instant;
    let candidate = Candidate { kind: partyline_model::CandidateKind::Host, address: lan_address(9) };
    world.signaling(ANA).set_candidates(now, vec![candidate]);
    world.advance(SECOND);
    let paths = world.devices[BEN].peer(world.id(ANA)).and_then(|info| info.paths.as_ref());
    assert!(paths.expect("paths").candidates.contains(&candidate));
    let (by_server, by_beacon) = received(&world);
    assert!(by_server == server + 1 && by_beacon > beacon);
}

#[test]
fn signal_reaches_the_member_that_it_is_for() {
    let (mut world, party) = World::with_party(3, &[URL], &[]);
    let (now, ben) = (world.now, world.id(BEN));
    world.signaling(ANA).send_signal(now, party, ben, b"punch".to_vec());
    world.run();
    let ana = world.id(ANA);
    let is_signal = |event: &Event| matches!(event, Event::SignalReceived { from, bytes, .. } if *from == ana && bytes == b"punch");
    assert_eq!((world.devices[BEN].count(is_signal), world.devices[CARL].count(is_signal)), (1, 0));
    world.signaling(ANA).send_signal(now, party, DeviceId([9; 32]), b"punch".to_vec());
    assert!(world.signaling(ANA).poll_event().is_none(), "nothing is sent to an unknown member");
}

/// The connection to the server is still that of the membership before.
#[test]
fn member_that_comes_back_before_its_leave_is_confirmed_is_told_who_is_there() {
    let mut world = World::new(2);
    world.server.up = true;
    let (party, link) = world.create(&[URL]);
    world.join(BEN, &link);
    world.advance(5 * SECOND);
    let now = world.now;
    world.signaling(BEN).leave(now, party).expect("a party");
    world.devices[BEN].events.clear();
    world.join(BEN, &link);
    world.advance(5 * SECOND);
    assert!(world.knows(BEN, ANA) && world.knows(ANA, BEN));
}

#[test]
fn leave_is_confirmed_by_the_server_and_forgets_the_member_everywhere() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let (now, ben) = (world.now, world.id(BEN));
    world.signaling(BEN).leave(now, party).expect("a party");
    world.advance(SECOND);
    assert_eq!(world.devices[ANA].count(is_removal_of(ben)), 1);
    assert!(!world.devices[ANA].signaling.is_member(party, &ben));
    assert_eq!(world.server.questions, 1);
    let closed = world.devices[BEN].count(|event| matches!(event, Event::Output(Output::ServerClose { .. })));
    assert_eq!(closed, 1, "the connection goes with the confirmation");
    assert_eq!(world.devices[BEN].signaling.parties().count(), 0);
    assert!(world.devices[BEN].events.iter().any(|event| matches!(event, Event::Online(false))));
}

#[test]
fn leave_that_the_server_refuses_is_sent_again_before_it_counts_as_confirmed() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let (now, ben) = (world.now, world.id(BEN));
    (world.server.refusals, world.server.messages) = (1, 0);
    world.signaling(BEN).leave(now, party).expect("a party");
    world.run();
    assert_eq!(world.devices[ANA].count(is_removal_of(ben)), 0, "refused");
    assert_eq!(world.devices[BEN].signaling.resend_counters().unknown, 0, "the refused message is known");
    world.advance(10 * SECOND);
    assert_eq!(world.devices[ANA].count(is_removal_of(ben)), 1);
    assert_eq!((world.server.messages, world.server.questions), (1, 2), "asked again after the second try");
    assert_eq!(world.devices[BEN].signaling.poll_timeout(), None, "confirmed");
}

#[test]
fn beacon_of_a_member_that_leaves_does_not_bring_it_back() {
    let (mut world, party) = World::with_party(2, &[], &[(ANA, BEN)]);
    let (now, ben) = (world.now, world.id(BEN));
    let beacons = world.devices[ANA].signaling.counters().beacon.sent;
    world.signaling(BEN).leave(now, party).expect("a party");
    world.run();
    assert_eq!(world.devices[ANA].count(is_removal_of(ben)), 1);
    let ana = &world.devices[ANA].signaling;
    assert_eq!(ana.counters().beacon.sent, beacons, "nothing is sent to it any more");
    assert!(!ana.party(party).expect("a party").received_lately(now.instant, &ben));
}

#[test]
fn what_a_device_says_that_is_no_member_is_neither_kept_nor_passed_on() {
    let mut world = World::new(3);
    world.server.up = true;
    let (party, link) = world.create(&[URL]);
    world.join(BEN, &link);
    world.advance(5 * SECOND);
    // While the owner is away a member lets Carl in, and from then on the owner wants to approve joiners.
    let now = world.now;
    let link = world.signaling(ANA).create_invite(now, party, InviteTerms::FRIENDS).expect("an invite");
    world.signaling(ANA).set_on(now, party, false).expect("a party");
    world.join(CARL, &link);
    world.advance(5 * SECOND);
    assert!(world.knows(BEN, CARL) && world.knows(CARL, BEN));
    let now = world.now;
    world.signaling(ANA).set_approval(now, party, true).expect("the owner may");
    world.signaling(ANA).set_on(now, party, true).expect("a party");
    world.advance(5 * SECOND);
    let ana = world.devices[ANA].signaling.party(party).expect("a party");
    let topic = ana.current_topic().expect("a topic").topic;
    let kept: Vec<DeviceId> = ana.announcements(&topic).map(|(from, _)| from).collect();
    assert_eq!(kept, [world.id(BEN)]);
    assert_eq!(ana.membership().join_requests().count(), 1, "the owner is asked");
}

#[test]
fn removed_member_is_told_why_and_still_sees_it_after_a_restart() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let (now, ben) = (world.now, world.id(BEN));
    world.signaling(ANA).remove_member(now, party, ben, KickScope::default()).expect("the owner may");
    world.advance(SECOND);
    assert_eq!(world.problem(BEN, party), Some(ErrorCode::Removed));
    let local = world.devices[BEN].signaling.party(party).expect("a party");
    assert!(!local.is_on() && matches!(local.membership().standing(), Standing::Dismissed(_)));
    // As it is stored and restored.
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let restored =
        Membership::restore(now.unix, &mut rng, &world.devices[BEN].key, local.membership().state());
    let restored = restored.expect("a membership");
    world.devices[BEN].signaling =
        Signaling::new(now, rng, 1400, vec![(restored, true)], TrustedServers::default());
    world.run();
    assert_eq!(world.problem(BEN, party), Some(ErrorCode::Removed));
    world.signaling(BEN).set_on(now, party, false).expect("a party");
    world.signaling(BEN).set_on(now, party, true).expect("a party");
    assert_eq!(world.problem(BEN, party), Some(ErrorCode::Removed));
}

#[test]
fn network_of_this_computer_that_overlaps_the_party_is_a_problem_beside_a_device_error() {
    let (mut world, party) = World::with_party(1, &[], &[]);
    let error = AppError::new(ErrorCode::Device, "No device.", "Try again.");
    world.signaling(ANA).handle_device(party, DeviceInput::Failed(error));
    let now = world.now.instant;
    world.signaling(ANA).set_networks(now, &["10.77.0.0/16".parse().expect("a network")], &[]);
    assert_eq!(world.problem(ANA, party), Some(ErrorCode::Device), "the graver one is shown");
    world.signaling(ANA).handle_device(party, DeviceInput::Up("party0".to_owned()));
    assert_eq!(world.problem(ANA, party), Some(ErrorCode::RangeConflict));
    world.signaling(ANA).set_networks(now, &[], &[]);
    assert_eq!(world.problem(ANA, party), None);
}

#[test]
fn server_that_is_silent_after_a_change_of_network_is_connected_again() {
    let (mut world, _) = World::with_party(1, &[URL], &[]);
    world.server.silent = true;
    let (now, questions) = (world.now, world.server.questions);
    world.signaling(ANA).check_servers(now);
    world.run();
    assert_eq!(world.server.questions, questions + 1);
    world.devices[ANA].events.clear();
    world.server.silent = false;
    world.advance(30 * SECOND);
    let opened = world.devices[ANA].count(|event| matches!(event, Event::Output(Output::ServerOpen { .. })));
    assert_eq!(opened, 1);
    assert_eq!(world.devices[ANA].signaling.server_status(URL), (true, None));
}

#[test]
fn connection_from_a_lost_address_is_replaced_at_once() {
    let (mut world, _) = World::with_party(1, &[URL], &[]);
    let now = world.now;
    world.devices[ANA].events.clear();
    world.signaling(ANA).address_lost(now);
    world.advance(Duration::from_millis(1));
    let opened = world.devices[ANA].count(|event| matches!(event, Event::Output(Output::ServerOpen { .. })));
    assert_eq!(opened, 1, "without a delay");
}

#[test]
fn server_that_cannot_be_understood_is_disconnected_and_retried_ever_more_rarely() {
    let mut world = World::new(1);
    let (_, _) = world.create(&[URL]);
    world.advance(60 * SECOND);
    let opened = world.devices[ANA].count(|event| matches!(event, Event::Output(Output::ServerOpen { .. })));
    assert!((6..=10).contains(&opened), "{opened} attempts in a minute");
    world.server.up = true;
    world.advance(40 * SECOND);
    assert_eq!(world.devices[ANA].signaling.server_status(URL), (true, None));
    let id = world.server_id(ANA);
    let now = world.now;
    world.signaling(ANA).handle_server(now, id, ServerInput::Frame(b"no frame".to_vec()));
    assert!(matches!(world.signaling(ANA).poll_event(), Some(Event::Output(Output::ServerClose { .. }))));
}

#[test]
fn server_of_another_version_is_named_as_the_problem() {
    let (mut world, _) = World::with_party(1, &[URL], &[]);
    let now = world.now;
    world.signaling(ANA).address_lost(now);
    world.server.up = false;
    world.run();
    let id = world.server_id(ANA);
    world.signaling(ANA).handle_server(now, id, ServerInput::Opened);
    world.tell(ANA, ServerFrame::Welcome { version: VERSION + 1, challenge: [7; 32], time: now.unix });
    let (connected, problem) = world.devices[ANA].signaling.server_status(URL);
    assert_eq!((connected, problem.map(|problem| problem.code)), (false, Some(ErrorCode::VersionMismatch)));
}

#[test]
fn party_that_is_switched_off_is_silent_and_deaf() {
    let (mut world, party) = World::with_party(2, &[URL], &[(ANA, BEN)]);
    let now = world.now;
    world.signaling(BEN).set_on(now, party, false).expect("a party");
    world.run();
    let sent = |world: &World| {
        let counters = world.devices[BEN].signaling.counters();
        counters.channels().iter().map(|(_, channel)| channel.sent).sum::<u64>()
    };
    let before = sent(&world);
    world.advance(60 * SECOND);
    assert_eq!(sent(&world), before);
    let ana = world.id(ANA);
    assert!(!world.devices[BEN].signaling.is_online(world.now.instant, party, &ana));
    assert!(world.devices[BEN].events.iter().any(|event| matches!(event, Event::Online(false))));
}

#[test]
fn bytes_that_are_no_beacon_and_frames_for_unknown_topics_change_nothing() {
    let (mut world, _) = World::with_party(1, &[URL], &[]);
    let now = world.now;
    world.devices[ANA].events.clear();
    world.signaling(ANA).handle_beacon(now, lan_address(BEN), b"no beacon");
    let (topic, from) = (Topic([9; 32]), Handle([9; 16]));
    world.tell(ANA, ServerFrame::Message { topic, from, message: vec![1, 2, 3] });
    world.run();
    assert_eq!(world.devices[ANA].count(|event| !matches!(event, Event::Changed)), 0);
    assert_eq!(world.devices[ANA].signaling.counters().server.dropped.unknown_topic, 1);
}

#[test]
fn another_name_is_announced_to_the_other_members() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let now = world.now;
    world.signaling(ANA).set_display_name(now, "");
    world.signaling(ANA).set_display_name(now, "Anna");
    world.advance(SECOND);
    let ana = world.id(ANA);
    let local = world.devices[BEN].signaling.party(party).expect("a party");
    assert_eq!(local.membership().member(&ana).map(|member| member.name.to_owned()), Some("Anna".to_owned()));
}

#[test]
fn node_that_stops_takes_its_devices_and_connections_with_it() {
    let (mut world, party) = World::with_party(1, &[URL], &[]);
    let now = world.now;
    world.devices[ANA].events.clear();
    world.signaling(ANA).stop(now);
    let events: Vec<Event> = std::iter::from_fn(|| world.signaling(ANA).poll_event()).collect();
    let removed =
        |event: &Event| matches!(event, Event::Output(Output::DeviceDown { party: id }) if *id == party);
    assert!(events.iter().any(removed));
    assert!(events.iter().any(|event| matches!(event, Event::Output(Output::ServerClose { .. }))));
    assert!(world.devices[ANA].signaling.party(party).expect("a party").is_on(), "for the next start");
}

#[test]
fn lost_packets_let_a_device_look_whether_its_server_is_still_there() {
    let (mut world, _) = World::with_party(1, &[URL], &[]);
    world.advance(SECOND);
    let closed = |event: &Event| matches!(event, Event::Output(Output::ServerClose { .. }));
    let (asked, now) = (world.server.questions, world.now);
    for _ in 0..3 {
        world.signaling(ANA).doubt_servers(now);
    }
    world.advance(SECOND);
    assert_eq!(world.server.questions, asked + 1, "a lossy line costs no stream of questions");
    assert_eq!(world.devices[ANA].count(closed), 0, "it answers");
    world.server.silent = true;
    world.advance(6 * SECOND);
    let now = world.now;
    world.signaling(ANA).doubt_servers(now);
    world.advance(5 * SECOND);
    assert_eq!(world.devices[ANA].count(closed), 1);
}

/// Adds a device that is a copy of another one, restarted as of now.
fn copy_of(world: &mut World, device: usize, party: PartyId) -> usize {
    let key = world.devices[device].key.clone();
    let state = world.devices[device].signaling.party(party).expect("a party").membership().state();
    let mut rng = ChaCha20Rng::from_seed([100 + world.devices.len() as u8; 32]);
    // A key of its own: the two do not share the count of messages.
    let key = DeviceKey::restore(world.now.unix, &key.seed(), 0);
    let restored = Membership::restore(world.now.unix, &mut rng, &key, state).expect("a membership");
    let signaling = Signaling::new(world.now, rng, 1400, vec![(restored, true)], TrustedServers::default());
    world.devices.push(Device { key, signaling, events: Vec::new() });
    world.devices.len() - 1
}

/// Its router has lost the connection to the server, which takes it for present.
#[test]
fn a_member_that_no_server_reaches_any_more_hears_of_a_restart_from_its_friends() {
    let (mut world, party) = World::with_party(3, &[URL], &[]);
    for (one, other) in [(ANA, BEN), (ANA, CARL), (BEN, CARL)] {
        world.connect(party, one, other);
    }
    let carl = world.id(CARL);
    let known = |world: &World| {
        let paths = world.devices[ANA].peer(carl).and_then(|info| info.paths.clone());
        paths.expect("enough to check paths").probe_key
    };
    let before = known(&world);
    world.server.deaf.insert(ANA);
    let restarted = copy_of(&mut world, CARL, party);
    world.server.disconnect(CARL);
    world.devices.swap_remove(CARL);
    assert_eq!((restarted, world.id(CARL)), (3, carl));
    let now = world.now.instant;
    world.signaling(BEN).on_session_down(now, party, carl);
    world.advance(10 * SECOND);
    assert_ne!(known(&world), before);
}

fn copies_met(world: &World, device: usize, party: PartyId) -> bool {
    world.devices[device].signaling.party(party).expect("a party").has_met_copy(world.now.instant)
}

#[test]
fn copy_finds_the_first_at_the_server_and_stands_back_without_disturbing_it() {
    let (mut world, party) = World::with_party(3, &[URL], &[]);
    let session = world.devices[ANA].peer(world.id(BEN)).and_then(|info| info.paths.clone());
    let copy = copy_of(&mut world, BEN, party);
    world.advance(10 * SECOND);
    assert_eq!(world.problem(copy, party), Some(ErrorCode::DuplicateIdentity));
    assert!(!world.devices[copy].signaling.party(party).expect("a party").is_on());
    assert_eq!(world.problem(BEN, party), None);
    assert!(copies_met(&world, BEN, party) && !copies_met(&world, copy, party));
    let member =
        world.devices[ANA].signaling.party(party).expect("a party").membership().member(&world.id(BEN));
    assert!(member.expect("a member").copied, "the others learn of it");
    let now = world.devices[ANA].peer(world.id(BEN)).and_then(|info| info.paths.clone());
    assert_eq!(now.map(|paths| paths.probe_key), session.map(|paths| paths.probe_key), "the same run");
}

#[test]
fn copy_finds_the_first_on_the_local_network_without_a_server() {
    let (mut world, party) = World::with_party(2, &[], &[(ANA, BEN), (ANA, 2), (BEN, 2)]);
    let copy = copy_of(&mut world, BEN, party);
    world.advance(10 * SECOND);
    assert_eq!(world.problem(copy, party), Some(ErrorCode::DuplicateIdentity));
    assert!(world.problem(BEN, party).is_none() && copies_met(&world, BEN, party));
    let restarts = |event: &Event| matches!(event, Event::PeerChanged(info) if info.restarted);
    assert_eq!(world.devices[ANA].count(restarts), 0, "nobody took it for a restart");
}

#[test]
fn exactly_one_of_two_copies_that_start_at_once_goes_on() {
    for servers in [&[URL][..], &[]] {
        let (mut world, party) = World::with_party(2, servers, &[(ANA, BEN), (ANA, 2), (ANA, 3), (2, 3)]);
        world.server.disconnect(BEN);
        let copies = [copy_of(&mut world, BEN, party), copy_of(&mut world, BEN, party)];
        // The first has gone.
        world.lan.remove(&(ANA, BEN));
        let now = world.now;
        world.signaling(BEN).stop(now);
        world.devices[BEN] = Device::new(now, 90);
        world.advance(20 * SECOND);
        let back = copies.map(|copy| world.problem(copy, party).is_some());
        assert_ne!(back[0], back[1], "{servers:?}");
    }
}

#[test]
fn restart_is_no_copy_even_while_the_server_lists_the_former_run() {
    let (mut world, party) = World::with_party(2, &[URL], &[(ANA, BEN), (ANA, 2)]);
    let again = copy_of(&mut world, BEN, party);
    // Its power was cut: the server does not know yet, and nobody answers there.
    world.devices[BEN] = Device::new(world.now, 90);
    world.advance(5 * SECOND);
    assert_eq!(world.problem(again, party), None);
    assert!(world.devices[again].signaling.party(party).expect("a party").is_on());
    let restarts = |event: &Event| matches!(event, Event::PeerChanged(info) if info.restarted);
    assert_eq!(world.devices[ANA].count(restarts), 1);
    assert!(!copies_met(&world, again, party));
}

#[test]
fn copy_that_stood_back_takes_the_place_once_the_first_is_gone_and_it_is_told_to() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let copy = copy_of(&mut world, BEN, party);
    world.advance(5 * SECOND);
    assert_eq!(world.problem(copy, party), Some(ErrorCode::DuplicateIdentity));
    let now = world.now;
    world.signaling(copy).set_on(now, party, true).expect("a party");
    world.advance(5 * SECOND);
    assert_eq!(world.problem(copy, party), Some(ErrorCode::DuplicateIdentity), "the first is still there");
    world.devices[BEN] = Device::new(now, 90);
    world.server.disconnect(BEN);
    let now = world.now;
    world.signaling(copy).set_on(now, party, true).expect("a party");
    world.advance(5 * SECOND);
    assert_eq!(world.problem(copy, party), None);
}

#[test]
fn original_that_returns_later_is_the_second() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let now = world.now;
    world.signaling(BEN).set_on(now, party, false).expect("a party");
    world.advance(5 * SECOND);
    let copy = copy_of(&mut world, BEN, party);
    world.advance(5 * SECOND);
    assert_eq!(world.problem(copy, party), None);
    let original = copy_of(&mut world, BEN, party);
    world.advance(5 * SECOND);
    assert_eq!(world.problem(original, party), Some(ErrorCode::DuplicateIdentity));
    assert_eq!(world.problem(copy, party), None);
}

#[test]
fn new_identity_leaves_the_parties_to_the_other_computer_and_remembers_them() {
    let (mut world, party) = World::with_party(2, &[URL], &[]);
    let copy = copy_of(&mut world, BEN, party);
    world.advance(5 * SECOND);
    let now = world.now;
    let key = world.signaling(copy).new_identity(now);
    assert_ne!(key.id(), world.id(BEN));
    world.devices[copy].key = key;
    world.advance(5 * SECOND);
    let known =
        world.devices[ANA].signaling.party(party).expect("a party").membership().member(&world.id(BEN));
    assert!(known.is_some(), "the first is still a member");
    let former = world.devices[copy].signaling.former_parties();
    assert!(former.len() == 1 && former[0].id == party && former[0].name == "Friday");
    let link = world.signaling(ANA).create_invite(now, party, InviteTerms::FRIENDS).expect("an invite");
    let Device { key, signaling, .. } = &mut world.devices[copy];
    signaling.join(now, key, &link, String::new()).expect("a membership under the former name");
    world.advance(5 * SECOND);
    assert!(world.devices[copy].signaling.former_parties().is_empty());
    assert!(world.knows(ANA, copy) && world.knows(copy, BEN) && world.knows(BEN, copy));
}

/// Returns the scopes with which a device opened its servers since the last call.
fn scopes(world: &mut World, device: usize) -> Vec<AddressScope> {
    let events = std::mem::take(&mut world.devices[device].events);
    let opened = events.into_iter().filter_map(|event| match event {
        Event::Output(Output::ServerOpen { scope, .. }) => Some(scope),
        _ => None,
    });
    opened.collect()
}

#[test]
fn server_that_only_the_link_names_is_used_at_public_addresses_until_it_is_confirmed() {
    let (mut world, _) = World::with_party(2, &[URL], &[]);
    assert_eq!(scopes(&mut world, BEN), [AddressScope::Public]);
    world.server.up = false;
    let (now, id) = (world.now, world.server_id(BEN));
    let refused = crate::problem::server_at_private_address(URL, std::net::Ipv4Addr::LOCALHOST.into());
    world.signaling(BEN).handle_server(now, id, ServerInput::Closed(Some(refused.clone())));
    assert_eq!(world.signaling(BEN).server_status(URL), (false, Some(refused)));
    world.signaling(BEN).trust_server(now, "wss://other.example");
    world.run();
    assert_eq!(scopes(&mut world, BEN), [], "another server was confirmed");
    world.server.up = true;
    world.signaling(BEN).trust_server(now, URL);
    world.run();
    assert_eq!(scopes(&mut world, BEN), [AddressScope::Any], "at once");
    assert_eq!(world.signaling(BEN).server_status(URL), (true, None));
}
