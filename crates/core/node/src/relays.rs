//! The relays and STUN servers that rendezvous servers grant, from URL to address.
//!
//! A grant names relays by host (RFC 7065 URLs). The engine looks the hosts up; what comes back is handed to the path
//! machine as relays and, since every relay also answers STUN, to netcheck as servers. Grants are renewed when half
//! their time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Now, RelaySetting};
use partyline_netcheck::{CredentialMechanism, StunCredentials, StunServer};
use partyline_paths::{RelayServer, RelayTransport};
use partyline_wire::rendezvous::RelayGrant;

use crate::io::ServerId;

/// What is believed of a grant's life, since the two clocks may differ.
const LIFE_MINIMUM: Duration = Duration::from_secs(60);
const LIFE_MAXIMUM: Duration = Duration::from_secs(7 * 86_400);

/// How much nearer another relay must be to be preferred: this much, and a tenth.
const CLEAR_GAIN: Duration = Duration::from_millis(5);

/// A TURN URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnUrl {
    /// How to speak to the relay.
    pub transport: RelayTransport,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Everything granted so far.
#[derive(Debug, Default)]
pub struct Relays {
    own: Vec<RelaySetting>,
    /// Names of relays, best first, as far as they were measured.
    order: Vec<String>,
    grants: BTreeMap<ServerId, Granted>,
    addresses: BTreeMap<(String, u16), Vec<SocketAddr>>,
}

#[derive(Debug)]
struct Granted {
    grant: RelayGrant,
    renew: Instant,
}

impl Relays {
    /// Takes the user's own relays in place of those before.
    pub fn set_own(&mut self, own: Vec<RelaySetting>) {
        self.own = own;
        let hosts: BTreeSet<_> = self.hosts().into_iter().collect();
        self.addresses.retain(|host, _| hosts.contains(host));
    }

    /// Takes a grant; returns the hosts that have to be looked up for it.
    pub fn granted(&mut self, from: ServerId, grant: RelayGrant, now: Now) -> Vec<(String, u16)> {
        let life = grant.expires.since(now.unix).clamp(LIFE_MINIMUM, LIFE_MAXIMUM);
        self.grants.insert(from, Granted { grant, renew: now.instant + life / 2 });
        let hosts: BTreeSet<_> = self.hosts().into_iter().collect();
        self.addresses.retain(|host, _| hosts.contains(host));
        self.unknown_hosts()
    }

    /// Takes the addresses of a host. None at all may be a moment's failure, and replace nothing.
    pub fn resolved(&mut self, host: String, port: u16, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            self.addresses.insert((host, port), addresses);
        }
    }

    /// All hosts: on another network their addresses may be others.
    pub fn hosts(&self) -> Vec<(String, u16)> {
        let granted = self.grants.values().flat_map(|granted| urls(&granted.grant)).map(|(url, _)| url);
        let own = self.own.iter().filter_map(|relay| TurnUrl::parse(&relay.url));
        let hosts: BTreeSet<_> = own.chain(granted).map(|url| (url.host, url.port)).collect();
        hosts.into_iter().collect()
    }

    /// Hosts that could not be looked up so far.
    pub fn unknown_hosts(&self) -> Vec<(String, u16)> {
        self.hosts().into_iter().filter(|host| !self.addresses.contains_key(host)).collect()
    }

    /// Whether this server's grant should be asked for again; a server without a grant always is.
    pub fn stale(&self, server: ServerId, now: Instant) -> bool {
        self.grants.get(&server).is_none_or(|granted| granted.renew <= now)
    }

    /// Forgets a server's grant, because no party uses the server any more.
    pub fn forget(&mut self, server: ServerId) {
        self.grants.remove(&server);
    }

    /// The relays: the user's own, then each server's best first; each address once, since a relay that several name, or
    /// one of them twice, has room for one allocation from our socket.
    pub fn servers(&self) -> Vec<RelayServer> {
        let own = self.own.iter().filter_map(|relay| {
            Some((TurnUrl::parse(&relay.url)?, "", relay.username.as_str(), relay.password.as_str()))
        });
        let granted = self.grants.values().flat_map(|Granted { grant, .. }| {
            urls(grant).map(|(url, region)| (url, region, grant.username.as_str(), grant.password.as_str()))
        });
        let mut known = BTreeSet::new();
        own.chain(granted)
            .flat_map(|way| self.resolved_ways(way))
            .filter(|relay| known.insert((relay.transport, relay.address)))
            .collect()
    }

    /// The same, preferred relay first: the user's own, then by what was measured.
    pub fn ranked(&self) -> Vec<RelayServer> {
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
    /// it is clearly nearer, or the one before is silent. True if the order changed.
    pub fn rank(&mut self, answers: &BTreeMap<String, Option<Duration>>) -> bool {
        let far = |name: &String| answers.get(name).copied().flatten().unwrap_or(Duration::MAX);
        let mut order: Vec<String> = answers.keys().cloned().collect();
        order.sort_by_key(far);
        if let (Some(old), Some(new)) = (self.order.first(), order.first()) {
            let (before, now) = (far(old), far(new));
            let clear = before == Duration::MAX || (now + CLEAR_GAIN <= before && now.mul_f64(1.1) <= before);
            if !clear && let Some(at) = order.iter().position(|name| name == old) {
                let kept = order.remove(at);
                order.insert(0, kept);
            }
        }
        let changed = order != self.order;
        self.order = order;
        changed
    }

    fn resolved_ways(
        &self,
        (url, region, username, password): (TurnUrl, &str, &str, &str),
    ) -> Vec<RelayServer> {
        let addresses = self.addresses.get(&(url.host.clone(), url.port)).into_iter().flatten();
        let way = |address: &SocketAddr| RelayServer {
            name: self.name(&url.host, region),
            transport: url.transport,
            address: *address,
            host: url.host.clone(),
            username: username.to_owned(),
            password: password.to_owned(),
        };
        addresses.map(way).collect()
    }

    /// What a relay is called: its region, with its host where that has several.
    fn name(&self, host: &str, region: &str) -> String {
        let mut granted = self.grants.values().flat_map(|granted| urls(&granted.grant));
        if region.is_empty() {
            host.to_owned()
        } else if granted.any(|(url, other)| other == region && url.host != host) {
            format!("{region} ({host})")
        } else {
            region.to_owned()
        }
    }

    /// The same hosts as STUN servers.
    pub fn stun(&self) -> Vec<StunServer> {
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

impl TurnUrl {
    /// `turn:host[:port][?transport=udp|tcp]` or `turns:…` (RFC 7065).
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let secure = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return None,
        };
        let transport = match (secure, query) {
            (true, "" | "transport=tcp") => RelayTransport::Tls,
            (false, "" | "transport=udp") => RelayTransport::Udp,
            (false, "transport=tcp") => RelayTransport::Tcp,
            _ => return None,
        };
        let (host, port) = split_port(authority, if secure { 5349 } else { 3478 })?;
        Some(Self { transport, host, port })
    }
}

fn split_port(authority: &str, default: u16) -> Option<(String, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<IpAddr>().ok()?;
        let port = port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?;
        return Some((address.to_owned(), port));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
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
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn a_relay_that_is_named_twice_is_one_relay() {
        let (mut relays, now) = (Relays::default(), Now { instant: Instant::now(), unix: Timestamp(0) });
        let twice = ["turn:relay:1", "turn:relay:1?transport=udp", "turn:relay:1?transport=tcp"];
        relays.granted(ServerId(1), grant("one", &twice), now);
        relays.granted(ServerId(2), grant("other", &["turn:192.0.2.1:1", "turn:192.0.2.2:1"]), now);
        for (host, ip) in [("relay", 1), ("192.0.2.1", 1), ("192.0.2.2", 2)] {
            relays.resolved(host.into(), 1, vec![([192, 0, 2, ip], 1).into()]);
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
        assert_eq!(relays.stun().len(), 2);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn two_relays_of_one_region_are_two() {
        let (mut relays, now) = (Relays::default(), Now { instant: Instant::now(), unix: Timestamp(0) });
        let mut grant = grant("one", &["turn:192.0.2.1:1", "turn:192.0.2.2:1", "turn:192.0.2.3:1"]);
        for (server, region) in grant.servers.iter_mut().zip(["fra", "fra", "waw"]) {
            region.clone_into(&mut server.region);
        }
        for (host, port) in relays.granted(ServerId(1), grant, now) {
            let address = SocketAddr::new(host.parse().unwrap(), port);
            relays.resolved(host, port, vec![address]);
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
    fn the_nearest_relay_that_answers_is_preferred_and_kept() {
        let mut relays = Relays::default();
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

    #[test]
    fn turn_urls_are_taken_apart_and_others_refused() {
        let url = TurnUrl::parse("turns:relay.example:443?transport=tcp").unwrap();
        assert_eq!(url, TurnUrl { transport: RelayTransport::Tls, host: "relay.example".into(), port: 443 });
        let url = TurnUrl::parse("turn:[2001:db8::1]:99").unwrap();
        assert_eq!(url, TurnUrl { transport: RelayTransport::Udp, host: "2001:db8::1".into(), port: 99 });
        assert_eq!(TurnUrl::parse("turn:relay").unwrap().port, 3478);
        for bad in
            ["stun:relay", "turn:", "turns:relay?transport=udp", "turn:relay:port", "turn:[x]:1", "turn"]
        {
            assert_eq!(TurnUrl::parse(bad), None, "{bad}");
        }
    }
}
