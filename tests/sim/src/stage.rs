//! Plays a scenario: puts everybody in place, lets things happen in their order, watches, and has it judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use partyline_model::{Command, DeviceId, PartyId, PathKind};
use partyline_nat::{Nat, Rules};

use crate::{
    World, address_v6,
    judge::{Wrong, is_relayed},
    outcome::{Outcome, PairTimes},
    scenario::{Happening, Scenario},
    watch::{Outage, Trouble, Watch},
};

/// How often the members' views are looked at.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What is to be done at a moment.
#[derive(Debug, Clone, Copy)]
enum Act {
    Join(usize),
    /// Whether nothing else goes on.
    Happen(Happening, bool),
    Wake(usize, bool),
    Start(usize, bool),
    StartServer,
    StartRelay,
    Mend,
}

/// A scenario under way.
pub struct Stage<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) world: World,
    pub(crate) start: Instant,
    pub(crate) party: PartyId,
    link: String,
    /// Where everybody is now.
    pub(crate) homes: Vec<usize>,
    /// Who has joined and not left.
    pub(crate) present: Vec<bool>,
    /// Who has left.
    pub(crate) left: Vec<bool>,
    /// Since when a member takes part, server included.
    joined: Vec<Option<Instant>>,
    devices: BTreeMap<DeviceId, usize>,
    revisions: Vec<u32>,
    seen: BTreeMap<(usize, usize), (bool, Option<PathKind>)>,
    pub(crate) times: BTreeMap<(usize, usize), PairTimes>,
    pub(crate) wrong: Vec<Wrong>,
    /// Who cannot know that somebody left, since the goodbye was forgotten: by the server that kept it, or by the member's
    /// own program, killed before it was written down.
    pub(crate) excused: BTreeSet<(usize, usize)>,
    /// Two whose packets are watched.
    pub(crate) watch: Option<Watch>,
    /// How long packets did not arrive after trouble.
    pub(crate) outages: Vec<Outage>,
    places: Vec<Option<usize>>,
    hosts: u16,
}

/// Plays a scenario from its beginning to its judgement.
#[must_use]
pub fn play(scenario: &Scenario) -> Outcome {
    let mut stage = Stage::new(scenario);
    stage.act_all();
    stage.conclude()
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut world = World::new(scenario.seed);
        world.relay_v6 = true;
        world.start_server();
        let places = build(&mut world, scenario);
        let count = scenario.members.len();
        let mut stage = Self {
            start: world.now.instant,
            scenario,
            world,
            party: PartyId([0; 32]),
            link: String::new(),
            homes: scenario.members.iter().map(|person| person.home).collect(),
            present: vec![false; count],
            left: vec![false; count],
            joined: vec![None; count],
            devices: BTreeMap::new(),
            revisions: vec![0; count],
            seen: BTreeMap::new(),
            times: BTreeMap::new(),
            wrong: Vec::new(),
            excused: BTreeSet::new(),
            watch: None,
            outages: Vec::new(),
            places,
            hosts: 1,
        };
        for who in 0..count {
            stage.world.add(0);
            stage.world.members[who].spares = 6;
            stage.world.members[who].skew_ms = i64::from(scenario.members[who].skew_s) * 1000;
            stage.settle_in(who, scenario.members[who].home);
        }
        stage.open_party();
        stage
    }

    fn open_party(&mut self) {
        self.power_on(0);
        (self.party, self.link) = self.world.create(0, None);
        (self.present[0], self.joined[0]) = (true, Some(self.world.now.instant));
    }

    /// An address for a computer in a home.
    fn address(&mut self, home: usize) -> (Option<usize>, IpAddr, Option<Ipv6Addr>) {
        self.hosts += 1;
        let host = self.hosts;
        let place = self.places[home];
        let ip = match place {
            // Homes use the same addresses, as they do.
            Some(_) => Ipv4Addr::new(192, 168, 1, 1 + (host % 250) as u8),
            None => Ipv4Addr::new(11, 0, 8 + (host >> 8) as u8, host as u8),
        };
        let v6 = place.filter(|_| self.scenario.homes[home].v6.is_some());
        (place, ip.into(), v6.map(|place| address_v6(place, host)))
    }

    fn settle_in(&mut self, who: usize, home: usize) {
        let (place, ip, v6) = self.address(home);
        self.world.members[who].set_place(place, ip, v6);
        self.note_home(who, home);
    }

    fn note_home(&mut self, who: usize, home: usize) {
        let line = self.scenario.homes[home].line();
        let member = &mut self.world.members[who];
        (member.lan, member.line) = (home as u32, line);
        self.homes[who] = home;
        if self.places[home].is_none() {
            member.lan = 100_000 + who as u32;
        }
    }

    fn power_on(&mut self, who: usize) {
        self.world.start(who);
        let node = self.world.members[who].node.as_ref().expect("it runs");
        self.devices.insert(node.device(), who);
        self.revisions[who] = 0;
        self.ask_router(who);
    }

    fn ask_router(&mut self, who: usize) {
        if self.scenario.homes[self.homes[who]].opens_ports {
            self.world.map_port(who);
        }
    }

    fn act_all(&mut self) {
        let mut agenda: Vec<(u32, Act)> = Vec::new();
        let people = self.scenario.members.iter().enumerate().skip(1);
        agenda.extend(people.map(|(who, person)| (person.joins_ms, Act::Join(who))));
        let events = self.scenario.events.iter().enumerate();
        agenda
            .extend(events.flat_map(|(at, event)| acts(event.at_ms, event.what, self.scenario.is_alone(at))));
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
            Act::Start(..) => {}
            Act::Mend => self.world.mend(),
            Act::StartServer => {
                if self.world.server.is_none() {
                    self.world.start_server();
                }
            }
            Act::StartRelay => {
                if self.world.relay.is_none() {
                    self.world.start_relay();
                }
            }
        }
    }

    fn join(&mut self, who: usize) {
        self.power_on(who);
        let command = Command::Join { link: self.link.clone(), display_name: format!("member {who}") };
        self.world.with(who, |node, now| node.handle_command(now, 1_000_000, command));
        (self.present[who], self.joined[who]) = (true, Some(self.world.now.instant));
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
                    // Of who has left it has perhaps heard, but not written it down.
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
            Happening::RouterRestart { home } => {
                if let Some(place) = self.places[home] {
                    self.world.internet.routers[place].nat.reset();
                    // It says that it has forgotten what it was asked for.
                    let inside: Vec<usize> = (0..self.homes.len())
                        .filter(|who| self.homes[*who] == home && self.runs(*who))
                        .collect();
                    inside.into_iter().for_each(|who| self.ask_router(who));
                }
            }
            Happening::Cut { who, other, .. } => self.world.cut(who, other),
            Happening::Clock { who, skew_s } => {
                self.world.members[who].skew_ms = i64::from(skew_s) * 1000;
            }
        }
    }

    /// Watches somebody whom it concerns; what happened before is not measured any more.
    fn watch_after(&mut self, what: Happening, alone: bool) {
        self.watch = None;
        match (Trouble::of(&what).map(|trouble| (trouble, alone)), what) {
            (Some(trouble), Happening::Cut { who, other, .. }) => {
                // In one network nothing is cut, and packets that are relayed do not go that way.
                let direct = self.view(who, other).is_some_and(|kind| !is_relayed(kind));
                if direct && self.world.public_ip(who) != self.world.public_ip(other) {
                    self.watch(trouble, who, Some(other));
                }
            }
            (Some(trouble), Happening::RouterRestart { home }) => {
                let inside = (0..self.homes.len()).find(|who| self.homes[*who] == home);
                inside.into_iter().for_each(|who| self.watch(trouble, who, None));
            }
            (Some(trouble), what) => what.who().into_iter().for_each(|who| self.watch(trouble, who, None)),
            (None, _) => {}
        }
    }

    fn roam(&mut self, who: usize, to: usize) {
        let (place, ip, v6) = self.address(to);
        self.note_home(who, to);
        self.world.roam(who, place, ip, v6);
        self.ask_router(who);
    }

    fn runs(&self, who: usize) -> bool {
        let member = &self.world.members[who];
        member.node.is_some() && !member.asleep
    }

    /// Members, and those who left but are still among the members to them.
    pub(crate) fn ghosts(&self) -> Vec<(usize, usize)> {
        let gone = |who: &usize| self.left[*who];
        let there = (0..self.present.len()).filter(|who| self.present[*who]);
        let pairs = there.flat_map(|who| (0..self.left.len()).filter(gone).map(move |other| (who, other)));
        pairs.filter(|(who, other)| self.lists(*who, *other)).collect()
    }

    fn lists(&self, who: usize, other: usize) -> bool {
        match &self.world.members[who].node {
            Some(_) => self.world.sees(who, other).is_some(),
            // Whoever does not run cannot have heard.
            None => true,
        }
    }

    fn leave(&mut self, who: usize) {
        let party = self.party;
        self.world.with(who, |node, now| node.handle_command(now, 1_000_001, Command::Leave { party }));
        (self.present[who], self.left[who]) = (false, true);
    }

    /// Lets time pass, looking at the views now and then.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while self.world.now.instant < end {
            let span = (end - self.world.now.instant).min(POLL_INTERVAL);
            self.world.run(span);
            self.look();
            self.keep_watching();
        }
    }

    /// Takes note of what the members show, where it has changed.
    fn look(&mut self) {
        for who in 0..self.present.len() {
            let Some(node) = self.world.members[who].node.as_ref() else { continue };
            if !self.present[who] || node.revision() == self.revisions[who] {
                continue;
            }
            self.revisions[who] = node.revision();
            let snapshot = self.world.snapshot(who);
            let members = snapshot.parties.into_iter().flat_map(|party| party.members);
            for view in members.filter(|view| !view.me) {
                let Some(other) = self.devices.get(&view.id).copied() else { continue };
                let shaken = view.path.as_ref().is_some_and(|path| path.handshake_s.is_some());
                let ready = shaken && view.address.is_some();
                self.seen.insert((who, other), (ready, view.path.map(|path| path.kind)));
                self.note_times(who, other);
            }
        }
    }

    fn note_times(&mut self, who: usize, other: usize) {
        let (one, two) = (self.seen.get(&(who, other)), self.seen.get(&(other, who)));
        let Some(((true, one), (true, two))) = one.zip(two) else { return };
        let direct = |kind: &Option<PathKind>| kind.is_some_and(|kind| !is_relayed(kind));
        let both_direct = direct(one) && direct(two);
        let now = self.world.now.instant;
        let since = |who: usize| Some(self.joined[who]?.max(self.world.members[who].online?));
        let Some(since) = since(who).zip(since(other)).map(|(a, b)| a.max(b)) else { return };
        let times = self.times.entry((who.min(other), who.max(other))).or_default();
        let took = now.saturating_duration_since(since);
        times.first.get_or_insert(took);
        if both_direct {
            times.direct.get_or_insert(took);
        }
    }

    /// What a member shows of another: whether packets can flow, and by what.
    pub(crate) fn view(&self, who: usize, other: usize) -> Option<PathKind> {
        self.world.members[who].node.as_ref()?;
        let view = self.world.sees(who, other)?;
        let path = view.path.filter(|path| path.handshake_s.is_some() && view.address.is_some())?;
        Some(path.kind)
    }
}

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

/// Builds carriers and homes; returns the place of each home.
fn build(world: &mut World, scenario: &Scenario) -> Vec<Option<usize>> {
    let seed = |number: usize| scenario.seed.wrapping_mul(1_000).wrapping_add(number as u64);
    let carriers = scenario.carriers.iter().enumerate().map(|(number, gateway)| {
        let outside = Ipv4Addr::new(12, 1, 0, 1 + number as u8);
        let nat = Nat::new(seed(number), outside.into(), gateway.rules());
        world.internet.add(None, nat, gateway.rules(), true)
    });
    let carriers: Vec<usize> = carriers.collect();
    let mut places = Vec::new();
    for (number, home) in scenario.homes.iter().enumerate() {
        let Some(gateway) = home.nat else {
            places.push(None);
            continue;
        };
        let above = home.carrier.map(|carrier| carriers[carrier]);
        let bits = 1 + number as u32;
        let first = if above.is_some() { Ipv4Addr::new(100, 64, 0, 0) } else { Ipv4Addr::new(12, 2, 0, 0) };
        let outside = Ipv4Addr::from_bits(first.to_bits() + bits);
        let nat = Nat::new(seed(100 + number), outside.into(), gateway.rules());
        let rules_v6 =
            home.v6.map_or_else(|| gateway.rules(), |filtering| Rules { filtering, ..gateway.rules() });
        places.push(Some(world.internet.add(above, nat, rules_v6, home.udp)));
    }
    places
}
