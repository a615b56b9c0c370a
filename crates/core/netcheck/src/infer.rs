//! What observations prove (RFC 5780, sections 4.3 and 4.4; the policies are those of RFC 4787 and NATCracker).
//!
//! These functions know nothing of timeouts and servers. They name a policy only if all observations agree with it and
//! no other policy explains them; otherwise they return `None`.

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr};

use partyline_model::{Allocation, Mapping};

use crate::context::Observation;

/// The observations of one socket, and the port it is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    pub(crate) local_port: u16,
    /// True if every mapping of the socket is among the observations: it had sent nothing before, and every destination
    /// has responded. A preserved port may otherwise have gone to a destination that was not heard of.
    pub(crate) complete: bool,
    /// True if the socket sent while no other one made mappings, so that the place of its mapping in the order is known.
    pub(crate) in_turn: bool,
    pub(crate) observations: Vec<Observation>,
}

/// The largest step between two mappings that may be a counter's.
const MAX_STEP: i32 = 64;
/// A counter makes no larger steps than this in both directions.
const SCATTER_THRESHOLD: i32 = 128;
/// Others cannot make so many mappings between two of this computer's, again and again: all ports would be used up in
/// moments.
const LEAP_THRESHOLD: i32 = 2048;
/// Allocations to see before anything is said of their order.
const MIN_ALLOCATIONS: usize = 3;

/// Returns the mapping policy of a socket that was seen by at least two addresses. Those suffice to show independence,
/// since every other policy tells addresses apart; which of the two dependent ones it is, two ports at one address tell.
pub(crate) fn mapping(seen: &[Observation]) -> Option<Mapping> {
    let pairs = || seen.iter().enumerate().flat_map(|(i, a)| seen[i + 1..].iter().map(move |b| (a, b)));
    let agrees = |same: fn(SocketAddr, SocketAddr) -> bool| {
        pairs().all(|(a, b)| (a.reflexive == b.reflexive) == same(a.destination, b.destination))
    };
    let addresses: BTreeSet<IpAddr> = seen.iter().map(|o| o.destination.ip()).collect();
    let two_ports = pairs().any(|(a, b)| a.destination.ip() == b.destination.ip());
    if addresses.len() < 2 {
        return None;
    }
    if agrees(|_, _| true) {
        return Some(Mapping::EndpointIndependent);
    }
    if two_ports && agrees(|a, b| a.ip() == b.ip()) {
        return Some(Mapping::AddressDependent);
    }
    (two_ports && agrees(|_, _| false)).then_some(Mapping::AddressAndPortDependent)
}

/// Returns the allocation policy from the observations of one or more sockets of this computer.
pub(crate) fn allocation(sockets: &[Samples]) -> Option<Allocation> {
    let sockets: Vec<_> = sockets.iter().filter(|s| !s.observations.is_empty()).collect();
    let preserved = |s: &&&Samples| s.observations.iter().any(|o| o.reflexive.port() == s.local_port);
    let preserving = sockets.iter().filter(preserved).count();
    if preserving > 0 {
        // A NAT that preserves ports gives the first mapping of each socket the socket's own port.
        return (preserving == sockets.len()).then_some(Allocation::Preserving);
    }
    let complete: Vec<_> = sockets.into_iter().filter(|s| s.complete).collect();
    let in_turn: Vec<_> = complete.iter().copied().filter(|s| s.in_turn).collect();
    let (all, in_turn) = (distinct_mappings(&complete), distinct_mappings(&in_turn));
    if all.windows(2).any(|w| w[0].reflexive.ip() != w[1].reflexive.ip()) {
        return None;
    }
    // With a single socket all of its mappings are in turn.
    let delta = contiguous_step(&all)
        .or_else(|| contiguous_step(&in_turn).filter(|delta| has_adjacent(&all, &in_turn, *delta)));
    delta
        .map(|delta| Allocation::Contiguous { delta })
        .or_else(|| is_random(&all).then_some(Allocation::Random))
}

/// Returns the first observation of each mapping, in the order in which the mappings were made.
fn distinct_mappings(sockets: &[&Samples]) -> Vec<Observation> {
    let mut all: Vec<_> = sockets.iter().flat_map(|s| s.observations.iter().copied()).collect();
    all.sort_by_key(|o| o.sent_at);
    let mut known = BTreeSet::new();
    all.retain(|o| known.insert(o.reflexive));
    all
}

fn steps(made: &[Observation]) -> Vec<i32> {
    made.windows(2).map(|w| i32::from(w[1].reflexive.port()) - i32::from(w[0].reflexive.port())).collect()
}

/// Returns the step of a counter that made these mappings, one after the other.
fn contiguous_step(made: &[Observation]) -> Option<i16> {
    let steps = steps(made);
    let in_turn = made.windows(2).all(|w| w[0].received_at <= w[1].sent_at);
    let even = steps.iter().all(|step| *step == steps[0]);
    (made.len() >= MIN_ALLOCATIONS && in_turn && even && steps[0].abs() <= MAX_STEP)
        .then(|| i16::try_from(steps[0]).ok())
        .flatten()
}

/// Returns true if two of the mappings that were made side by side, at one moment, are a step apart. Mappings that were
/// made one after the other may all have let the same number of others' in between.
fn has_adjacent(all: &[Observation], in_turn: &[Observation], delta: i16) -> bool {
    let mut ports: Vec<u16> =
        all.iter().filter(|o| !in_turn.contains(o)).map(|o| o.reflexive.port()).collect();
    ports.sort_unstable();
    ports.len() < 2 || ports.windows(2).any(|w| w[1] - w[0] == delta.unsigned_abs())
}

/// Returns true if no counter can have made these mappings. One that others use too makes large steps now and then, but
/// in one direction, and wraps around once at most.
fn is_random(made: &[Observation]) -> bool {
    let steps = steps(made);
    let scattered = steps.iter().filter(|step| step.abs() > SCATTER_THRESHOLD).count();
    let both_ways = steps.iter().any(|step| *step > SCATTER_THRESHOLD)
        && steps.iter().any(|step| *step < -SCATTER_THRESHOLD);
    let even = steps.windows(2).all(|w| w[0] == w[1]);
    let leaps = steps.iter().filter(|step| step.abs() > LEAP_THRESHOLD).count();
    let anywhere = both_ways || (leaps >= 2 && !even);
    made.len() >= MIN_ALLOCATIONS && scattered * 4 >= steps.len() * 3 && anywhere
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_nat::start;

    /// What destinations `(last byte of the address, port)` saw, asked one after the other.
    fn seen(list: &[(u8, u16, u16)]) -> Vec<Observation> {
        let at = |i: usize, ms: u64| start() + Duration::from_millis(100 * i as u64 + ms);
        let observation = |(i, &(host, port, outside)): (usize, &(u8, u16, u16))| Observation {
            destination: ([11, 0, 1, host], port).into(),
            reflexive: ([11, 0, 0, 1], outside).into(),
            sent_at: at(i, 0),
            received_at: at(i, 40),
        };
        list.iter().enumerate().map(observation).collect()
    }

    fn samples(list: &[(u8, u16, u16)]) -> Samples {
        Samples { local_port: 5000, complete: true, in_turn: false, observations: seen(list) }
    }

    #[test]
    fn mapping_needs_two_addresses() {
        assert_eq!(mapping(&seen(&[(1, 3478, 9)])), None);
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 9)])), None);
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3478, 9)])), Some(Mapping::EndpointIndependent));
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3478, 10)])), None);
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3479, 9)])), Some(Mapping::EndpointIndependent));
    }

    #[test]
    fn two_ports_at_one_address_tell_the_dependent_policies_apart() {
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3479, 10)])), None);
        let by_address = [(1, 3478, 9), (1, 3479, 9), (2, 3479, 10)];
        assert_eq!(mapping(&seen(&by_address)), Some(Mapping::AddressDependent));
        let by_port = [(1, 3478, 9), (1, 3479, 10), (2, 3479, 11)];
        assert_eq!(mapping(&seen(&by_port)), Some(Mapping::AddressAndPortDependent));
    }

    #[test]
    fn observations_that_fit_no_policy_leave_mapping_unknown() {
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 10), (2, 3478, 9), (2, 3479, 10)])), None);
        assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 9), (2, 3478, 10), (2, 3479, 11)])), None);
    }

    #[test]
    fn order_of_allocations_needs_three_of_them() {
        assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 702)])]), None);
        let counting = samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 704)]);
        assert_eq!(allocation(std::slice::from_ref(&counting)), Some(Allocation::Contiguous { delta: 2 }));
        let down = samples(&[(1, 1, 700), (1, 2, 697), (2, 1, 694)]);
        assert_eq!(allocation(&[down]), Some(Allocation::Contiguous { delta: -3 }));
        let anywhere = samples(&[(1, 1, 700), (1, 2, 60_000), (2, 1, 9000)]);
        assert_eq!(allocation(&[anywhere]), Some(Allocation::Random));
        let incomplete = Samples { complete: false, ..counting };
        assert_eq!(allocation(&[incomplete]), None, "a mapping may be missing");
    }

    #[test]
    fn counter_that_others_use_too_is_neither_contiguous_nor_random() {
        assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 708), (2, 2, 709)])]), None);
        assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 900), (2, 1, 1400), (2, 2, 1800)])]), None);
    }

    #[test]
    fn leaps_are_random_even_in_one_direction() {
        let leaping = [(1, 1, 2000), (1, 2, 9000), (2, 1, 30_000), (2, 2, 31_000)];
        assert_eq!(allocation(&[samples(&leaping)]), Some(Allocation::Random));
        let even = [(1, 1, 700), (1, 2, 5700), (2, 1, 10_700), (2, 2, 15_700)];
        assert_eq!(allocation(&[samples(&even)]), None);
    }

    #[test]
    fn overlapping_requests_have_no_order() {
        let mut counting = samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 704)]);
        counting.observations[0].received_at += Duration::from_millis(80);
        assert_eq!(allocation(&[counting]), None);
    }

    #[test]
    fn allocation_preserves_ports_only_if_every_socket_keeps_its_own() {
        let keeps = samples(&[(1, 1, 5000), (1, 2, 5001), (2, 1, 5002)]);
        assert_eq!(allocation(std::slice::from_ref(&keeps)), Some(Allocation::Preserving));
        assert_eq!(allocation(&[keeps, samples(&[(1, 1, 800)])]), None);
    }
}
