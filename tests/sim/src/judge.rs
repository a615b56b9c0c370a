//! What must be so when a party has come to rest: derived from where everybody is, not from what the nodes do.

use std::fmt;

use partyline_model::{Allocation, Filtering, Mapping, PathKind};
use partyline_nat::{Rules, oracle};

use crate::scenario::{Home, Scenario};

/// How two members must be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// They are on one LAN and must use it.
    Lan,
    /// Packets get through wherever both sides send to where the other is seen: directly.
    Direct,
    /// Ports have to be predicted or tried: directly, though it may take a while.
    Hard,
    /// No strategy can give a direct path.
    Relay(Obstacle),
}

/// Why two members cannot be connected directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// UDP does not get out of one of their homes.
    NoUdp,
    /// They are behind one carrier's NAT, which turns no packets around.
    NoHairpin,
    /// What their NATs do.
    Nat(oracle::Obstacle),
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The first does not have the second as connected.
    Missing(usize, usize),
    /// Connected, but packets from the first do not reach the second.
    Mute(usize, usize),
    /// A packet from the first reached the second twice.
    Twice(usize, usize),
    /// The pair must have such a path, but has another.
    Path(usize, usize, Route, Option<PathKind>),
    /// The first still lists the second, who left.
    Ghost(usize, usize),
    /// The program gave up.
    Panic(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUdp => f.write_str("No UDP gets out of one of the two networks."),
            Self::NoHairpin => {
                f.write_str("Both are behind one carrier's NAT, which turns no packets around.")
            }
            Self::Nat(obstacle) => obstacle.fmt(f),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(a, b) => write!(f, "{a} is not connected to {b}"),
            Self::Mute(a, b) => write!(f, "packets from {a} do not reach {b}"),
            Self::Twice(a, b) => write!(f, "a packet from {a} reached {b} twice"),
            Self::Path(a, b, route, kind) => write!(f, "{a} has {b} by {kind:?}, though it is {route:?}"),
            Self::Ghost(a, b) => write!(f, "{a} still lists {b}, who left"),
            Self::Panic(what) => write!(f, "panic: {what}"),
        }
    }
}

/// How two members must be connected who are in these homes. Two in one home without a NAT are neighbours by name only.
#[must_use]
pub fn route(scenario: &Scenario, one: usize, other: usize) -> Route {
    let (a, b) = (&scenario.homes[one], &scenario.homes[other]);
    if one == other && a.nat.is_some() {
        return Route::Lan;
    }
    if !a.udp || !b.udp {
        return Route::Relay(Obstacle::NoUdp);
    }
    if a.v6.is_some() && b.v6.is_some() || is_open(a) || is_open(b) {
        return Route::Direct;
    }
    if let Some(carrier) = a.carrier.filter(|_| a.carrier == b.carrier) {
        // A port that a router opens is at an address of the carrier's own network, where both are.
        if a.opens_ports || b.opens_ports {
            return Route::Direct;
        }
        if !scenario.carriers[carrier].hairpin {
            return Route::Relay(Obstacle::NoHairpin);
        }
    }
    let (a, b) = (whole(scenario, a), whole(scenario, b));
    match (steady(&a), steady(&b)) {
        (true, true) => Route::Direct,
        (true, false) if a.filtering != Filtering::AddressAndPortDependent => Route::Direct,
        (false, true) if b.filtering != Filtering::AddressAndPortDependent => Route::Direct,
        _ => match oracle::direct(&a, &b) {
            Ok(_) => Route::Hard,
            Err(obstacle) => Route::Relay(Obstacle::Nat(obstacle)),
        },
    }
}

/// Whether a path of this kind is one that the pair may end with.
#[must_use]
pub fn allows(route: Route, kind: PathKind) -> bool {
    match route {
        Route::Lan => kind == PathKind::Lan,
        Route::Direct | Route::Hard => !is_relayed(kind),
        Route::Relay(_) => is_relayed(kind),
    }
}

/// Whether packets go by somebody else.
#[must_use]
pub const fn is_relayed(kind: PathKind) -> bool {
    matches!(kind, PathKind::Relay | PathKind::MemberRelay)
}

fn steady(rules: &Rules) -> bool {
    rules.mapping == Mapping::EndpointIndependent
}

/// Whether anybody can send to it.
const fn is_open(home: &Home) -> bool {
    home.nat.is_none() || home.opens_ports && home.carrier.is_none()
}

/// What a home's NAT and the carrier's above it do together.
fn whole(scenario: &Scenario, home: &Home) -> Rules {
    let inner = home.nat.expect("homes without are open").rules();
    let Some(carrier) = home.carrier else { return inner };
    let outer = scenario.carriers[carrier].rules();
    let allocation =
        if outer.allocation == Allocation::Preserving { inner.allocation } else { outer.allocation };
    Rules {
        mapping: inner.mapping.max(outer.mapping),
        filtering: inner.filtering.max(outer.filtering),
        allocation,
        ..outer
    }
}
