//! A scenario under way: puts everybody in place, performs the events in their order, and watches the members.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use partyline_model::{Command, PartyId, PathKind};
use partyline_nat::{Nat, Rules};
use partyline_tests_netsim::{Place, RouterId};

use crate::{
    contacts::Contacts,
    judge::is_relayed,
    scenario::{Happening, Scenario},
    watch::{Outage, POLL_INTERVAL, Trouble, Watch},
    world::World,
};

/// What has to be done at a moment.
#[derive(Debug, Clone, Copy)]
enum Act {
    Join(usize),
    /// The second field is true if nothing else goes on; so it is in the acts below.
    Happen(Happening, bool),
    Wake(usize, bool),
    Start(usize, bool),
    StartServer,
    StartRelay,
    Mend,
}

/// A scenario under way.
pub(crate) struct Stage<'a> {
    pub scenario: &'a Scenario,
    pub world: World,
    pub start: Instant,
    /// The home that each member is in now.
    pub homes: Vec<usize>,
    pub contacts: Contacts,
    /// Two members whose packets are watched.
    pub watch: Option<Watch>,
    /// The outages measured so far.
    pub outages: Vec<Outage>,
    party: PartyId,
    link: String,
    /// True for those that have joined and not left.
    present: Vec<bool>,
    left: Vec<bool>,
    /// Pairs of which the first cannot know that the second has left, since the leave message was forgotten: by the
    /// server that kept it, or by the member's own program, which was killed before it was saved.
    excused: BTreeSet<(usize, usize)>,
    /// The network of each home.
    places: Vec<Place>,
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
        let count = scenario.members.len();
        let mut stage = Self {
            start: world.now().instant,
            scenario,
            world,
            homes: scenario.members.iter().map(|person| person.home).collect(),
            contacts: Contacts::new(count),
            watch: None,
            outages: Vec::new(),
            party: PartyId([0; 32]),
            link: String::new(),
            present: vec![false; count],
            left: vec![false; count],
            excused: BTreeSet::new(),
            places,
            hosts: 1,
        };
        for (who, person) in scenario.members.iter().enumerate() {
            stage.world.add(0);
            stage.world.members[who].probe_sockets = 6;
            stage.world.members[who].skew_ms = i64::from(person.skew_s) * 1000;
            let (place, addresses) = stage.addresses(person.home);
            stage.world.place(who, place, addresses);
            stage.note_home(who, person.home);
        }
        stage.power_on(0);
        (stage.party, stage.link) = stage.world.create(0, None);
        stage.on_join(0);
        stage
    }

    fn on_join(&mut self, who: usize) {
        self.present[who] = true;
        self.contacts.on_join(who, self.world.now().instant);
    }

    /// Returns the addresses of another computer in a home.
    fn addresses(&mut self, home: usize) -> (Place, Vec<IpAddr>) {
        self.hosts += 1;
        let host = self.hosts;
        let place = self.places[home];
        let v4 = match place {
            // All homes use the same private addresses, as they do in the field.
            Some(_) => Ipv4Addr::new(192, 168, 1, 1 + (host % 250) as u8),
            None => Ipv4Addr::new(11, 0, 8 + (host >> 8) as u8, host as u8),
        };
        let v6 = place.filter(|_| self.scenario.homes[home].v6.is_some());
        let v6 = v6.map(|place| IpAddr::from(address_v6(place, host)));
        (place, [Some(v4.into()), v6].into_iter().flatten().collect())
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
            Act::Start(who, alone) if self.world.members[who].node.is_none() => {
                self.power_on(who);
                self.watch((Trouble::Restarted, alone), who, None);
            }
            Act::StartServer if !self.world.has_server() => self.world.start_server(),
            Act::StartRelay if !self.world.has_relay() => self.world.start_relay(),
            Act::Start(..) | Act::StartServer | Act::StartRelay => {}
            Act::Mend => self.world.network().restore_cuts(),
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
                if self.world.members[who].unsaved {
                    // It may have received leave messages that were not saved.
                    let gone = (0..self.left.len()).filter(|other| self.left[*other]);
                    self.excused.extend(gone.map(|other| (who, other)));
                }
                self.world.kill(who);
            }
            Happening::Leave { who } if self.runs(who) => self.leave(who),
            Happening::Leave { .. } => {}
            Happening::ServerRestart { .. } => {
                self.excused.extend(self.ghosts());
                self.world.kill_server();
            }
            Happening::RelayRestart { .. } => self.world.kill_relay(),
            Happening::RouterRestart { home } => self.restart_router(home),
            Happening::Cut { who, other, .. } => self.world.cut(who, other),
            Happening::Clock { who, skew_s } => {
                self.world.members[who].skew_ms = i64::from(skew_s) * 1000;
            }
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
            Happening::RouterRestart { home } => {
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
        let (place, addresses) = self.addresses(to);
        self.note_home(who, to);
        self.world.roam(who, place, addresses);
        self.ask_router(who);
    }

    fn runs(&self, who: usize) -> bool {
        self.world.members[who].node.is_some() && !self.world.is_asleep(who)
    }

    fn leave(&mut self, who: usize) {
        let party = self.party;
        self.world.with(who, |node, now| node.handle_command(now, 1_000_001, Command::Leave { party }));
        (self.present[who], self.left[who]) = (false, true);
    }

    /// Returns the members.
    pub fn present(&self) -> Vec<usize> {
        (0..self.present.len()).filter(|who| self.present[*who]).collect()
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
        Happening::Restart { who, .. } => Some(Act::Start(who, alone)),
        Happening::ServerRestart { .. } => Some(Act::StartServer),
        Happening::RelayRestart { .. } => Some(Act::StartRelay),
        Happening::Cut { .. } => Some(Act::Mend),
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

const fn address_v6(router: RouterId, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, router as u16, 0, 0, 0, host)
}
