//! Mappings that the router itself describes ([`PeerMapping`]).
//!
//! A router that speaks PCP but opens no ports may still say at which external address a flow is seen and how long it
//! keeps the flow's mapping (RFC 6887, section 12). Its external address shows another NAT above it, as that of an open
//! port would. The flow to the server that gets keepalives then needs fewer of them, if the server does see the external
//! address: otherwise another NAT with a lifetime of its own lies between, or the router is wrong. A router that changed
//! such a mapping is not believed again on the same network.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tracing::debug;

use crate::api::{PeerMapping, ServerReport};

/// The longest keepalive interval, however long the lifetime: other changes want to be noticed too.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// The router's present statements.
#[derive(Debug, Default)]
pub(crate) struct PeerMappings {
    list: Vec<PeerMapping>,
    broken: bool,
}

impl PeerMappings {
    /// Replaces the list. Returns false if nothing changed.
    pub(crate) fn replace(&mut self, list: Vec<PeerMapping>) -> bool {
        let changed = self.list != list;
        if changed {
            debug!(count = list.len(), "router's peer mappings changed");
            self.list = list;
        }
        changed
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A server sees another reflexive address than before.
    pub(crate) fn on_mapping_changed(&mut self, remote: SocketAddr, seen: Option<SocketAddr>) {
        if self.of(remote).is_some_and(|mapping| seen != Some(mapping.external)) {
            debug!(server = %remote, ?seen, reason = "mapping changed", "router's peer mappings are not believed any more");
            self.broken = true;
        }
    }

    /// Returns the router's external IPv4 address.
    pub(crate) fn external_ip(&self) -> Option<IpAddr> {
        self.list.iter().map(|mapping| mapping.external.ip()).find(IpAddr::is_ipv4)
    }

    /// Returns the keepalive interval: the usual one, or half of the shortest lifetime if there is one for every server.
    pub(crate) fn keepalive_interval<'a>(
        &self,
        servers: impl Iterator<Item = &'a ServerReport>,
        usual: Duration,
    ) -> Duration {
        let lifetime = |server: &ServerReport| {
            let mapping = self.of(server.address).filter(|m| Some(m.external) == server.reflexive);
            mapping.map_or(Duration::ZERO, |mapping| mapping.lifetime)
        };
        let shortest = servers.map(lifetime).min().filter(|_| !self.broken).unwrap_or_default();
        (shortest / 2).clamp(usual, MAX_INTERVAL.max(usual))
    }

    fn of(&self, remote: SocketAddr) -> Option<&PeerMapping> {
        self.list.iter().find(|mapping| mapping.remote == remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(22);

    fn mapping(lifetime: u64) -> PeerMapping {
        PeerMapping {
            remote: ([11, 0, 1, 1], 3478).into(),
            external: ([11, 0, 0, 1], 5000).into(),
            lifetime: Duration::from_secs(lifetime),
        }
    }

    fn server(reflexive: SocketAddr) -> ServerReport {
        ServerReport {
            name: "stun".into(),
            address: mapping(0).remote,
            rtt: None,
            reflexive: Some(reflexive),
            other_address: None,
            timed_out: false,
        }
    }

    fn interval(mappings: &PeerMappings, reflexive: SocketAddr) -> Duration {
        mappings.keepalive_interval([&server(reflexive)].into_iter(), USUAL)
    }

    #[test]
    fn keepalive_interval_is_half_the_lifetime_within_bounds() {
        for (lifetime, seconds) in [(4, 22), (80, 40), (1200, 60)] {
            let mut mappings = PeerMappings::default();
            assert!(mappings.replace(vec![mapping(lifetime)]) && !mappings.replace(vec![mapping(lifetime)]));
            assert_eq!(interval(&mappings, mapping(0).external), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn mapping_that_the_server_sees_elsewhere_saves_nothing() {
        let mut mappings = PeerMappings::default();
        mappings.replace(vec![mapping(1200)]);
        assert_eq!(interval(&mappings, ([11, 0, 0, 1], 5001).into()), USUAL);
    }

    #[test]
    fn router_that_changed_a_mapping_is_not_believed_again() {
        let mut mappings = PeerMappings::default();
        mappings.replace(vec![mapping(1200)]);
        mappings.on_mapping_changed(mapping(0).remote, Some(mapping(0).external));
        assert_eq!(interval(&mappings, mapping(0).external), Duration::from_secs(60), "it is as described");
        mappings.on_mapping_changed(mapping(0).remote, Some(([11, 0, 0, 1], 7).into()));
        mappings.replace(vec![mapping(1100)]);
        assert_eq!(interval(&mappings, mapping(0).external), USUAL);
    }
}
