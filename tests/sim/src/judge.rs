//! What a party at rest must look like, derived from its members' networks and not from what the nodes do.

use std::fmt;

use partyline_model::{Allocation, Filtering, Mapping, PathKind};
use partyline_nat::{Rules, oracle};

use crate::scenario::{Home, Scenario};

/// The path that two members must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// A path on the LAN that they share.
    Lan,
    /// A direct path: packets pass once both sides send to each other's reflexive address.
    Direct,
    /// A direct path that takes longer, since ports have to be predicted or tried.
    Hard,
    /// A relayed path, since no direct path is possible.
    Relay(Obstacle),
}

/// Why two members cannot be connected directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// One of their homes blocks UDP.
    NoUdp,
    /// They are behind the same carrier's NAT, which does not hairpin.
    NoHairpin,
    /// The behavior of their NATs.
    Nat(oracle::Obstacle),
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The first does not show the second as connected.
    Missing(usize, usize),
    /// Connected, but packets from the first do not reach the second.
    Mute(usize, usize),
    /// A packet from the first reached the second twice.
    Twice(usize, usize),
    /// The pair has another path than this one.
    Path(usize, usize, Route, Option<PathKind>),
    /// The first still lists the second, which has left.
    Ghost(usize, usize),
    /// So many computers go on as this member, whose state was copied.
    Copies(usize, usize),
    /// A panic.
    Panic(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUdp => f.write_str("One of the two networks blocks UDP."),
            Self::NoHairpin => f.write_str("Both are behind the same carrier's NAT, which does not hairpin."),
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
            Self::Ghost(a, b) => write!(f, "{a} still lists {b}, which has left"),
            Self::Copies(a, count) => write!(f, "{count} computers go on as {a}, whose state was copied"),
            Self::Panic(what) => write!(f, "panic: {what}"),
        }
    }
}

/// Returns the path that two members in these homes must have. Two members in a home without a NAT share no LAN.
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
        // A port that a router maps is at an address of the carrier's network, where both are.
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

/// Returns true if a pair may end with a path of this kind. Another VPN is never one: where nothing is direct, there is the
/// relay.
#[must_use]
pub fn allows(route: Route, kind: PathKind) -> bool {
    match route {
        Route::Lan => kind == PathKind::Lan,
        Route::Direct | Route::Hard => !is_relayed(kind),
        Route::Relay(_) => matches!(kind, PathKind::Relay | PathKind::MemberRelay),
    }
}

/// Returns true if packets are relayed.
#[must_use]
pub const fn is_relayed(kind: PathKind) -> bool {
    matches!(kind, PathKind::Relay | PathKind::MemberRelay | PathKind::Overlay)
}

fn steady(rules: &Rules) -> bool {
    rules.mapping == Mapping::EndpointIndependent
}

/// Returns true if any host can send to its computers.
const fn is_open(home: &Home) -> bool {
    home.nat.is_none() || home.opens_ports && home.carrier.is_none()
}

/// Returns the combined behavior of a home's NAT and the carrier's above it.
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
