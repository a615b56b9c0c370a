//! Selection of relay servers, from URL to ranked address.
//!
//! Relays come from grants of rendezvous servers and from the user's settings, named by URL (RFC 7065). The engine
//! resolves the hosts; the addresses go to the path machine as relays in order of preference and, since every relay
//! also answers STUN, to netcheck as servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_model::{AddressScope, RelaySetting};
use partyline_netcheck::{CredentialMechanism, StunCredentials, StunServer};
use partyline_paths::{RelayServer, RelayTransport};
use partyline_wire::rendezvous::RelayGrant;
use tracing::debug;

use crate::{host_names::Host, io::ServerId, turn_url::TurnUrl};

/// How much nearer another relay must be to be preferred: this much, and a tenth.
const MIN_RTT_GAIN: Duration = Duration::from_millis(5);

/// What a rendezvous server granted.
#[derive(Debug)]
struct Grant {
    relays: RelayGrant,
    /// The addresses at which they may be contacted: a grant is as trusted as the server that gave it.
    scope: AddressScope,
}

/// Relay servers that may be used, and in which order.
#[derive(Debug, Default)]
pub(super) struct SelectedRelays {
    /// The user's own.
    own: Vec<RelaySetting>,
    /// Names of relays, best first, as far as they were measured.
    order: Vec<String>,
    grants: BTreeMap<ServerId, Grant>,
    addresses: BTreeMap<Host, Vec<SocketAddr>>,
}

impl SelectedRelays {
    /// Takes the user's own relays in place of the former ones.
    pub(super) fn set_own(&mut self, own: Vec<RelaySetting>) {
        self.own = own;
        self.prune_addresses();
    }

    /// Takes a grant in place of the server's last one.
    pub(super) fn on_grant(&mut self, from: ServerId, relays: RelayGrant, scope: AddressScope) {
        debug!(server = from.0, count = relays.servers.len(), ?scope, "relays granted");
        self.grants.insert(from, Grant { relays, scope });
        self.prune_addresses();
    }

    /// Allows a server's relays to be at private addresses.
    pub(super) fn trust(&mut self, server: ServerId) {
        if let Some(grant) = self.grants.get_mut(&server) {
            grant.scope = AddressScope::Any;
        }
    }

    /// Returns a relay that a server granted, with its address, if it has none at which it may be contacted.
    pub(super) fn private_relay(&self, server: ServerId) -> Option<(String, IpAddr)> {
        let grant = self.grants.get(&server)?;
        urls(&grant.relays).find_map(|(url, _)| {
            let addresses = self.addresses.get(&(url.host.clone(), url.port))?;
            let refused = !addresses.iter().any(|address| grant.scope.allows(address.ip()));
            let address = addresses.first().filter(|_| refused)?;
            Some((url.host, address.ip()))
        })
    }

    /// Takes the addresses to use for a host, if a relay is there; returns true if they are others than before.
    pub(super) fn on_resolved(&mut self, host: &Host, addresses: &[SocketAddr]) -> bool {
        let known = self.addresses.get(host).map_or(&[][..], Vec::as_slice);
        if known == addresses || !self.hosts().contains(host) {
            return false;
        }
        self.addresses.insert(host.clone(), addresses.to_vec());
        true
    }

    /// Returns the hosts of the relays that a server granted.
    pub(super) fn hosts_of(&self, server: ServerId) -> BTreeSet<Host> {
        let granted = self.grants.get(&server).into_iter().flat_map(|grant| urls(&grant.relays));
        granted.map(|(url, _)| (url.host, url.port)).collect()
    }

    /// Returns all hosts.
    pub(super) fn hosts(&self) -> BTreeSet<Host> {
        let granted = self.grants.values().flat_map(|grant| urls(&grant.relays)).map(|(url, _)| url);
        let own = self.own.iter().filter_map(|relay| TurnUrl::parse(&relay.url));
        own.chain(granted).map(|url| (url.host, url.port)).collect()
    }

    /// Forgets a server's grant, because no party uses the server any more.
    pub(super) fn forget(&mut self, server: ServerId) {
        if self.grants.remove(&server).is_some() {
            debug!(server = server.0, reason = "no party uses the server", "relays forgotten");
        }
        self.prune_addresses();
    }

    fn prune_addresses(&mut self) {
        let hosts = self.hosts();
        self.addresses.retain(|host, _| hosts.contains(host));
    }

    /// Returns the relays: the user's own, then each server's best first. Each address occurs once, since a relay that
    /// several servers name, or one of them twice, has room for one allocation from our socket.
    pub(super) fn servers(&self) -> Vec<RelayServer> {
        let own = self.own.iter().filter_map(|relay| {
            let relays = self.resolve(TurnUrl::parse(&relay.url)?, "", (&relay.username, &relay.password));
            Some(relays.collect::<Vec<_>>())
        });
        let granted = self.grants.values().map(|Grant { relays, scope }| {
            let named = urls(relays)
                .flat_map(|(url, region)| self.resolve(url, region, (&relays.username, &relays.password)));
            named.filter(|relay| scope.allows(relay.address.ip())).collect()
        });
        let mut known = BTreeSet::new();
        own.chain(granted).flatten().filter(|relay| known.insert((relay.transport, relay.address))).collect()
    }

    /// Returns the relays in order of preference: the user's own, then by what was measured.
    pub(super) fn ranked(&self) -> Vec<RelayServer> {
        let mut servers = self.servers();
        let own: BTreeSet<String> =
            self.own.iter().filter_map(|relay| Some(TurnUrl::parse(&relay.url)?.host)).collect();
        let place = |name: &String| self.order.iter().position(|known| known == name);
        servers.sort_by_key(|relay| {
            (!own.contains(&relay.host), place(&relay.name).unwrap_or(self.order.len()))
        });
        servers
    }

    /// Takes the round trip to each relay by name, `None` where it does not answer. Another one is preferred only if
    /// it is clearly nearer, or the preferred one is silent. Returns true if the order changed.
    pub(super) fn rank(&mut self, answers: &BTreeMap<String, Option<Duration>>) -> bool {
        let far = |name: &String| answers.get(name).copied().flatten().unwrap_or(Duration::MAX);
        let mut order: Vec<String> = answers.keys().cloned().collect();
        order.sort_by_key(far);
        if let (Some(old), Some(new)) = (self.order.first(), order.first()) {
            let (before, now) = (far(old), far(new));
            let clear =
                before == Duration::MAX || (now + MIN_RTT_GAIN <= before && now.mul_f64(1.1) <= before);
            if !clear && let Some(at) = order.iter().position(|name| name == old) {
                let kept = order.remove(at);
                order.insert(0, kept);
            }
        }
        let changed = order != self.order;
        if changed {
            let best = order.first().map(|name| (name.as_str(), answers.get(name).copied().flatten()));
            let (relay, rtt_ms) =
                best.map_or((None, None), |(name, rtt)| (Some(name), rtt.map(|rtt| rtt.as_millis())));
            debug!(relay, rtt_ms, was = self.order.first(), reason = "measured", "relay preference changed");
        }
        self.order = order;
        changed
    }

    fn resolve(
        &self,
        url: TurnUrl,
        region: &str,
        (username, password): (&str, &str),
    ) -> impl Iterator<Item = RelayServer> {
        let addresses = self.addresses.get(&(url.host.clone(), url.port)).into_iter().flatten();
        addresses.map(move |address| RelayServer {
            name: self.name(&url.host, region),
            transport: url.transport,
            address: *address,
            host: url.host.clone(),
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Returns a relay's name: its region, with its host where the region has several.
    fn name(&self, host: &str, region: &str) -> String {
        let mut granted = self.grants.values().flat_map(|grant| urls(&grant.relays));
        if region.is_empty() {
            host.to_owned()
        } else if granted.any(|(url, other)| other == region && url.host != host) {
            format!("{region} ({host})")
        } else {
            region.to_owned()
        }
    }

    /// Returns the UDP relays as STUN servers.
    pub(super) fn stun_servers(&self) -> Vec<StunServer> {
        let servers = self.servers().into_iter().filter(|server| server.transport == RelayTransport::Udp);
        servers
            .map(|RelayServer { name, address, username, password, .. }| StunServer {
                name,
                address,
                credentials: Some(StunCredentials {
                    username,
                    password,
                    mechanism: CredentialMechanism::LongTerm,
                }),
            })
            .collect()
    }
}

fn urls(grant: &RelayGrant) -> impl Iterator<Item = (TurnUrl, &str)> {
    grant.servers.iter().filter_map(|server| Some((TurnUrl::parse(&server.url)?, server.region.as_str())))
}

#[cfg(test)]
mod tests {
    use partyline_model::Timestamp;

    use super::*;

    fn grant(username: &str, urls: &[&str]) -> RelayGrant {
        let server = |url: &&str| partyline_wire::rendezvous::RelayServer {
            url: (*url).into(),
            region: String::new(),
        };
        RelayGrant {
            username: username.into(),
            password: String::new(),
            realm: String::new(),
            expires: Timestamp(0),
            servers: urls.iter().map(server).collect(),
        }
    }

    #[test]
    fn relay_that_is_named_twice_is_one_relay() {
        let mut relays = SelectedRelays::default();
        let twice = ["turn:relay:1", "turn:relay:1?transport=udp", "turn:relay:1?transport=tcp"];
        relays.on_grant(ServerId(1), grant("one", &twice), AddressScope::Any);
        relays.on_grant(
            ServerId(2),
            grant("other", &["turn:192.0.2.1:1", "turn:192.0.2.2:1"]),
            AddressScope::Public,
        );
        for (host, ip) in [("relay", 1), ("192.0.2.1", 1), ("192.0.2.2", 2)] {
            assert!(relays.on_resolved(&(host.into(), 1), &[([192, 0, 2, ip], 1).into()]));
        }
        let ways: Vec<_> = relays
            .servers()
            .into_iter()
            .map(|server| (server.transport, server.address.ip().to_string()))
            .collect();
        assert_eq!(
            ways,
            [
                (RelayTransport::Udp, "192.0.2.1".to_owned()),
                (RelayTransport::Tcp, "192.0.2.1".to_owned()),
                (RelayTransport::Udp, "192.0.2.2".to_owned()),
            ]
        );
        assert_eq!(relays.stun_servers().len(), 2);
    }

    #[test]
    fn two_relays_of_one_region_have_two_names() {
        let mut relays = SelectedRelays::default();
        let mut grant = grant("one", &["turn:192.0.2.1:1", "turn:192.0.2.2:1", "turn:192.0.2.3:1"]);
        for (server, region) in grant.servers.iter_mut().zip(["fra", "fra", "waw"]) {
            region.clone_into(&mut server.region);
        }
        relays.on_grant(ServerId(1), grant, AddressScope::Public);
        assert_eq!(relays.hosts(), relays.hosts_of(ServerId(1)));
        for host in relays.hosts() {
            let address = SocketAddr::new(host.0.parse().unwrap(), host.1);
            assert!(relays.on_resolved(&host, &[address]) && !relays.on_resolved(&host, &[address]));
        }
        let names: Vec<_> = relays.servers().into_iter().map(|relay| relay.name).collect();
        assert_eq!(names, ["fra (192.0.2.1)", "fra (192.0.2.2)", "waw"]);
        let answers = names.iter().zip([40, 20, 30]);
        relays.rank(&answers.map(|(name, ms)| (name.clone(), Some(Duration::from_millis(ms)))).collect());
        let ranked: Vec<_> =
            relays.ranked().into_iter().map(|relay| relay.address.ip().to_string()).collect();
        assert_eq!(ranked, ["192.0.2.2", "192.0.2.3", "192.0.2.1"]);
    }

    #[test]
    fn nearest_relay_that_answers_is_preferred_and_kept() {
        let mut relays = SelectedRelays::default();
        let mut rank = |answers: &[(&str, Option<u64>)]| {
            let answers =
                answers.iter().map(|(name, ms)| ((*name).to_owned(), ms.map(Duration::from_millis)));
            let changed = relays.rank(&answers.collect());
            (changed, relays.order.join(" "))
        };
        assert_eq!(rank(&[("a", Some(80)), ("b", Some(30)), ("c", None)]), (true, "b a c".into()));
        assert_eq!(rank(&[("a", Some(28)), ("b", Some(30)), ("c", None)]), (false, "b a c".into()));
        assert_eq!(rank(&[("a", Some(20)), ("b", Some(30)), ("c", None)]), (true, "a b c".into()));
        assert_eq!(rank(&[("a", None), ("b", Some(30)), ("c", Some(31))]), (true, "b c a".into()));
    }
}
