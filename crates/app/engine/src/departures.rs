//! Whether packets for an address may leave, and from which of this computer's addresses.
//!
//! Nothing that this engine sends may enter a party: the party carries what its paths carry, and a path through the party
//! would lead through itself. The system may want it to, because a route leads there, or because the source address that
//! it prefers is the party's own (RFC 6724 takes any address that is not deprecated before one that is). So the system is
//! asked once for each destination, and again after every change of the network.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use partyline_platform::{LocalAddress, OwnDevices};

/// Answers are asked for again after this time, since not every change of the system's rules is reported.
const MAX_AGE: Duration = Duration::from_secs(10);
/// The most destinations remembered.
const MAX_KNOWN: usize = 4096;

/// How packets for a destination leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// As the system chooses.
    Free,
    /// From this address, since the system would choose one of a party.
    From(IpAddr),
    /// Not at all: they would enter a party.
    Refused,
}

/// What the system would do with packets, as far as parties are concerned.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    known: HashMap<IpAddr, Departure>,
    addresses: Vec<LocalAddress>,
    /// `None` until they are asked for.
    own: Option<OwnDevices>,
    began: Option<Instant>,
    refused: u64,
}

impl Departures {
    /// Takes this computer's addresses after a change.
    pub(crate) fn set_addresses(&mut self, addresses: &[LocalAddress]) {
        self.addresses = addresses.to_vec();
        self.forget();
    }

    /// Forgets all answers: devices or routes are others.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        (self.own, self.began) = (None, None);
    }

    /// Forgets all answers if they are old.
    pub(crate) fn expire(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now >= began + MAX_AGE {
            self.forget();
        }
    }

    /// Returns how packets for an address leave, and counts those that may not.
    pub(crate) fn of(&mut self, destination: IpAddr) -> Departure {
        let departure = match self.known.get(&destination) {
            Some(known) => *known,
            None => self.ask(destination),
        };
        if departure == Departure::Refused {
            self.refused += 1;
        }
        departure
    }

    /// Returns how many bursts of packets were refused so far.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    fn ask(&mut self, destination: IpAddr) -> Departure {
        let own = self.own.get_or_insert_with(|| OwnDevices::read().unwrap_or_default());
        let departure = if own.is_empty() || !is_routed(destination) {
            Departure::Free
        } else {
            // Where no route leads, the system itself refuses.
            partyline_platform::departure(destination)
                .map_or(Departure::Free, |found| decide(found, own, &self.addresses))
        };
        if departure != Departure::Free {
            tracing::debug!(%destination, ?departure, reason = "the system would use a party", "source of packets");
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(destination, departure);
        departure
    }
}

/// Returns what to make of the system's choice.
fn decide(found: partyline_platform::Departure, own: &OwnDevices, addresses: &[LocalAddress]) -> Departure {
    let Some(source) = found.source else { return Departure::Free };
    if found.interface.is_some_and(|index| own.has_index(index)) {
        return Departure::Refused;
    }
    if !own.contain(source) {
        return Departure::Free;
    }
    // Without the interface, the source is all that shows where a packet would go.
    let Some(interface) = found.interface else { return Departure::Refused };
    let usable =
        |address: &&LocalAddress| address.address.is_ipv4() == source.is_ipv4() && is_routed(address.address);
    let on_card = addresses.iter().filter(usable).filter(|address| address.index == Some(interface));
    on_card
        .min_by_key(|address| address.deprecated)
        .map_or(Departure::Refused, |address| Departure::From(address.address))
}

/// Returns false for addresses whose interface does not follow from the routes.
fn is_routed(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_party_the_system_chooses() {
        let mut departures = Departures { own: Some(OwnDevices::default()), ..Departures::default() };
        assert_eq!(departures.of([192, 0, 2, 1].into()), Departure::Free);
        assert_eq!(departures.refused(), 0);
    }

    fn on(index: u32, address: &str, deprecated: bool) -> LocalAddress {
        let card = partyline_model::CardKind::Physical;
        let address = address.parse().unwrap();
        LocalAddress {
            interface: String::new(),
            index: Some(index),
            address,
            prefix: 64,
            point_to_point: false,
            card,
            deprecated,
        }
    }

    #[test]
    fn nothing_enters_a_party_and_nothing_leaves_from_its_address() {
        let own: OwnDevices = [on(7, "fd00::7", false)].into_iter().collect();
        let card = [on(2, "2001:db8::1", true), on(2, "fe80::1", false), on(3, "2001:db8:3::1", false)];
        let decided = |interface: Option<u32>, source: &str| {
            let source = source.parse().ok();
            decide(partyline_platform::Departure { interface, source }, &own, &card)
        };
        assert_eq!(decided(Some(2), "2001:db8::1"), Departure::Free);
        assert_eq!(decided(Some(7), "fd00::7"), Departure::Refused);
        assert_eq!(decided(Some(7), "2001:db8::1"), Departure::Refused, "whatever the source");
        assert_eq!(decided(Some(2), "fd00::7"), Departure::From("2001:db8::1".parse().unwrap()));
        assert_eq!(decided(Some(4), "fd00::7"), Departure::Refused, "the card has no address");
        assert_eq!(decided(None, "fd00::7"), Departure::Refused, "the source is all that is known");
    }

    #[test]
    fn answers_are_forgotten_after_a_while_and_bounded() {
        let mut departures = Departures { own: Some(OwnDevices::default()), ..Departures::default() };
        (0..5000_u32).for_each(|n| _ = departures.of(IpAddr::V4((0x0a00_0000 + n).into())));
        assert!(departures.known.len() <= MAX_KNOWN);
        let now = Instant::now();
        departures.expire(now);
        departures.expire(now + Duration::from_secs(1));
        assert!(!departures.known.is_empty());
        departures.expire(now + MAX_AGE);
        assert!(departures.known.is_empty());
    }
}
