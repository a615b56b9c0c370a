//! A party as it might happen: who lives where, who comes when, and what goes wrong. Made from a seed, and written down
//! so that it can be played again after the dice have changed.

use std::{cmp::Ordering, ops::RangeInclusive, time::Duration};

use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::Rules;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::Line;

/// A party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Chooses everything that is left to chance while it is played.
    pub seed: u64,
    /// NATs above homes.
    pub carriers: Vec<Gateway>,
    /// Where computers can be.
    pub homes: Vec<Home>,
    /// Who takes part; the first makes the party.
    pub members: Vec<Person>,
    /// What happens, in order of time.
    pub events: Vec<Event>,
}

/// A NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Which destinations share an external port.
    pub mapping: Mapping,
    /// Whose packets a mapping lets in.
    pub filtering: Filtering,
    /// How an external port is chosen.
    pub allocation: Allocation,
    /// How long an idle mapping lives, in seconds.
    pub lifetime_s: u16,
    /// Whether inside computers meet at the outside address.
    pub hairpin: bool,
}

/// A home, or whatever else a computer can be in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Home {
    /// Its router's NAT; `None` where computers have public addresses.
    pub nat: Option<Gateway>,
    /// The carrier's NAT above it, by its place in the list.
    pub carrier: Option<usize>,
    /// Whether the router opens ports on request.
    pub opens_ports: bool,
    /// Whether there is IPv6, and whose packets its firewall lets in.
    pub v6: Option<Filtering>,
    /// Whether UDP gets out.
    pub udp: bool,
    /// One way to the middle of the internet, in milliseconds.
    pub latency_ms: u16,
    /// Up to so much more.
    pub jitter_ms: u16,
    /// Packets lost of a thousand.
    pub loss: u16,
    /// Packets of a thousand that arrive twice.
    pub twice: u16,
}

/// Somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Where their computer is at first.
    pub home: usize,
    /// When they join.
    pub joins_ms: u32,
    /// How far their clock is ahead, in seconds.
    pub skew_s: i32,
}

/// Something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: u32,
    /// What.
    pub what: Happening,
}

/// What can happen: to `who`, a member's number, or to `home`, a home's.
#[allow(missing_docs, reason = "the fields say what the variants do")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A computer sleeps for a while.
    Sleep { who: usize, for_ms: u32 },
    /// A computer is carried to another home.
    Roam { who: usize, to: usize },
    /// A program is killed, and started again later.
    Restart { who: usize, after_ms: u32 },
    /// A member leaves for good.
    Leave { who: usize },
    /// Rendezvous and relay are gone for a while, and have forgotten everything.
    ServerRestart { after_ms: u32 },
    /// The same for the relay alone.
    RelayRestart { after_ms: u32 },
    /// A home's router forgets all mappings.
    RouterRestart { home: usize },
    /// The way between the networks of two members is cut for a while; both reach everybody else.
    Cut { who: usize, other: usize, for_ms: u32 },
    /// Somebody's clock is set.
    Clock { who: usize, skew_s: i32 },
}

impl Happening {
    /// Whom it happens to.
    #[must_use]
    pub const fn who(&self) -> Option<usize> {
        match self {
            Self::Sleep { who, .. }
            | Self::Roam { who, .. }
            | Self::Restart { who, .. }
            | Self::Leave { who }
            | Self::Cut { who, .. }
            | Self::Clock { who, .. } => Some(*who),
            Self::ServerRestart { .. } | Self::RelayRestart { .. } | Self::RouterRestart { .. } => None,
        }
    }

    /// How long it lasts, in milliseconds.
    #[must_use]
    pub const fn lasts_ms(&self) -> u32 {
        match self {
            Self::Sleep { for_ms, .. } | Self::Cut { for_ms, .. } => *for_ms,
            Self::Restart { after_ms, .. }
            | Self::ServerRestart { after_ms }
            | Self::RelayRestart { after_ms } => *after_ms,
            Self::Roam { .. } | Self::Leave { .. } | Self::RouterRestart { .. } | Self::Clock { .. } => 0,
        }
    }

    /// The same where a member is missing and those after it have moved up; `None` if it happens to that member.
    #[must_use]
    pub fn without(mut self, gone: usize) -> Option<Self> {
        let people = match &mut self {
            Self::Sleep { who, .. }
            | Self::Roam { who, .. }
            | Self::Restart { who, .. }
            | Self::Leave { who }
            | Self::Clock { who, .. } => vec![who],
            Self::Cut { who, other, .. } => vec![who, other],
            Self::ServerRestart { .. } | Self::RelayRestart { .. } | Self::RouterRestart { .. } => Vec::new(),
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
    /// What the model is told.
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
    /// The line of a computer in it.
    #[must_use]
    pub fn line(&self) -> Line {
        Line {
            latency: Duration::from_millis(self.latency_ms.into()),
            jitter: Duration::from_millis(self.jitter_ms.into()),
            loss: f64::from(self.loss) / 1000.0,
            twice: f64::from(self.twice) / 1000.0,
        }
    }
}

/// After so long a party has come to rest, as a rule.
const REST_MS: u32 = 5_000;

const EI: Mapping = Mapping::EndpointIndependent;
const PD: Filtering = Filtering::AddressAndPortDependent;

struct Dice(ChaCha20Rng);

impl Scenario {
    /// A random party of so many members. `helped` says whether there are homes with IPv6 and with routers that open
    /// ports.
    #[must_use]
    pub fn random(seed: u64, members: &RangeInclusive<usize>, helped: bool) -> Self {
        let mut dice = Dice(ChaCha20Rng::seed_from_u64(seed));
        let carriers = (0..2).map(|_| dice.carrier()).collect();
        let mut scenario =
            Self { seed, carriers, homes: Vec::new(), members: Vec::new(), events: Vec::new() };
        let (least, most) = members.clone().into_inner();
        // Most parties are small.
        let size = least + ((most - least + 1) as f64 * dice.unit().powi(8)) as usize;
        for who in 0..size {
            let shared = !scenario.homes.is_empty() && dice.percent(12);
            let home =
                if shared { dice.below(scenario.homes.len()) } else { scenario.move_in(&mut dice, helped) };
            let joins_ms = if who == 0 { 0 } else { 1_000 + dice.below(12_000) as u32 };
            let skew_s = if dice.percent(10) { dice.below(240) as i32 - 120 } else { 0 };
            scenario.members.push(Person { home, joins_ms, skew_s });
        }
        let events = if dice.percent(60) { 1 + dice.below(3) } else { 0 };
        let mut at_ms = 14_000;
        for _ in 0..events {
            at_ms += dice.below(8_000) as u32;
            let what = scenario.happening(&mut dice, helped);
            scenario.events.push(Event { at_ms, what });
        }
        scenario
    }

    /// Whether an event finds a party at rest, and is over before anything else happens. Whatever was before, joins too,
    /// must have ended some time ago.
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

    fn move_in(&mut self, dice: &mut Dice, helped: bool) -> usize {
        self.homes.push(dice.home(helped));
        self.homes.len() - 1
    }

    fn happening(&mut self, dice: &mut Dice, helped: bool) -> Happening {
        let who = dice.below(self.members.len());
        let span = 500 + dice.below(15_000) as u32;
        match dice.below(100) {
            0..20 => Happening::Sleep { who, for_ms: span },
            20..45 => Happening::Roam { who, to: self.move_in(dice, helped) },
            45..60 => Happening::Restart { who, after_ms: span },
            60..70 if who > 0 => Happening::Leave { who },
            60..75 => Happening::ServerRestart { after_ms: span },
            75..83 => Happening::RelayRestart { after_ms: span },
            83..93 => {
                let other = (who + 1 + dice.below(self.members.len() - 1)) % self.members.len();
                Happening::Cut { who, other, for_ms: span }
            }
            93..97 => Happening::RouterRestart { home: self.members[who].home },
            _ => Happening::Clock { who, skew_s: dice.below(7_200) as i32 - 3_600 },
        }
    }
}

impl Dice {
    fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    fn percent(&mut self, likelihood: usize) -> bool {
        self.below(100) < likelihood
    }

    fn lifetime(&mut self) -> u16 {
        [30, 60, 120, 300][self.below(4)]
    }

    fn carrier(&mut self) -> Gateway {
        let lifetime_s = self.lifetime().max(60);
        let allocation = Allocation::Random;
        Gateway { mapping: EI, filtering: PD, allocation, lifetime_s, hairpin: self.percent(80) }
    }

    /// By how common they are: measurements of home routers and carriers.
    fn gateway(&mut self) -> (Gateway, bool) {
        let (mapping, filtering, allocation, carrier) = match self.below(100) {
            0..15 => (EI, Filtering::EndpointIndependent, Allocation::Preserving, false),
            15..52 => (EI, Filtering::AddressDependent, Allocation::Preserving, false),
            52..72 => (EI, PD, Allocation::Preserving, false),
            72..84 => (Mapping::AddressAndPortDependent, PD, Allocation::Random, false),
            _ => (EI, PD, Allocation::Preserving, true),
        };
        let (lifetime_s, hairpin) = (self.lifetime(), self.percent(30));
        (Gateway { mapping, filtering, allocation, lifetime_s, hairpin }, carrier)
    }

    fn home(&mut self, helped: bool) -> Home {
        let (gateway, carrier) = self.gateway();
        let public = self.percent(2);
        let filtering = match self.below(100) {
            0..5 => Filtering::EndpointIndependent,
            5..10 => Filtering::AddressDependent,
            _ => PD,
        };
        let (opens_ports, v6) = (self.percent(40), self.percent(45).then_some(filtering));
        let bad_line = self.percent(30);
        Home {
            nat: (!public).then_some(gateway),
            carrier: (carrier && !public).then(|| self.below(2)),
            opens_ports: opens_ports && helped && !public,
            v6: v6.filter(|_| helped && !public),
            udp: public || !self.percent(1),
            latency_ms: (3.0 + 57.0 * self.unit().powi(2)) as u16,
            jitter_ms: if bad_line { self.below(30) as u16 } else { self.below(4) as u16 },
            loss: if bad_line { self.below(40) as u16 } else { 0 },
            twice: if bad_line { self.below(10) as u16 } else { 0 },
        }
    }
}
