//! Networks that were measured before, so that what they do is known at once when the computer comes back to them.
//!
//! A network is known by its routers and its prefixes. Many homes share those (192.168.1.0/24 behind 192.168.1.1), so
//! what is remembered counts only until a server sees another public address, and everything is measured anew.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use partyline_model::{NatProfile, Now, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{LocalNetwork, Node, Output};

/// More networks than anybody visits regularly; beyond it the one measured longest ago is forgotten.
const MOST: usize = 32;
/// What is older than this is not shown any more.
const OLDEST: Duration = Duration::from_secs(90 * 86_400);

/// All of them, the newest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KnownNetworks(Vec<KnownNetwork>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KnownNetwork {
    place: Place,
    nat: NatProfile,
    measured_at: Timestamp,
}

/// By what a network is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    routers: Vec<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Place {
    /// Without a router there is nothing to know it by.
    fn of(local: &LocalNetwork) -> Option<Self> {
        let (mut routers, mut prefixes) = (local.routers.clone(), local.prefixes.clone());
        routers.sort_unstable();
        routers.dedup();
        // Those of other adapters come and go.
        prefixes.iter_mut().for_each(|prefix| *prefix = prefix.trunc());
        prefixes.retain(|prefix| routers.iter().any(|router| prefix.contains(router)));
        prefixes.sort_unstable();
        prefixes.dedup();
        (!routers.is_empty()).then_some(Self { routers, prefixes })
    }
}

impl KnownNetworks {
    fn get(&self, place: &Place) -> Option<&KnownNetwork> {
        self.0.iter().find(|known| known.place == *place)
    }

    fn put(&mut self, known: KnownNetwork) {
        self.0.retain(|other| other.place != known.place);
        self.0.insert(0, known);
        self.0.truncate(MOST);
    }
}

impl Node {
    /// Shows what this network did when it was measured last.
    pub(crate) fn recall_network(&mut self, now: Now) {
        self.network.recalled = None;
        let Some(known) = Place::of(&self.local).and_then(|place| self.known.get(&place)) else { return };
        let age = now.unix.since(known.measured_at);
        if age <= OLDEST {
            self.network.recalled = Some(known.measured_at);
            self.netcheck.load_cached_profile(now.instant, &known.nat, age);
        }
    }

    /// Remembers what a measurement found, once it is over.
    pub(crate) fn remember_network(&mut self, now: Now) {
        let Some(at) = self.netcheck.finished_at() else { return };
        let nat = self.netcheck.profile();
        let Some(place) = Place::of(&self.local).filter(|_| nat.mapping.is_some()) else { return };
        let age = now.instant.saturating_duration_since(at);
        let measured_at =
            Timestamp(now.unix.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        let same = |known: &KnownNetwork| known.nat == *nat && measured_at.since(known.measured_at) < RECENT;
        if !self.known.get(&place).is_some_and(same) {
            let nat = nat.clone();
            self.known.put(KnownNetwork { place, nat, measured_at });
            self.outputs.push_back(Output::Save);
        }
    }
}

/// What was measured again so soon, with the same result, is not written again.
const RECENT: Duration = Duration::from_secs(3600);

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
    fn a_network_is_known_by_router_and_prefix() {
        let home = Place::of(&local("192.168.1.1", "192.168.1.7/24"));
        assert_eq!(home, Place::of(&local("192.168.1.1", "192.168.1.99/24")));
        assert_ne!(home, Place::of(&local("192.168.1.1", "192.168.0.0/16")));
        assert_ne!(home, Place::of(&local("192.168.1.254", "192.168.1.7/24")));
        assert_eq!(Place::of(&LocalNetwork::default()), None);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut known = KnownNetworks::default();
        let place = |n: u8| Place { routers: vec![IpAddr::from([10, 0, n, 1])], prefixes: Vec::new() };
        for n in 0..=32 {
            known.put(KnownNetwork {
                place: place(n),
                nat: NatProfile::default(),
                measured_at: Timestamp(0),
            });
        }
        assert!(known.get(&place(0)).is_none() && known.get(&place(1)).is_some() && known.0.len() == MOST);
    }
}
