//! What observations prove (RFC 5780, sections 4.3 and 4.4; the three policies are RFC 4787's).
//!
//! These functions know nothing of time-outs or servers. They are given what was seen and name a policy only if all
//! of it agrees and no other policy explains it; otherwise they say `None`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_model::{Allocation, Mapping};

/// Where one destination saw one of our sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) destination: SocketAddr,
    pub(crate) reflexive: SocketAddr,
    /// The first transmission and the answer: the mapping was made between them.
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// What was seen of one socket, and the port it is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    pub(crate) local_port: u16,
    /// Whether every mapping of the socket is among the observations: it had sent nothing before, and everybody it
    /// sent to has answered. A preserved port may otherwise have gone to somebody we do not hear.
    pub(crate) complete: bool,
    /// Whether the socket was asked from when no other of ours was, so that its mapping's place in the order is known.
    pub(crate) in_turn: bool,
    pub(crate) observations: Vec<Observation>,
}

/// Steps up to here may be a counter's; larger ones than `SCATTERED` in both directions cannot be.
const LARGEST_STEP: i32 = 64;
const SCATTERED: i32 = 128;
/// Others cannot make so many mappings between two of ours, again and again: all ports would be used up in moments.
const LEAP: i32 = 2048;
/// Allocations to see before anything is said of their order.
const FEWEST_ALLOCATIONS: usize = 3;

/// The mapping policy of a socket seen by at least two addresses. Two addresses suffice to show independence, since
/// every policy that is not independent tells addresses apart; which of the two dependent ones it is, two ports at one
/// address tell.
pub(crate) fn mapping(seen: &[Observation]) -> Option<Mapping> {
    let pairs = || seen.iter().enumerate().flat_map(|(i, a)| seen[i + 1..].iter().map(move |b| (a, b)));
    let agrees = |same: fn(SocketAddr, SocketAddr) -> bool| {
        pairs().all(|(a, b)| (a.reflexive == b.reflexive) == same(a.destination, b.destination))
    };
    let addresses: BTreeSet<IpAddr> = seen.iter().map(|o| o.destination.ip()).collect();
    let neighbours = pairs().any(|(a, b)| a.destination.ip() == b.destination.ip());
    if addresses.len() < 2 {
        return None;
    }
    if agrees(|_, _| true) {
        return Some(Mapping::EndpointIndependent);
    }
    if neighbours && agrees(|a, b| a.ip() == b.ip()) {
        return Some(Mapping::AddressDependent);
    }
    (neighbours && agrees(|_, _| false)).then_some(Mapping::AddressAndPortDependent)
}

/// The allocation policy, from one or more sockets of this computer.
pub(crate) fn allocation(sockets: &[Samples]) -> Option<Allocation> {
    let sockets: Vec<_> = sockets.iter().filter(|s| !s.observations.is_empty()).collect();
    let preserved = |s: &&&Samples| s.observations.iter().any(|o| o.reflexive.port() == s.local_port);
    let preserving = sockets.iter().filter(preserved).count();
    if preserving > 0 {
        // A NAT that preserves ports gives the first mapping of each socket its own.
        return (preserving == sockets.len()).then_some(Allocation::Preserving);
    }
    let whole: Vec<_> = sockets.into_iter().filter(|s| s.complete).collect();
    let in_turn: Vec<_> = whole.iter().copied().filter(|s| s.in_turn).collect();
    let (all, in_turn) = (distinct_mappings(&whole), distinct_mappings(&in_turn));
    if all.windows(2).any(|w| w[0].reflexive.ip() != w[1].reflexive.ip()) {
        return None;
    }
    // All of them are in turn where there is one socket only.
    let delta =
        contiguous(&all).or_else(|| contiguous(&in_turn).filter(|delta| neighbours(&all, &in_turn, *delta)));
    delta
        .map(|delta| Allocation::Contiguous { delta })
        .or_else(|| is_random(&all).then_some(Allocation::Random))
}

/// The first observation of each mapping, in the order in which the mappings were made.
fn distinct_mappings(sockets: &[&Samples]) -> Vec<Observation> {
    let mut all: Vec<_> = sockets.iter().flat_map(|s| s.observations.iter().copied()).collect();
    all.sort_by_key(|o| o.asked);
    let mut known = BTreeSet::new();
    all.retain(|o| known.insert(o.reflexive));
    all
}

fn steps(made: &[Observation]) -> Vec<i32> {
    made.windows(2).map(|w| i32::from(w[1].reflexive.port()) - i32::from(w[0].reflexive.port())).collect()
}

/// The step of a counter that made these mappings, one after the other.
fn contiguous(made: &[Observation]) -> Option<i16> {
    let steps = steps(made);
    let in_turn = made.windows(2).all(|w| w[0].answered <= w[1].asked);
    let even = steps.iter().all(|step| *step == steps[0]);
    (made.len() >= FEWEST_ALLOCATIONS && in_turn && even && steps[0].abs() <= LARGEST_STEP)
        .then(|| i16::try_from(steps[0]).ok())
        .flatten()
}

/// Whether two of the mappings that were made side by side, at one moment, are a step apart. Mappings that were made
/// one after the other may all have let the same number of others' in between.
fn neighbours(all: &[Observation], in_turn: &[Observation], delta: i16) -> bool {
    let mut ports: Vec<u16> =
        all.iter().filter(|o| !in_turn.contains(o)).map(|o| o.reflexive.port()).collect();
    ports.sort_unstable();
    ports.len() < 2 || ports.windows(2).any(|w| w[1] - w[0] == delta.unsigned_abs())
}

/// Whether no counter can have made these mappings. One that others use too makes large steps now and then, but one
/// way, and goes round once at most.
fn is_random(made: &[Observation]) -> bool {
    let steps = steps(made);
    let scattered = steps.iter().filter(|step| step.abs() > SCATTERED).count();
    let both_ways = steps.iter().any(|step| *step > SCATTERED) && steps.iter().any(|step| *step < -SCATTERED);
    let even = steps.windows(2).all(|w| w[0] == w[1]);
    let leaps = steps.iter().filter(|step| step.abs() > LEAP).count();
    let anywhere = both_ways || (leaps >= 2 && !even);
    made.len() >= FEWEST_ALLOCATIONS && scattered * 4 >= steps.len() * 3 && anywhere
}

#[cfg(test)]
mod tests;
