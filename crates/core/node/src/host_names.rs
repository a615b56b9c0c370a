//! Host names that are looked up again and again, since a server may move behind its name.
//!
//! The system's resolver does not say for how long an answer holds, so that names are looked up every minute, every few
//! seconds while nothing answers at their addresses, and at once when something suggests that a server has moved.
//! An address that works is kept, whatever order or selection the name server returns this time (round robin); only
//! where the server is in doubt do the new addresses come first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tracing::debug;
use url::Url;

/// How often a name is looked up while its server works.
pub(crate) const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is while the server does not work, or is in doubt.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(4);
/// The shortest time between two lookups of a name.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer is awaited before the name is looked up again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server stays in doubt.
const DOUBT: Duration = Duration::from_secs(60);
/// Addresses of one name and family that are used.
const MAX_ADDRESSES: usize = 4;

/// A host name, or a literal address, and a port.
pub(crate) type Host = (String, u16);

/// Returns the host of a rendezvous server's URL, if it is a name: a literal address does not move.
pub(crate) fn server_host(url: &str) -> Option<Host> {
    let url = Url::parse(url).ok()?;
    let name = url.domain()?.to_owned();
    Some((name, url.port_or_known_default()?))
}

/// Returns the host of a rendezvous server's URL, if it is a literal address.
pub(crate) fn literal_address(url: &str) -> Option<IpAddr> {
    match Url::parse(url).ok()?.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        // Only the special schemes have their addresses recognized, of which ws and wss are two.
        url::Host::Domain(_) => None,
    }
}

/// What a lookup means for the use of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The name cannot be resolved at present, or nobody uses it.
    Nothing,
    /// The first addresses of this name.
    First,
    /// The same addresses as before are to be used.
    Same,
    /// Other addresses are to be used from now on, or the name can be resolved again.
    Changed,
    /// The name has moved to other addresses, but those in use work.
    Moved,
}

#[derive(Debug)]
struct HostName {
    /// The addresses to use, best first.
    in_use: Vec<SocketAddr>,
    due: Instant,
    /// When the lookup under way, or the last one, began.
    asked_at: Option<Instant>,
    /// True from a failed lookup to the next one that succeeds.
    failed: bool,
    works: bool,
    doubted_until: Option<Instant>,
}

/// All names in use.
#[derive(Debug, Default)]
pub(crate) struct HostNames(BTreeMap<Host, HostName>);

impl HostNames {
    /// Makes the names match those that are wanted. New ones are looked up at once.
    pub(crate) fn set_wanted(&mut self, now: Instant, wanted: impl IntoIterator<Item = Host>) {
        let wanted: BTreeSet<Host> = wanted.into_iter().collect();
        self.0.retain(|host, _| wanted.contains(host));
        for host in wanted {
            self.0.entry(host).or_insert_with(|| HostName::new(now));
        }
    }

    /// Returns when [`Self::poll_lookups`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().map(|name| name.due).min()
    }

    /// Returns the names to look up now. Each needs a call of [`Self::on_resolved`].
    pub(crate) fn poll_lookups(&mut self, now: Instant) -> Vec<Host> {
        let due = self.0.iter_mut().filter(|(_, name)| name.due <= now);
        due.map(|(host, name)| {
            (name.asked_at, name.due) = (Some(now), now + ANSWER_TIMEOUT);
            host.clone()
        })
        .collect()
    }

    /// Takes the answer to a lookup; no addresses mean that it failed. `works` says of an address whether the server
    /// answers there.
    pub(crate) fn on_resolved(
        &mut self,
        now: Instant,
        host: &Host,
        addresses: &[SocketAddr],
        works: impl Fn(&SocketAddr) -> bool,
    ) -> Found {
        let Some(name) = self.0.get_mut(host) else { return Found::Nothing };
        let found = name.take_answer(now, addresses, &works);
        name.works = name.in_use.iter().any(works);
        let literal = host.0.parse::<IpAddr>().is_ok();
        name.due = name.asked_at.unwrap_or(now).max(now) + name.interval(now, literal);
        if matches!(found, Found::Changed | Found::Moved) {
            debug!(host = host.0, port = host.1, ?addresses, in_use = ?name.in_use, ?found, "host name moved");
        }
        found
    }

    /// Returns the addresses to use for a name, best first.
    pub(crate) fn addresses(&self, host: &Host) -> &[SocketAddr] {
        self.0.get(host).map_or(&[], |name| &name.in_use)
    }

    /// Notes at which addresses servers answer. Names at whose addresses nothing answers any more are looked up soon;
    /// returns true if there are any.
    pub(crate) fn on_answering(&mut self, now: Instant, works: impl Fn(&SocketAddr) -> bool) -> bool {
        let mut any_stopped = false;
        for (host, name) in &mut self.0 {
            let worked = std::mem::replace(&mut name.works, name.in_use.iter().any(&works));
            if worked && !name.works {
                debug!(host = host.0, port = host.1, reason = "nothing answers", "looking the host up again");
                name.doubted_until = Some(now + DOUBT);
                name.expedite(now);
                any_stopped = true;
            }
        }
        any_stopped
    }

    /// Doubts that the addresses of these names are still the right ones, and looks them up soon and often.
    pub(crate) fn doubt(&mut self, now: Instant, doubted: impl Fn(&Host) -> bool) {
        for (_, name) in self.0.iter_mut().filter(|(host, _)| doubted(host)) {
            name.doubted_until = Some(now + DOUBT);
            name.expedite(now);
        }
    }

    /// Looks every name up soon: the network may be another one, where other addresses are right.
    pub(crate) fn expedite_all(&mut self, now: Instant) {
        self.doubt(now, |_| true);
    }
}

impl HostName {
    const fn new(now: Instant) -> Self {
        Self {
            in_use: Vec::new(),
            due: now,
            asked_at: None,
            failed: false,
            works: false,
            doubted_until: None,
        }
    }

    fn expedite(&mut self, now: Instant) {
        let earliest = self.asked_at.map_or(now, |at| now.max(at + MIN_INTERVAL));
        self.due = self.due.min(earliest);
    }

    fn is_doubted(&self, now: Instant) -> bool {
        self.doubted_until.is_some_and(|until| now < until)
    }

    /// A literal address changes only with the network, behind a NAT64.
    fn interval(&self, now: Instant, literal: bool) -> Duration {
        let settled = self.works && !self.is_doubted(now);
        if literal || settled { REFRESH_INTERVAL } else { RETRY_INTERVAL }
    }

    fn take_answer(
        &mut self,
        now: Instant,
        addresses: &[SocketAddr],
        works: &impl Fn(&SocketAddr) -> bool,
    ) -> Found {
        if addresses.is_empty() {
            self.failed = true;
            return Found::Nothing;
        }
        let (first, recovered) = (self.in_use.is_empty(), std::mem::take(&mut self.failed));
        let moved = !self.in_use.iter().any(|known| addresses.contains(known));
        let v6_first = self.in_use.first().or(addresses.first()).is_some_and(SocketAddr::is_ipv6);
        let chosen = [v6_first, !v6_first].map(|v6| self.choose(now, v6, addresses, works)).concat();
        let before = std::mem::replace(&mut self.in_use, chosen);
        match () {
            () if first && !recovered => Found::First,
            () if recovered || self.in_use != before => Found::Changed,
            () if moved => Found::Moved,
            () => Found::Same,
        }
    }

    /// Returns the addresses of one family to use.
    fn choose(
        &self,
        now: Instant,
        v6: bool,
        addresses: &[SocketAddr],
        works: &impl Fn(&SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        let known: Vec<_> = self.in_use.iter().copied().filter(|known| known.is_ipv6() == v6).collect();
        let working: Vec<_> = known.iter().copied().filter(works).collect();
        let confirmed = working.iter().any(|known| addresses.contains(known));
        if confirmed || (!working.is_empty() && !self.is_doubted(now)) {
            return known;
        }
        let mut chosen: Vec<_> = known.iter().copied().filter(|known| addresses.contains(known)).collect();
        for address in addresses.iter().filter(|address| address.is_ipv6() == v6) {
            if chosen.len() < MAX_ADDRESSES && !chosen.contains(address) {
                chosen.push(*address);
            }
        }
        chosen.extend(working.into_iter().filter(|known| !addresses.contains(known)));
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn host() -> Host {
        ("relay.example".to_owned(), 3478)
    }

    fn address(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 3478)
    }

    fn list(ips: &[&str]) -> Vec<SocketAddr> {
        ips.iter().map(|ip| address(ip)).collect()
    }

    /// A name that was resolved to these addresses just now.
    fn resolved(ips: &[&str]) -> (HostNames, Instant) {
        let (mut names, now) = (HostNames::default(), start().instant);
        names.set_wanted(now, [host()]);
        assert_eq!(names.poll_lookups(now), [host()]);
        assert_eq!(names.on_resolved(now, &host(), &list(ips), |_| true), Found::First);
        (names, now)
    }

    /// Answers a lookup in which the first of the known addresses works.
    fn answer(names: &mut HostNames, now: Instant, ips: &[&str], working: &str) -> Found {
        names.on_resolved(now, &host(), &list(ips), |known| *known == address(working))
    }

    #[test]
    fn names_are_looked_up_every_minute_and_often_while_nothing_works() {
        let (mut names, now) = resolved(&["192.0.2.1"]);
        assert_eq!(names.poll_timeout(), Some(now + REFRESH_INTERVAL));
        let now = now + REFRESH_INTERVAL;
        assert_eq!(names.poll_lookups(now), [host()]);
        assert_eq!(names.poll_lookups(now), [], "the answer is awaited");
        assert_eq!(names.on_resolved(now, &host(), &[], |_| false), Found::Nothing);
        assert_eq!(names.poll_timeout(), Some(now + RETRY_INTERVAL));
        assert_eq!(names.addresses(&host()), list(&["192.0.2.1"]), "a failure replaces nothing");
    }

    #[test]
    fn working_address_among_the_answers_stays_in_any_order_and_selection() {
        let (mut names, now) = resolved(&["192.0.2.1", "192.0.2.2"]);
        for ips in [&["192.0.2.2", "192.0.2.1"][..], &["192.0.2.9", "192.0.2.1"]] {
            assert_eq!(answer(&mut names, now, ips, "192.0.2.1"), Found::Same);
        }
        assert_eq!(names.addresses(&host()), list(&["192.0.2.1", "192.0.2.2"]));
    }

    #[test]
    fn working_address_that_is_no_longer_named_stays_until_it_is_doubted_or_fails() {
        let (mut names, now) = resolved(&["192.0.2.1"]);
        assert_eq!(answer(&mut names, now, &["192.0.2.9"], "192.0.2.1"), Found::Moved);
        assert_eq!(names.addresses(&host()), list(&["192.0.2.1"]));
        names.doubt(now, |_| true);
        assert_eq!(answer(&mut names, now, &["192.0.2.9"], "192.0.2.1"), Found::Changed);
        assert_eq!(names.addresses(&host()), list(&["192.0.2.9", "192.0.2.1"]), "make before break");
        assert_eq!(answer(&mut names, now, &["192.0.2.9"], "192.0.2.9"), Found::Same);
        assert_eq!(answer(&mut names, now, &["192.0.2.9"], "192.0.2.7"), Found::Changed);
        assert_eq!(names.addresses(&host()), list(&["192.0.2.9"]));
    }

    #[test]
    fn name_whose_server_stops_answering_is_looked_up_at_once() {
        let (mut names, now) = resolved(&["192.0.2.1"]);
        let later = now + 10 * MIN_INTERVAL;
        assert!(!names.on_answering(later, |_| true));
        assert!(names.on_answering(later, |_| false) && !names.on_answering(later, |_| false), "once");
        assert_eq!(names.poll_timeout(), Some(later));
    }

    #[test]
    fn another_family_is_added_beside_the_one_that_works() {
        let (mut names, now) = resolved(&["192.0.2.1"]);
        assert_eq!(answer(&mut names, now, &["192.0.2.1", "2001:db8::1"], "192.0.2.1"), Found::Changed);
        assert_eq!(names.addresses(&host()), list(&["192.0.2.1", "2001:db8::1"]));
    }

    #[test]
    fn name_that_can_be_resolved_again_is_a_change_and_unwanted_ones_are_forgotten() {
        let (mut names, now) = resolved(&["192.0.2.1"]);
        names.on_resolved(now, &host(), &[], |_| false);
        assert_eq!(answer(&mut names, now, &["192.0.2.1"], "192.0.2.1"), Found::Changed);
        names.set_wanted(now, []);
        assert_eq!((names.poll_timeout(), names.addresses(&host())), (None, &[][..]));
        assert_eq!(answer(&mut names, now, &["192.0.2.1"], "192.0.2.1"), Found::Nothing);
    }

    #[test]
    fn only_names_of_servers_are_looked_up() {
        let host = |name: &str, port| Some((name.to_owned(), port));
        assert_eq!(server_host("wss://party.example"), host("party.example", 443));
        assert_eq!(server_host("ws://party.example:4480/v1"), host("party.example", 4480));
        for literal in ["ws://192.0.2.1:4480", "wss://[2001:db8::1]", "party.example", "wss://"] {
            assert_eq!(server_host(literal), None, "{literal}");
        }
        assert_eq!(literal_address("ws://192.0.2.1:4480"), Some([192, 0, 2, 1].into()));
        assert_eq!(literal_address("wss://[2001:db8::1]"), "2001:db8::1".parse().ok());
        assert_eq!(literal_address("wss://party.example"), None);
    }

    #[test]
    fn literals_are_not_looked_up_often() {
        let (mut names, now) = (HostNames::default(), start().instant);
        let literal = ("192.0.2.1".to_owned(), 3478);
        names.set_wanted(now, [literal.clone()]);
        names.poll_lookups(now);
        names.on_resolved(now, &literal, &list(&["192.0.2.1"]), |_| false);
        assert_eq!(names.poll_timeout(), Some(now + REFRESH_INTERVAL));
    }
}
