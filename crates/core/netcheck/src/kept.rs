//! Flows that the router has promised to keep.
//!
//! A router that speaks PCP but opens no ports may still say for the flows that there are where they are seen, and how
//! long it keeps them ([`PeerMapping`]). Its outside address tells of another NAT above it, as that of an open port would.
//! The flow to the server that is asked now and then needs fewer questions then, if the server does see it there: else
//! another NAT, with a lifetime of its own, lies between, or the router is wrong. One that did not keep its word is not
//! believed again in the same network.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{Netcheck, PeerMapping, servers::Family};

/// However long the promise is: other changes want to be seen too.
const LONGEST: Duration = Duration::from_secs(60);

/// What is promised.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    promises: Vec<PeerMapping>,
    broken: bool,
}

impl Kept {
    pub(crate) fn any(&self) -> bool {
        !self.promises.is_empty()
    }

    /// A server sees another mapping than before, and not the one that was promised.
    pub(crate) fn changed(&mut self, remote: SocketAddr, seen: Option<SocketAddr>) {
        self.broken |= self.promise(remote).is_some_and(|promise| seen != Some(promise.external));
    }

    /// The router's IPv4 address outside, as it tells it with its promises.
    pub(crate) fn outside(&self) -> Option<IpAddr> {
        self.promises.iter().map(|promise| promise.external.ip()).find(IpAddr::is_ipv4)
    }

    fn promise(&self, remote: SocketAddr) -> Option<&PeerMapping> {
        self.promises.iter().find(|promise| promise.remote == remote)
    }
}

impl Netcheck {
    /// Takes what the router promises for the tunnel socket's flows; the whole list every time. To be told again after
    /// [`Netcheck::set_local_addresses`] and [`Netcheck::restart`], which forget.
    pub fn set_peer_mappings(&mut self, now: Instant, promises: Vec<PeerMapping>) {
        if self.kept.promises != promises {
            self.kept.promises = promises;
            self.note_mapped();
            self.schedule_refresh(now);
            self.advance(now);
        }
    }

    /// The servers that the tunnel's socket wants to be heard by at any time: one of each address family.
    #[must_use]
    pub fn keepalive_servers(&self) -> Vec<SocketAddr> {
        let answering = Family::BOTH.into_iter().filter_map(|family| self.servers.answering(family));
        answering.map(|(_, server)| server.report.address).collect()
    }

    /// How long the mapping may be left alone: as usual, or half of what is promised for every server.
    pub(crate) fn pause(&self) -> Duration {
        let answering = Family::BOTH.into_iter().filter_map(|family| self.servers.answering(family));
        let promised = answering.map(|(_, server)| {
            let promise = self.kept.promise(server.report.address);
            let true_one = promise.filter(|promise| Some(promise.external) == server.report.reflexive);
            true_one.map_or(Duration::ZERO, |promise| promise.lifetime)
        });
        let usual = self.config.keepalive_interval;
        let lifetime = promised.min().filter(|_| !self.kept.broken).unwrap_or_default();
        (lifetime / 2).clamp(usual, LONGEST.max(usual))
    }
}
