//! A random party: its homes, its members, and what goes wrong. It is made from a seed and can be serialized, so that it
//! can be played again after the generator has changed.

use std::{cmp::Ordering, ops::RangeInclusive, time::Duration};

use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::Rules;
use partyline_tests_netsim::{Dice, Line};
use serde::{Deserialize, Serialize};

use crate::cards::{OtherVpn, VirtualCard};

/// A party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The seed of everything random while it is played.
    pub seed: u64,
    /// Carriers' NATs above homes.
    pub carriers: Vec<Gateway>,
    /// The homes that computers can be in.
    pub homes: Vec<Home>,
    /// Other VPNs that members have.
    #[serde(default)]
    pub vpns: Vec<OtherVpn>,
    /// The members. The first creates the party.
    pub members: Vec<Person>,
    /// The events in order of time.
    pub events: Vec<Event>,
}

/// A NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The mapping behavior.
    pub mapping: Mapping,
    /// The filtering behavior.
    pub filtering: Filtering,
    /// The port assignment.
    pub allocation: Allocation,
    /// The lifetime of an idle mapping in seconds.
    pub lifetime_s: u16,
    /// True if internal hosts reach each other at the external address.
    pub hairpin: bool,
}

/// A home or another network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Home {
    /// Its router's NAT, or `None` if its computers have public addresses.
    pub nat: Option<Gateway>,
    /// The index of the carrier's NAT above it.
    pub carrier: Option<usize>,
    /// True if the router maps ports on request.
    pub opens_ports: bool,
    /// The filtering of its IPv6 firewall, if it has IPv6.
    pub v6: Option<Filtering>,
    /// True if UDP passes its router.
    pub udp: bool,
    /// The one-way delay to the middle of the Internet in milliseconds.
    pub latency_ms: u16,
    /// The longest additional delay in milliseconds.
    pub jitter_ms: u16,
    /// Lost packets per thousand.
    pub loss: u16,
    /// Duplicated packets per thousand.
    pub twice: u16,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The home in which their computer is at first.
    pub home: usize,
    /// When they join, in milliseconds.
    pub joins_ms: u32,
    /// How far their clock is ahead, in seconds.
    pub skew_s: i32,
    /// The cards of their computer beside the real one.
    #[serde(default)]
    pub cards: Vec<VirtualCard>,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happens, in milliseconds.
    pub at_ms: u32,
    /// What happens.
    pub what: Happening,
}

/// What can happen to the member `who` or the home `home`, both by number.
#[allow(missing_docs, reason = "the fields say what the variants do")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A computer sleeps for a while.
    Sleep { who: usize, for_ms: u32 },
    /// A computer moves to another home.
    Roam { who: usize, to: usize },
    /// A program is killed and started again later.
    Restart { who: usize, after_ms: u32 },
    /// A computer loses its power and gets it back later: nothing is saved, and nobody is told.
    PowerCut { who: usize, after_ms: u32 },
    /// A member leaves for good.
    Leave { who: usize },
    /// The first member removes another one for good, so that the party changes its secret.
    Kick { who: usize },
    /// Rendezvous server and relay are down for a while and lose their state.
    ServerRestart { after_ms: u32 },
    /// Rendezvous server and relay move to another address, where they start after a while without their state. Until then
    /// their names lead to where they were; there, connections are cut, or nothing answers any more.
    ServerMoves { after_ms: u32, silent: bool },
    /// The same as a restart for the relay alone.
    RelayRestart { after_ms: u32 },
    /// A home's router loses its mappings.
    RouterRestart { home: usize },
    /// The path between the networks of two members is cut for a while; both reach all others.
    Cut { who: usize, other: usize, for_ms: u32 },
    /// A member's clock is set.
    Clock { who: usize, skew_s: i32 },
    /// A member's state is copied to another computer, in the home `to`, and started there.
    Copy { who: usize, to: usize },
    /// A home gets another IPv6 prefix. Addresses with the former one are deprecated, and work for a while yet.
    Renumber { home: usize, works_ms: u32 },
}

impl Happening {
    /// Returns the member that it happens to.
    #[must_use]
    pub const fn who(&self) -> Option<usize> {
        match self {
            Self::Sleep { who, .. }
            | Self::Roam { who, .. }
            | Self::Restart { who, .. }
            | Self::PowerCut { who, .. }
            | Self::Leave { who }
            | Self::Kick { who }
            | Self::Copy { who, .. }
            | Self::Cut { who, .. }
            | Self::Clock { who, .. } => Some(*who),
            Self::ServerRestart { .. }
            | Self::ServerMoves { .. }
            | Self::RelayRestart { .. }
            | Self::RouterRestart { .. }
            | Self::Renumber { .. } => None,
        }
    }

    /// Returns how long it lasts, in milliseconds.
    #[must_use]
    pub const fn lasts_ms(&self) -> u32 {
        match self {
            Self::Sleep { for_ms, .. } | Self::Cut { for_ms, .. } => *for_ms,
            Self::Restart { after_ms, .. }
            | Self::PowerCut { after_ms, .. }
            | Self::ServerRestart { after_ms }
            | Self::ServerMoves { after_ms, .. }
            | Self::RelayRestart { after_ms } => *after_ms,
            Self::Renumber { works_ms, .. } => *works_ms,
            Self::Roam { .. }
            | Self::Leave { .. }
            | Self::Kick { .. }
            | Self::Copy { .. }
            | Self::RouterRestart { .. }
            | Self::Clock { .. } => 0,
        }
    }

    /// Returns the event in a party without the member `gone`, whose successors move up, or `None` if it happens to
    /// that member.
    #[must_use]
    pub fn without(mut self, gone: usize) -> Option<Self> {
        let people = match &mut self {
            Self::Sleep { who, .. }
            | Self::Roam { who, .. }
            | Self::Restart { who, .. }
            | Self::PowerCut { who, .. }
            | Self::Leave { who }
            | Self::Kick { who }
            | Self::Copy { who, .. }
            | Self::Clock { who, .. } => vec![who],
            Self::Cut { who, other, .. } => vec![who, other],
            Self::ServerRestart { .. }
            | Self::ServerMoves { .. }
            | Self::RelayRestart { .. }
            | Self::RouterRestart { .. }
            | Self::Renumber { .. } => Vec::new(),
        };
        for who in people {
            match gone.cmp(who) {
                Ordering::Less => *who -= 1,
                Ordering::Equal => return None,
                Ordering::Greater => {}
            }
        }
        Some(self)
    }
}

impl Gateway {
    /// Returns the rules of the NAT model.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            lifetime: Duration::from_secs(self.lifetime_s.into()),
            hairpin: self.hairpin,
            ports: (4096, u16::MAX),
            inbound_refreshes: true,
            ..Rules::new(self.mapping, self.filtering, self.allocation)
        }
    }
}

impl Home {
    /// Returns the line of the computers in it.
    #[must_use]
    pub fn line(&self) -> Line {
        Line {
            latency: Duration::from_millis(self.latency_ms.into()),
            jitter: Duration::from_millis(self.jitter_ms.into()),
            loss: f64::from(self.loss) / 1000.0,
            duplication: f64::from(self.twice) / 1000.0,
            rate: None,
        }
    }
}

/// The time after which a party has usually come to rest.
const REST_MS: u32 = 5_000;

/// What distinguishes the dice for virtual cards from those for everything else.
const CARDS_SEED: u64 = 0x6361_7264;

const EI: Mapping = Mapping::EndpointIndependent;
const PD: Filtering = Filtering::AddressAndPortDependent;

impl Scenario {
    /// Returns a random party. `helped` is true if there are homes with IPv6 and with routers that map ports.
    #[must_use]
    pub fn random(seed: u64, members: &RangeInclusive<usize>, helped: bool) -> Self {
        let mut dice = Dice::new(seed);
        let carriers = (0..2).map(|_| Gateway::random_carrier(&mut dice)).collect();
        let mut scenario = Self {
            seed,
            carriers,
            homes: Vec::new(),
            vpns: Vec::new(),
            members: Vec::new(),
            events: Vec::new(),
        };
        let (least, most) = members.clone().into_inner();
        // Most parties are small.
        let size = least + ((most - least + 1) as f64 * dice.unit().powi(8)) as usize;
        for who in 0..size {
            let shared = !scenario.homes.is_empty() && percent(&mut dice, 12);
            let home =
                if shared { dice.below(scenario.homes.len()) } else { scenario.move_in(&mut dice, helped) };
            let joins_ms = if who == 0 { 0 } else { 1_000 + dice.below(12_000) as u32 };
            let skew_s = if percent(&mut dice, 10) { dice.below(240) as i32 - 120 } else { 0 };
            scenario.members.push(Person { home, joins_ms, skew_s, cards: Vec::new() });
        }
        scenario.plug_in_cards();
        let events = if percent(&mut dice, 60) { 1 + dice.below(3) } else { 0 };
        let mut at_ms = 14_000;
        for _ in 0..events {
            at_ms += dice.below(8_000) as u32;
            let what = scenario.happening(&mut dice, helped);
            scenario.events.push(Event { at_ms, what });
        }
        if percent(&mut dice, 20) {
            scenario.cut_power(&mut dice);
        }
        scenario
    }

    /// Returns true if an event finds the party at rest and is over before anything else happens. Earlier events, joins
    /// included, must have ended some time ago.
    #[must_use]
    pub fn is_alone(&self, event: usize) -> bool {
        let end = |event: &Event| event.at_ms + event.what.lasts_ms();
        let Some((this, later)) = self.events.get(event..).and_then(<[Event]>::split_first) else {
            return false;
        };
        let joins = self.members.iter().map(|person| person.joins_ms);
        let before = self.events.iter().take(event).map(end).chain(joins);
        before.into_iter().all(|end| end + REST_MS <= this.at_ms)
            && later.iter().all(|other| other.at_ms > end(this))
    }

    /// Returns true if two members are connected by another VPN.
    #[must_use]
    pub fn share_vpn(&self, one: usize, other: usize) -> bool {
        let has = |who: usize, vpn: usize| {
            self.members.get(who).is_some_and(|person| person.cards.contains(&VirtualCard::Vpn(vpn)))
        };
        let up = (0..self.vpns.len()).filter(|vpn| self.vpns[*vpn].up);
        up.into_iter().any(|vpn| has(one, vpn) && has(other, vpn))
    }

    /// Gives some of the computers virtual cards. The rest of the party is the same as without them.
    fn plug_in_cards(&mut self) {
        let mut dice = Dice::new(self.seed ^ CARDS_SEED);
        if percent(&mut dice, 50) {
            self.vpns = (0..1 + dice.below(2)).map(|_| OtherVpn::random(&mut dice)).collect();
        }
        for person in &mut self.members {
            if percent(&mut dice, 70) {
                person.cards = VirtualCard::random(&mut dice, self.vpns.len());
            }
        }
    }

    fn move_in(&mut self, dice: &mut Dice, helped: bool) -> usize {
        self.homes.push(Home::random(dice, helped));
        self.homes.len() - 1
    }

    /// Returns where a copy of a member's state is started: mostly elsewhere, sometimes beside the first.
    fn second_place(&mut self, dice: &mut Dice, helped: bool, who: usize) -> usize {
        if percent(dice, 30) { self.members[who].home } else { self.move_in(dice, helped) }
    }

    fn happening(&mut self, dice: &mut Dice, helped: bool) -> Happening {
        let who = dice.below(self.members.len());
        let span = 500 + dice.below(15_000) as u32;
        match dice.below(100) {
            0..4 => Happening::Copy { who, to: self.second_place(dice, helped, who) },
            4..20 => Happening::Sleep { who, for_ms: span },
            20..42 => Happening::Roam { who, to: self.move_in(dice, helped) },
            42..46 => Happening::ServerMoves { after_ms: span, silent: percent(dice, 50) },
            46..57 => Happening::Restart { who, after_ms: span },
            57..64 if who > 0 => Happening::Leave { who },
            64..67 if who > 0 => Happening::Kick { who },
            57..72 => Happening::ServerRestart { after_ms: span },
            72..79 => Happening::RelayRestart { after_ms: span },
            79..88 => {
                let other = (who + 1 + dice.below(self.members.len() - 1)) % self.members.len();
                Happening::Cut { who, other, for_ms: span }
            }
            88..92 => Happening::RouterRestart { home: self.members[who].home },
            92..97 => self.renumber(dice, who),
            _ => Happening::Clock { who, skew_s: dice.below(7_200) as i32 - 3_600 },
        }
    }

    /// Cuts the power once or twice: at any moment, or just after something that a member must not forget.
    fn cut_power(&mut self, dice: &mut Dice) {
        for _ in 0..1 + dice.below(2) {
            let who = dice.below(self.members.len());
            let join = &self.members[dice.below(self.members.len())];
            let event = self.events.get(dice.below(self.events.len().max(1)));
            let at_ms = match (dice.below(3), event) {
                (0, Some(event)) => event.at_ms + dice.below(500) as u32,
                (0 | 1, _) => join.joins_ms + dice.below(1_500) as u32,
                _ => 200 + dice.below(30_000) as u32,
            };
            let after_ms = 200 + dice.below(5_000) as u32;
            self.events.push(Event { at_ms, what: Happening::PowerCut { who, after_ms } });
        }
        self.events.sort_by_key(|event| event.at_ms);
    }

    /// Gives a home with IPv6 another prefix; where there is none, a member's router restarts.
    fn renumber(&self, dice: &mut Dice, who: usize) -> Happening {
        let lived_in = self.members.iter().map(|person| person.home);
        let homes: Vec<usize> = lived_in.filter(|home| self.homes[*home].v6.is_some()).collect();
        let works_ms = if percent(dice, 50) { 0 } else { dice.below(20_000) as u32 };
        match homes.get(dice.below(homes.len().max(1))) {
            Some(home) => Happening::Renumber { home: *home, works_ms },
            None => Happening::RouterRestart { home: self.members[who].home },
        }
    }
}

fn percent(dice: &mut Dice, likelihood: usize) -> bool {
    dice.below(100) < likelihood
}

fn random_lifetime(dice: &mut Dice) -> u16 {
    [30, 60, 120, 300][dice.below(4)]
}

impl Gateway {
    fn random_carrier(dice: &mut Dice) -> Self {
        let lifetime_s = random_lifetime(dice).max(60);
        let (allocation, hairpin) = (Allocation::Random, percent(dice, 80));
        Self { mapping: EI, filtering: PD, allocation, lifetime_s, hairpin }
    }

    /// Returns a router's NAT as common as measured in the field, and whether a carrier's NAT is above it.
    fn random(dice: &mut Dice) -> (Self, bool) {
        let (mapping, filtering, allocation, carrier) = match dice.below(100) {
            0..15 => (EI, Filtering::EndpointIndependent, Allocation::Preserving, false),
            15..52 => (EI, Filtering::AddressDependent, Allocation::Preserving, false),
            52..72 => (EI, PD, Allocation::Preserving, false),
            72..84 => (Mapping::AddressAndPortDependent, PD, Allocation::Random, false),
            _ => (EI, PD, Allocation::Preserving, true),
        };
        let (lifetime_s, hairpin) = (random_lifetime(dice), percent(dice, 30));
        (Self { mapping, filtering, allocation, lifetime_s, hairpin }, carrier)
    }
}

impl Home {
    fn random(dice: &mut Dice, helped: bool) -> Self {
        let (gateway, carrier) = Gateway::random(dice);
        let public = percent(dice, 2);
        let filtering = match dice.below(100) {
            0..5 => Filtering::EndpointIndependent,
            5..10 => Filtering::AddressDependent,
            _ => PD,
        };
        let (opens_ports, v6) = (percent(dice, 40), percent(dice, 45).then_some(filtering));
        let bad_line = percent(dice, 30);
        Self {
            nat: (!public).then_some(gateway),
            carrier: (carrier && !public).then(|| dice.below(2)),
            opens_ports: opens_ports && helped && !public,
            v6: v6.filter(|_| helped && !public),
            udp: public || !percent(dice, 1),
            latency_ms: (3.0 + 57.0 * dice.unit().powi(2)) as u16,
            jitter_ms: if bad_line { dice.below(30) as u16 } else { dice.below(4) as u16 },
            loss: if bad_line { dice.below(40) as u16 } else { 0 },
            twice: if bad_line { dice.below(10) as u16 } else { 0 },
        }
    }
}
