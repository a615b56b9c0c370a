//! The [`NatProfile`] as known by now, from everything that contributes to it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_model::{Confidence, NatProfile};

use crate::{
    address::{Family, is_inside_view, is_public, is_shared},
    api::ServerReport,
    context::Policies,
    servers::Servers,
};

const MAX_REFLEXIVE: usize = 8;
/// Servers at so many addresses are not all down by accident.
const MIN_BLOCKED_SERVERS: usize = 2;

/// Everything that a profile is made from.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) servers: &'a Servers,
    /// This computer's own addresses.
    pub(crate) local: &'a [SocketAddr],
    /// The router's external address, from port mapping or PCP.
    pub(crate) router: Option<IpAddr>,
    /// True if servers are reachable over TCP.
    pub(crate) online: bool,
    /// The addresses at which STUN servers respond over TCP.
    pub(crate) tcp_reachable: &'a BTreeSet<IpAddr>,
    pub(crate) v4: Policies,
    /// True if the measurement over IPv4 ended.
    pub(crate) v4_done: bool,
    pub(crate) v6: Policies,
    /// The lifetime of an idle mapping; `None` while it was not measured.
    pub(crate) lifetime: Option<Option<Duration>>,
}

/// Returns the main socket's reflexive addresses, IPv4 first, one per server and mapping, at most 8.
/// What servers in this computer's own network see is left out.
pub(crate) fn reflexive(servers: &Servers, local: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut reflexive = Vec::new();
    for family in Family::BOTH {
        let outside = servers.reports().filter(|report| !is_inside(report, local));
        for seen in outside.filter_map(|report| report.reflexive) {
            if Family::of(seen) == family && !reflexive.contains(&seen) {
                reflexive.push(seen);
            }
        }
    }
    reflexive.truncate(MAX_REFLEXIVE);
    reflexive
}

/// Returns true if some server responds, and sees this computer from inside its own network.
pub(crate) fn is_seen_from_inside(servers: &Servers, local: &[SocketAddr]) -> bool {
    servers.reports().any(|report| is_inside(report, local))
}

fn is_inside(report: &ServerReport, local: &[SocketAddr]) -> bool {
    let own = |ip| local.iter().any(|local| local.ip() == ip);
    report.reflexive.is_some_and(|seen| is_inside_view(report.address.ip(), seen.ip(), own))
}

/// Returns how much of a profile is known.
pub(crate) fn confidence(profile: &NatProfile) -> Confidence {
    let NatProfile { mapping, filtering, allocation, public, .. } = profile;
    match (public.is_empty(), mapping, filtering, allocation) {
        (true, ..) => Confidence::None,
        (_, None, ..) => Confidence::Low,
        (_, Some(_), Some(_), Some(_)) => Confidence::High,
        _ => Confidence::Medium,
    }
}

impl Evidence<'_> {
    /// Returns the profile. What was known `before` stays until it is contradicted: by another policy, or by a public
    /// address that has nothing in common with the earlier ones.
    pub(crate) fn profile(&self, before: &NatProfile) -> NatProfile {
        let mut public: Vec<IpAddr> =
            reflexive(self.servers, self.local).iter().map(SocketAddr::ip).collect();
        public.dedup();
        let keep = !is_elsewhere(&before.public, &public);
        let ended = self.v4_done || self.v4.mapping.is_some();
        NatProfile {
            mapping: if ended { self.v4.mapping } else { before.mapping.filter(|_| keep) },
            filtering: self.v4.filtering.or(before.filtering.filter(|_| keep)),
            allocation: self.v4.allocation.or(before.allocation.filter(|_| keep)),
            hairpin: self.v4.hairpin.or(before.hairpin.filter(|_| keep)),
            lifetime: self.lifetime.unwrap_or(before.lifetime.filter(|_| keep)),
            udp_blocked: self.udp_blocked(),
            double_nat: self.double_nat(&public),
            carrier_nat: self.router.map(is_shared),
            ipv6: self.ipv6(&public),
            firewall_v6: self.v6.filtering.or(before.firewall_v6.filter(|_| keep)),
            public: if public.is_empty() { before.public.clone() } else { public },
        }
    }

    /// Silence means blocked UDP only if the servers are not down: if one that is reachable over TCP is silent, or
    /// several are while some server is reachable.
    fn udp_blocked(&self) -> Option<bool> {
        if self.servers.any_responds() {
            return Some(false);
        }
        let silent = self.servers.timed_out();
        let reachable = silent.intersection(self.tcp_reachable).next().is_some();
        let online = self.online || !self.tcp_reachable.is_empty();
        let proven = reachable || (online && silent.len() >= MIN_BLOCKED_SERVERS);
        (proven && self.servers.all_timed_out()).then_some(true)
    }

    /// A second NAT shows if the router's external address is not the one that servers see.
    fn double_nat(&self, public: &[IpAddr]) -> Option<bool> {
        let router = self.router?;
        if !is_public(router) {
            return Some(true);
        }
        let comparable = public.iter().any(|ip| ip.is_ipv4() == router.is_ipv4());
        comparable.then(|| !public.contains(&router))
    }

    /// A response over IPv6 proves that it works; a computer without an IPv6 address disproves it.
    fn ipv6(&self, public: &[IpAddr]) -> Option<bool> {
        if public.iter().any(IpAddr::is_ipv6) {
            return Some(true);
        }
        (!self.local.is_empty() && self.local.iter().all(SocketAddr::is_ipv4)).then_some(false)
    }
}

/// Returns true if the public IPv4 addresses have nothing in common with those before.
fn is_elsewhere(before: &[IpAddr], now: &[IpAddr]) -> bool {
    let v4 = |list: &[IpAddr]| list.iter().copied().filter(IpAddr::is_ipv4).collect::<Vec<_>>();
    let (before, now) = (v4(before), v4(now));
    !before.is_empty() && !now.is_empty() && !now.iter().any(|ip| before.contains(ip))
}

#[cfg(test)]
mod tests {
    use partyline_model::{Filtering, Mapping};

    use super::*;
    use crate::{api::StunServer, test_nat::start};

    /// Two servers, which saw these addresses or timed out.
    fn servers(seen: [Option<[u8; 4]>; 2]) -> Servers {
        let named = |n: u8| StunServer::new(format!("stun{n}"), ([11, 0, n, 1], 3478).into());
        let mut servers = Servers::new(start(), vec![named(1), named(2)], usize::MAX);
        for (index, seen) in seen.into_iter().enumerate() {
            servers.next(start(), Family::V4);
            let report = servers.on_outcome(start(), index, seen.is_some()).expect("a server");
            report.reflexive = seen.map(|ip| (ip, 5000).into());
        }
        servers
    }

    fn evidence<'a>(servers: &'a Servers, tcp_reachable: &'a BTreeSet<IpAddr>) -> Evidence<'a> {
        let (v4, v6) = (Policies::default(), Policies::default());
        let (local, router, online, v4_done, lifetime) = (&[][..], None, false, false, None);
        Evidence { servers, local, router, online, tcp_reachable, v4, v4_done, v6, lifetime }
    }

    fn known() -> NatProfile {
        NatProfile {
            mapping: Some(Mapping::EndpointIndependent),
            filtering: Some(Filtering::AddressDependent),
            public: vec![[11, 0, 0, 1].into()],
            ..NatProfile::default()
        }
    }

    #[test]
    fn earlier_policies_stay_until_another_public_address_is_seen() {
        let none = BTreeSet::new();
        let (same, other) = (servers([Some([11, 0, 0, 1]), None]), servers([Some([11, 0, 0, 2]), None]));
        let kept = evidence(&same, &none).profile(&known());
        assert_eq!((kept.mapping, kept.filtering), (known().mapping, known().filtering));
        let dropped = evidence(&other, &none).profile(&known());
        assert_eq!((dropped.mapping, dropped.filtering), (None, None));
    }

    #[test]
    fn mapping_that_a_measurement_could_not_find_is_forgotten_and_filtering_is_kept() {
        let (none, servers) = (BTreeSet::new(), servers([Some([11, 0, 0, 1]), None]));
        let profile = Evidence { v4_done: true, ..evidence(&servers, &none) }.profile(&known());
        assert_eq!((profile.mapping, profile.filtering), (None, known().filtering));
    }

    #[test]
    fn silence_is_blocked_udp_only_if_servers_are_reachable_over_tcp() {
        let (none, one) = (BTreeSet::new(), BTreeSet::from([IpAddr::from([11, 0, 1, 1])]));
        let servers = servers([None, None]);
        let blocked = |evidence: Evidence<'_>| evidence.profile(&NatProfile::default()).udp_blocked;
        assert_eq!(blocked(evidence(&servers, &none)), None);
        assert_eq!(blocked(evidence(&servers, &one)), Some(true));
        assert_eq!(
            blocked(Evidence { online: true, ..evidence(&servers, &none) }),
            Some(true),
            "two are silent"
        );
    }

    #[test]
    fn router_with_a_private_or_another_address_is_below_a_second_nat() {
        let (none, servers) = (BTreeSet::new(), servers([Some([11, 0, 0, 1]), None]));
        for (router, double, carrier) in [
            ([100, 64, 0, 9], true, true),
            ([192, 168, 0, 2], true, false),
            ([11, 0, 0, 9], true, false),
            ([11, 0, 0, 1], false, false),
        ] {
            let evidence = Evidence { router: Some(router.into()), ..evidence(&servers, &none) };
            let profile = evidence.profile(&NatProfile::default());
            assert_eq!(
                (profile.double_nat, profile.carrier_nat),
                (Some(double), Some(carrier)),
                "{router:?}"
            );
        }
    }

    #[test]
    fn server_on_this_lan_shows_no_public_address() {
        let none = BTreeSet::new();
        let servers = servers([Some([192, 168, 1, 10]), None]);
        let local = [([192, 168, 1, 10], 5000).into()];
        let profile = Evidence { local: &local, ..evidence(&servers, &none) }.profile(&NatProfile::default());
        assert_eq!((profile.public, profile.mapping), (vec![], None));
        assert!(is_seen_from_inside(&servers, &local) && reflexive(&servers, &local).is_empty());
    }

    #[test]
    fn confidence_grows_with_what_is_known() {
        assert_eq!(confidence(&NatProfile::default()), Confidence::None);
        assert_eq!(confidence(&NatProfile { mapping: None, ..known() }), Confidence::Low);
        assert_eq!(confidence(&known()), Confidence::Medium);
    }
}
