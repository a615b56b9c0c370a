//! A scenario under way: puts everybody in place, performs the events in their order, and watches the members.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use partyline_model::{Command, ErrorCode, KickScope, PartyId, PathKind};
use partyline_nat::{Nat, Rules};
use partyline_node::{Node, RequestId};
use partyline_tests_netsim::{Place, RouterId};

use crate::{
    cards::OtherVpn,
    contacts::Contacts,
    copies::Copies,
    judge::is_relayed,
    scenario::{Happening, Scenario},
    watch::{Outage, POLL_INTERVAL, Trouble, Watch},
    world::World,
};

/// The number of the command by which the first member removes another one.
const KICK_REQUEST: RequestId = 1_000_002;

/// What has to be done at a moment.
#[derive(Debug, Clone, Copy)]
enum Act {
    Join(usize),
    /// The second field is true if nothing else goes on; so it is in the acts below.
    Happen(Happening, bool),
    Wake(usize, bool),
    Start(usize, Trouble, bool),
    StartServer,
    StartServerElsewhere(bool),
    StartRelay,
    Mend,
    /// The oldest IPv6 prefix of a home that works ends to do so.
    Expire(usize),
}

/// The IPv6 prefixes of a home, by number.
#[derive(Debug, Clone, Copy, Default)]
struct Prefixes {
    /// The one in use.
    current: u16,
    /// The oldest that works.
    oldest: u16,
}

/// A computer's addresses in its home.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    /// What distinguishes it from the other computers.
    number: u16,
    /// The home's IPv6 prefix when it came.
    since: u16,
}

/// A scenario under way.
pub(crate) struct Stage<'a> {
    pub scenario: &'a Scenario,
    pub world: World,
    pub start: Instant,
    /// The home that each member is in now.
    pub homes: Vec<usize>,
    pub contacts: Contacts,
    pub copies: Copies,
    /// Two members whose packets are watched.
    pub watch: Option<Watch>,
    /// Two members that the relay connected when the servers went away.
    relayed: Option<(usize, usize)>,
    /// The outages measured so far.
    pub outages: Vec<Outage>,
    party: PartyId,
    link: String,
    /// True for those that have joined and not left.
    present: Vec<bool>,
    left: Vec<bool>,
    /// Those of them that were removed, which the party itself remembers.
    kicked: Vec<bool>,
    /// Pairs of which the first cannot know that the second has left, since the leave message was forgotten: by the
    /// server that kept it, or by the member's own program, which was killed before it was saved.
    excused: BTreeSet<(usize, usize)>,
    /// The network of each home.
    places: Vec<Place>,
    /// The IPv6 prefixes of each home.
    prefixes: Vec<Prefixes>,
    /// The addresses of each member's computer.
    leases: Vec<Lease>,
    /// The number of addresses given to computers so far.
    hosts: u16,
}

impl<'a> Stage<'a> {
    /// Puts everybody in place and lets the first member create the party.
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut world = World::new(scenario.seed);
        world.wires.relay_v6 = true;
        world.start_server();
        let places = build(&mut world, scenario);
        let mut stage = Self {
            start: world.now().instant,
            scenario,
            world,
            homes: Vec::new(),
            contacts: Contacts::default(),
            copies: Copies::default(),
            watch: None,
            relayed: None,
            outages: Vec::new(),
            party: PartyId([0; 32]),
            link: String::new(),
            present: Vec::new(),
            left: Vec::new(),
            kicked: Vec::new(),
            excused: BTreeSet::new(),
            prefixes: vec![Prefixes::default(); scenario.homes.len()],
            leases: Vec::new(),
            places,
            hosts: 1,
        };
        for (who, person) in scenario.members.iter().enumerate() {
            stage.install(person.home);
            let host = stage.world.members[who].host;
            let cards = person.cards.iter().map(|card| card.card(who));
            stage.world.network().hosts[host].cards = cards.collect();
            stage.world.members[who].skew_ms = i64::from(person.skew_s) * 1000;
        }
        stage.power_on(0);
        (stage.party, stage.link) = stage.world.create(0, None);
        stage.on_join(0);
        stage
    }

    /// Puts another computer into a home. Returns its number.
    fn install(&mut self, home: usize) -> usize {
        let who = self.world.add(0);
        self.world.members[who].probe_sockets = 6;
        for flags in [&mut self.present, &mut self.left, &mut self.kicked] {
            flags.push(false);
        }
        self.homes.push(home);
        self.leases.push(Lease::default());
        self.contacts.add();
        let addresses = self.lease(who, home);
        self.world.place(who, self.places[home], addresses);
        self.note_home(who, home);
        who
    }

    fn on_join(&mut self, who: usize) {
        self.present[who] = true;
        self.contacts.on_join(who, self.world.now().instant);
    }

    /// Gives a member's computer addresses in a home to which it comes. Returns them.
    fn lease(&mut self, who: usize, home: usize) -> Vec<IpAddr> {
        self.hosts += 1;
        self.leases[who] = Lease { number: self.hosts, since: self.prefixes[home].current };
        self.addresses(who, home).0
    }

    /// Returns the addresses at which a member's computer is reached, the best ones first, and those of its addresses that
    /// are deprecated.
    fn addresses(&self, who: usize, home: usize) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let Lease { number, since } = self.leases[who];
        let place = self.places[home];
        let v4 = match place {
            // All homes use the same private addresses, as they do in the field.
            Some(_) => Ipv4Addr::new(192, 168, 1, 1 + (number % 250) as u8),
            None => Ipv4Addr::new(11, 0, 8 + (number >> 8) as u8, number as u8),
        };
        let Prefixes { current, oldest } = self.prefixes[home];
        let router = place.filter(|_| self.scenario.homes[home].v6.is_some());
        let with = |prefix| router.map(|router| IpAddr::from(address_v6(router, prefix, number)));
        let working = (since.max(oldest)..=current).rev().filter_map(with);
        let deprecated = (since..current).rev().filter_map(with);
        ([v4.into()].into_iter().chain(working).collect(), deprecated.collect())
    }

    fn note_home(&mut self, who: usize, home: usize) {
        // In a home without a router every computer is on a network of its own.
        let lan = if self.places[home].is_some() { home as u32 } else { 100_000 + who as u32 };
        let host = self.world.members[who].host;
        let host = &mut self.world.network().hosts[host];
        (host.lan, host.line) = (lan, self.scenario.homes[home].line());
        self.homes[who] = home;
    }

    fn power_on(&mut self, who: usize) {
        self.world.start(who);
        let node = self.world.members[who].node.as_ref().expect("it runs");
        self.contacts.on_start(who, node.device());
        self.ask_router(who);
    }

    fn ask_router(&mut self, who: usize) {
        if self.scenario.homes[self.homes[who]].opens_ports {
            self.world.map_port(who);
        }
    }

    /// Performs all joins and events.
    pub fn act_all(&mut self) {
        let mut agenda: Vec<(u32, Act)> = Vec::new();
        let people = self.scenario.members.iter().enumerate().skip(1);
        agenda.extend(people.map(|(who, person)| (person.joins_ms, Act::Join(who))));
        for (number, event) in self.scenario.events.iter().enumerate() {
            agenda.extend(acts(event.at_ms, event.what, self.scenario.is_alone(number)));
        }
        agenda.sort_by_key(|(at, _)| *at);
        for (at, act) in agenda {
            self.run_until(self.start + Duration::from_millis(at.into()));
            self.act(act);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Join(who) => self.join(who),
            Act::Happen(what, alone) => {
                self.happen(what);
                self.watch_after(what, alone);
            }
            Act::Wake(who, alone) => {
                self.world.sleep(who, false);
                self.watch((Trouble::Woke, alone), who, None);
            }
            Act::Start(who, trouble, alone) if self.is_off(who) => {
                self.power_on(who);
                self.watch((trouble, alone), who, None);
            }
            Act::StartServer if !self.world.has_server() => self.world.start_server(),
            Act::StartServerElsewhere(alone) => {
                self.world.start_server_elsewhere();
                // What goes directly needs no server.
                let pairs = self.relayed.take().into_iter();
                pairs.for_each(|(who, other)| self.watch((Trouble::ServerMoved, alone), who, Some(other)));
            }
            Act::StartRelay if !self.world.has_relay() => self.world.start_relay(),
            Act::Start(..) | Act::StartServer | Act::StartRelay => {}
            Act::Mend => self.world.network().restore_cuts(),
            Act::Expire(home) => {
                self.prefixes[home].oldest += 1;
                self.renumber(home);
            }
        }
    }

    fn join(&mut self, who: usize) {
        self.power_on(who);
        let command = Command::Join { link: self.link.clone(), display_name: format!("member {who}") };
        self.world.with(who, |node, now| node.handle_command(now, 1_000_000, command));
        self.on_join(who);
    }

    fn happen(&mut self, what: Happening) {
        if what.who().is_some_and(|who| !self.present[who]) {
            return;
        }
        match what {
            Happening::Sleep { who, .. } => self.world.sleep(who, true),
            Happening::Roam { who, to } => self.roam(who, to),
            Happening::Restart { who, .. } => {
                self.excuse_unsaved(who);
                self.world.kill(who);
            }
            Happening::PowerCut { who, .. } => {
                self.excuse_unsaved(who);
                self.world.cut_power(who);
            }
            Happening::Kick { who } if self.is_copied(who) => {}
            Happening::Kick { who } => self.kick(who),
            Happening::Copy { who, to } => self.copy(who, to),
            Happening::Leave { who } if self.runs(who) && !self.is_copied(who) => self.leave(who),
            Happening::Leave { .. } => {}
            Happening::ServerRestart { .. } => {
                self.excuse_ghosts();
                self.world.kill_server();
            }
            Happening::ServerMoves { silent, .. } => {
                self.excuse_ghosts();
                self.relayed = self.relayed_pair();
                if silent { self.world.unplug_server() } else { self.world.kill_server() }
            }
            Happening::RelayRestart { .. } => self.world.kill_relay(),
            Happening::RouterRestart { home } => self.restart_router(home),
            Happening::Cut { who, other, .. } => self.world.cut(who, other),
            Happening::Clock { who, skew_s } => {
                self.world.members[who].skew_ms = i64::from(skew_s) * 1000;
            }
            Happening::Renumber { home, .. } => {
                self.prefixes[home].current += 1;
                self.renumber(home);
            }
        }
    }

    /// Gives the computers of a home the addresses that they have now.
    fn renumber(&mut self, home: usize) {
        for who in (0..self.homes.len()).filter(|who| self.homes[*who] == home).collect::<Vec<_>>() {
            let (addresses, deprecated) = self.addresses(who, home);
            self.world.renumber(who, addresses, deprecated);
            if self.runs(who) {
                self.ask_router(who);
            }
        }
    }

    /// Forgives members what a server knew for them and forgets: that others have left.
    fn excuse_ghosts(&mut self) {
        let ghosts = self.ghosts().into_iter().filter(|(_, other)| !self.kicked[*other]);
        self.excused.extend(ghosts.collect::<Vec<_>>());
    }

    fn relayed_pair(&self) -> Option<(usize, usize)> {
        let present = self.present();
        let pairs = present.iter().flat_map(|who| present.iter().map(move |other| (*who, *other)));
        pairs.into_iter().find(|(who, other)| who < other && self.view(*who, *other) == Some(PathKind::Relay))
    }

    /// Forgives a member that is killed what it may have been told and not saved: that others have left.
    fn excuse_unsaved(&mut self, who: usize) {
        if self.world.members[who].unsaved {
            let gone = (0..self.left.len()).filter(|other| self.left[*other] && !self.kicked[*other]);
            self.excused.extend(gone.map(|other| (who, other)));
        }
    }

    fn restart_router(&mut self, home: usize) {
        let Some(router) = self.places[home] else { return };
        self.world.network().routers[router].nat.reset();
        // The router announces that it has lost its port mappings.
        let inside = (0..self.homes.len()).filter(|who| self.homes[*who] == home && self.runs(*who));
        inside.collect::<Vec<_>>().into_iter().for_each(|who| self.ask_router(who));
    }

    /// Watches a member that an event concerns. Earlier trouble is not measured any more.
    fn watch_after(&mut self, what: Happening, alone: bool) {
        self.watch = None;
        let Some(trouble) = Trouble::of(&what).map(|trouble| (trouble, alone)) else { return };
        match what {
            Happening::Cut { who, other, .. } => {
                // Within one network nothing is cut, and relayed packets do not take that path.
                let direct = self.view(who, other).is_some_and(|kind| !is_relayed(kind));
                if direct && self.world.public_address(who) != self.world.public_address(other) {
                    self.watch(trouble, who, Some(other));
                }
            }
            Happening::RouterRestart { home } | Happening::Renumber { home, .. } => {
                let inside = (0..self.homes.len()).find(|who| self.homes[*who] == home);
                inside.into_iter().for_each(|who| self.watch(trouble, who, None));
            }
            what => what.who().into_iter().for_each(|who| self.watch(trouble, who, None)),
        }
    }

    /// Begins to watch a member and `peer`, or any member that it has been connected to.
    fn watch(&mut self, trouble: (Trouble, bool), who: usize, peer: Option<usize>) {
        let fits = |other: &usize| self.can_send(*other) && self.contacts.have_met(who, *other);
        let peers: Vec<usize> = (0..self.present.len()).filter(fits).collect();
        let any = peers.get(self.scenario.seed as usize % peers.len().max(1)).copied();
        let peer = peer.filter(|peer| peers.contains(peer)).or(any);
        let now = self.world.now().instant;
        let peer = peer.filter(|_| self.can_send(who));
        self.watch = peer.map(|peer| Watch::new(now, trouble, [who, peer]));
    }

    fn can_send(&self, who: usize) -> bool {
        self.present[who] && self.runs(who) && !self.world.members[who].devices.is_empty()
    }

    fn keep_watching(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        if let Some(outages) = watch.look(&mut self.world) {
            return self.outages.extend(outages);
        }
        if watch.pair().iter().all(|who| self.can_send(*who)) {
            watch.send(&mut self.world);
            self.watch = Some(watch);
        }
    }

    fn roam(&mut self, who: usize, to: usize) {
        let addresses = self.lease(who, to);
        self.note_home(who, to);
        self.world.roam(who, self.places[to], addresses);
        self.ask_router(who);
    }

    fn runs(&self, who: usize) -> bool {
        self.world.members[who].node.is_some() && !self.world.is_asleep(who)
    }

    /// True for a member whose program was started before and does not run now.
    fn is_off(&self, who: usize) -> bool {
        let member = &self.world.members[who];
        member.node.is_none() && member.disk.is_some()
    }

    /// Lets the first member remove another one, if it can and knows it.
    fn kick(&mut self, who: usize) {
        let member = self.world.members[who].node.as_ref().filter(|_| self.runs(0)).map(Node::device);
        let Some(member) = member else { return };
        let command = Command::Kick { party: self.party, member, scope: KickScope::default() };
        self.world.with(0, |node, now| node.handle_command(now, KICK_REQUEST, command));
        if let Some(Ok(_)) = self.world.members[0].answers.remove(&KICK_REQUEST) {
            (self.present[who], self.left[who], self.kicked[who]) = (false, true, true);
        }
    }

    /// Starts a member's program on another computer, with what is on the member's disk.
    fn copy(&mut self, who: usize, to: usize) {
        let computer = self.install(to);
        self.world.members[computer].disk = self.world.members[who].disk.clone();
        self.copies.add(self.world.now().instant, who, computer);
        self.present[computer] = true;
        self.world.start(computer);
        self.ask_router(computer);
    }

    fn is_copied(&self, who: usize) -> bool {
        self.copies.members().contains(&who)
    }

    /// Returns true if a computer has found out that it is a copy, and says so.
    fn stands_back(&self, who: usize) -> bool {
        let member = &self.world.members[who];
        if !self.is_copied(self.copies.member(who)) || member.node.is_none() {
            return false;
        }
        let problem = member.party(self.world.now()).and_then(|party| party.problem);
        problem.is_some_and(|problem| problem.code == ErrorCode::DuplicateIdentity)
    }

    /// Returns the members as which more than one computer goes on, or none, with the number of computers.
    pub fn unsettled_copies(&self) -> Vec<(usize, usize)> {
        let present = self.present();
        let going_on = |who: usize| present.iter().filter(|at| self.copies.member(**at) == who).count();
        let members = self.copies.members().into_iter().map(|who| (who, going_on(who)));
        members.filter(|(_, count)| *count != 1).collect()
    }

    fn leave(&mut self, who: usize) {
        let party = self.party;
        self.world.with(who, |node, now| node.handle_command(now, 1_000_001, Command::Leave { party }));
        (self.present[who], self.left[who]) = (false, true);
    }

    /// Returns the computers of the members, without those that stand back as copies.
    pub fn present(&self) -> Vec<usize> {
        (0..self.present.len()).filter(|who| self.present[*who] && !self.stands_back(*who)).collect()
    }

    /// Returns the pairs of which the first still lists the second, which has left, though it could know.
    pub fn unexcused_ghosts(&self) -> Vec<(usize, usize)> {
        self.ghosts().into_iter().filter(|ghost| !self.excused.contains(ghost)).collect()
    }

    fn ghosts(&self) -> Vec<(usize, usize)> {
        let gone: Vec<usize> = (0..self.left.len()).filter(|who| self.left[*who]).collect();
        let present = self.present().into_iter();
        let pairs = present.flat_map(|who| gone.iter().map(move |other| (who, *other)));
        pairs.filter(|(who, other)| self.lists(*who, *other)).collect()
    }

    fn lists(&self, who: usize, other: usize) -> bool {
        match &self.world.members[who].node {
            Some(_) => self.world.sees(who, other).is_some(),
            // A program that does not run cannot have learnt of it.
            None => true,
        }
    }

    /// Runs until `end`, looking at the members' views at intervals.
    pub fn run_until(&mut self, end: Instant) {
        while self.world.now().instant < end {
            let span = (end - self.world.now().instant).min(POLL_INTERVAL);
            self.world.run(span);
            self.present().into_iter().for_each(|who| self.contacts.look(who, &self.world));
            let unsettled = self.unsettled_copies();
            let is_one = |who| unsettled.iter().all(|(other, _)| *other != who);
            self.copies.look(self.world.now().instant, is_one);
            self.keep_watching();
        }
    }

    /// Returns the kind of the path by which packets can flow from one member to another.
    pub fn view(&self, who: usize, other: usize) -> Option<PathKind> {
        self.world.members[who].node.as_ref()?;
        let view = self.world.sees(who, other)?;
        let path = view.path.filter(|path| path.handshake_s.is_some() && view.address.is_some())?;
        Some(path.kind)
    }
}

/// Returns the beginning of an event and its end, if it has one.
fn acts(at: u32, what: Happening, alone: bool) -> Vec<(u32, Act)> {
    let end = match what {
        Happening::Sleep { who, .. } => Some(Act::Wake(who, alone)),
        Happening::Restart { who, .. } => Some(Act::Start(who, Trouble::Restarted, alone)),
        Happening::PowerCut { who, .. } => Some(Act::Start(who, Trouble::PowerCut, alone)),
        Happening::ServerRestart { .. } => Some(Act::StartServer),
        Happening::ServerMoves { .. } => Some(Act::StartServerElsewhere(alone)),
        Happening::RelayRestart { .. } => Some(Act::StartRelay),
        Happening::Cut { .. } => Some(Act::Mend),
        Happening::Renumber { home, .. } => Some(Act::Expire(home)),
        _ => None,
    };
    let end = end.map(|act| (at + what.lasts_ms(), act));
    [(at, Act::Happen(what, alone))].into_iter().chain(end).collect()
}

/// Builds carriers and homes. Returns the network of each home.
fn build(world: &mut World, scenario: &Scenario) -> Vec<Place> {
    let seed = |number: usize| scenario.seed.wrapping_mul(1_000).wrapping_add(number as u64);
    let carriers = scenario.carriers.iter().enumerate().map(|(number, gateway)| {
        let external = Ipv4Addr::new(12, 1, 0, 1 + number as u8);
        world.network().add_router(None, Nat::new(seed(number), external.into(), gateway.rules()))
    });
    let carriers: Vec<RouterId> = carriers.collect();
    world.network().overlays = scenario.vpns.iter().map(OtherVpn::overlay).collect();
    let homes = scenario.homes.iter().enumerate().map(|(number, home)| {
        let rules = home.nat?.rules();
        let above = home.carrier.map(|carrier| carriers[carrier]);
        let first = if above.is_some() { Ipv4Addr::new(100, 64, 0, 0) } else { Ipv4Addr::new(12, 2, 0, 0) };
        let external = Ipv4Addr::from_bits(first.to_bits() + 1 + number as u32);
        let network = world.network();
        let router = network.add_router(above, Nat::new(seed(100 + number), external.into(), rules));
        let filtering = home.v6.unwrap_or(rules.filtering);
        network.routers[router].set_rules_v6(Rules { filtering, ..rules });
        network.routers[router].udp = home.udp;
        Some(router)
    });
    homes.collect()
}

const fn address_v6(router: RouterId, prefix: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1 + prefix, router as u16, 0, 0, 0, host)
}
