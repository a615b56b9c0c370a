//! Networks that were measured before, so that what their NAT does is known at once when the computer returns to one.
//!
//! A network is known by its routers and its prefixes. Many homes share those (192.168.1.0/24 behind 192.168.1.1), so
//! what is remembered counts only until a server sees another public address. Then everything is measured again.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use partyline_model::{NatProfile, Now, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::io::LocalNetwork;

/// More networks than anybody visits regularly; beyond it the one measured longest ago is forgotten.
const MAX_NETWORKS: usize = 32;
/// Older measurements are not shown any more.
const MAX_AGE: Duration = Duration::from_secs(90 * 86_400);
/// How long a router counts as small after it was seen to be full.
const SMALL_ROUTER_AGE: Duration = Duration::from_secs(30 * 86_400);
/// The same result is not stored again within this time.
const MIN_REWRITE_AGE: Duration = Duration::from_secs(3600);

/// The known networks, the one measured last first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KnownNetworks(Vec<KnownNetwork>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KnownNetwork {
    fingerprint: Fingerprint,
    nat: NatProfile,
    measured_at: Timestamp,
    #[serde(default)]
    small_router: Option<SmallRouter>,
}

/// A router that was seen to be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SmallRouter {
    /// How many flows sprays may create at a time.
    spray_limit: u32,
    seen_at: Timestamp,
}

/// What a network is recognized by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fingerprint {
    routers: Vec<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Fingerprint {
    /// Returns a network's fingerprint; `None` without a router to recognize it by.
    fn of(local: &LocalNetwork) -> Option<Self> {
        let (mut routers, mut prefixes) = (local.routers.clone(), local.prefixes.clone());
        routers.sort_unstable();
        routers.dedup();
        // Prefixes of other adapters come and go.
        prefixes.iter_mut().for_each(|prefix| *prefix = prefix.trunc());
        prefixes.retain(|prefix| routers.iter().any(|router| prefix.contains(router)));
        prefixes.sort_unstable();
        prefixes.dedup();
        (!routers.is_empty()).then_some(Self { routers, prefixes })
    }
}

impl KnownNetworks {
    /// Returns what this network's NAT did when it was measured last, how long ago, and when that was.
    pub(super) fn recall(
        &self,
        now: Now,
        local: &LocalNetwork,
    ) -> Option<(&NatProfile, Duration, Timestamp)> {
        let known = self.get(&Fingerprint::of(local)?).filter(|known| known.nat.mapping.is_some())?;
        let age = now.unix.since(known.measured_at);
        (age <= MAX_AGE).then_some((&known.nat, age, known.measured_at))
    }

    /// Remembers what a measurement that ended at some moment found. Returns true if that has to be stored.
    pub(super) fn remember(
        &mut self,
        now: Now,
        local: &LocalNetwork,
        finished_at: Instant,
        nat: &NatProfile,
    ) -> bool {
        // A measurement that found no mapping is not worth showing again.
        let fingerprint = Fingerprint::of(local).filter(|_| nat.mapping.is_some());
        let Some(fingerprint) = fingerprint else { return false };
        let measured_at = timestamp(now, finished_at);
        let same = |known: &KnownNetwork| {
            known.nat == *nat && measured_at.since(known.measured_at) < MIN_REWRITE_AGE
        };
        let news = !self.get(&fingerprint).is_some_and(same);
        if news {
            debug!(count = self.0.len(), "network remembered");
            let small_router = self.get(&fingerprint).and_then(|known| known.small_router);
            self.put(KnownNetwork { fingerprint, nat: nat.clone(), measured_at, small_router });
        }
        news
    }

    /// Returns how many flows sprays may create in this network, if its router was seen to be full.
    pub(super) fn spray_limit(&self, now: Now, local: &LocalNetwork) -> Option<u32> {
        let small = self.get(&Fingerprint::of(local)?)?.small_router?;
        (now.unix.since(small.seen_at) <= SMALL_ROUTER_AGE).then_some(small.spray_limit)
    }

    /// Remembers that this network's router was full, and how many flows sprays may create from now on. Returns true if
    /// that has to be stored.
    pub(super) fn remember_small_router(&mut self, now: Now, local: &LocalNetwork, spray_limit: u32) -> bool {
        let Some(fingerprint) = Fingerprint::of(local) else { return false };
        let small_router = Some(SmallRouter { spray_limit, seen_at: now.unix });
        let unmeasured = || KnownNetwork {
            fingerprint: fingerprint.clone(),
            nat: NatProfile::default(),
            measured_at: now.unix,
            small_router: None,
        };
        let known = self.get(&fingerprint).cloned().unwrap_or_else(unmeasured);
        debug!(spray_limit, "small router remembered");
        self.put(KnownNetwork { small_router, ..known });
        true
    }

    fn get(&self, fingerprint: &Fingerprint) -> Option<&KnownNetwork> {
        self.0.iter().find(|known| known.fingerprint == *fingerprint)
    }

    fn put(&mut self, known: KnownNetwork) {
        self.0.retain(|other| other.fingerprint != known.fingerprint);
        self.0.insert(0, known);
        self.0.truncate(MAX_NETWORKS);
    }
}

/// Returns the wall clock's time at some moment of the past.
pub(super) fn timestamp(now: Now, at: Instant) -> Timestamp {
    let age = now.instant.saturating_duration_since(at).as_millis();
    Timestamp(now.unix.0.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(router: &str, prefix: &str) -> LocalNetwork {
        LocalNetwork {
            routers: vec![router.parse().unwrap()],
            prefixes: vec![prefix.parse().unwrap(), "172.17.0.1/16".parse().unwrap()],
            ..LocalNetwork::default()
        }
    }

    #[test]
    fn network_is_recognized_by_router_and_prefix() {
        let home = Fingerprint::of(&local("192.168.1.1", "192.168.1.7/24"));
        assert_eq!(home, Fingerprint::of(&local("192.168.1.1", "192.168.1.99/24")));
        assert_ne!(home, Fingerprint::of(&local("192.168.1.1", "192.168.0.0/16")));
        assert_ne!(home, Fingerprint::of(&local("192.168.1.254", "192.168.1.7/24")));
        assert_eq!(Fingerprint::of(&LocalNetwork::default()), None);
    }

    #[test]
    fn network_measured_longest_ago_is_forgotten() {
        let mut known = KnownNetworks::default();
        let fingerprint =
            |n: u8| Fingerprint { routers: vec![IpAddr::from([10, 0, n, 1])], prefixes: Vec::new() };
        for n in 0..=32 {
            known.put(KnownNetwork {
                fingerprint: fingerprint(n),
                nat: NatProfile::default(),
                measured_at: Timestamp(0),
                small_router: None,
            });
        }
        assert!(
            known.get(&fingerprint(0)).is_none()
                && known.get(&fingerprint(1)).is_some()
                && known.0.len() == MAX_NETWORKS
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn small_router_is_remembered_with_its_network_for_a_month() {
        let at = |days: u64| Now { instant: Instant::now(), unix: Timestamp(days * 86_400_000) };
        let (home, other) = (local("192.168.1.1", "192.168.1.7/24"), local("10.0.0.1", "10.0.0.2/24"));
        let mut known = KnownNetworks::default();
        assert!(known.remember_small_router(at(1), &home, 70));
        assert!(known.recall(at(1), &home).is_none(), "not measured");
        let nat = NatProfile {
            mapping: Some(partyline_model::Mapping::EndpointIndependent),
            ..NatProfile::default()
        };
        assert!(known.remember(at(2), &home, at(2).instant, &nat));
        let stored = serde_json::to_value(&known).unwrap();
        let known: KnownNetworks = serde_json::from_value(stored).unwrap();
        assert!(known.recall(at(2), &home).is_some());
        assert_eq!(known.spray_limit(at(3), &home), Some(70));
        assert_eq!(known.spray_limit(at(32), &home), None);
        assert_eq!(known.spray_limit(at(3), &other), None);
    }
}
