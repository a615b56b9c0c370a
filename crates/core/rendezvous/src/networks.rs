//! Connections and rates of all client networks of one size.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use partyline_model::{HOST_PREFIX_LEN, network_of};
use partyline_timing::{Level, Rate};

/// How large a network is that counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkSize {
    /// An IPv4 address, or an IPv6 /64, all addresses of which one host can have.
    Address,
    /// An IPv6 /56.
    Prefix56,
    /// An IPv6 /48.
    Prefix48,
}

impl NetworkSize {
    /// Returns the network of this size that an address is in; `None` for an IPv4 address in any but the smallest.
    fn network_of(self, address: IpAddr) -> Option<IpAddr> {
        let prefix_len = match self {
            Self::Address => HOST_PREFIX_LEN,
            Self::Prefix56 => 56,
            Self::Prefix48 => 48,
        };
        let network = network_of(address, prefix_len);
        (self == Self::Address || network.is_ipv6()).then_some(network)
    }
}

#[derive(Debug, Default)]
struct Network {
    connections: usize,
    frames: Level,
    bytes: Level,
}

impl Network {
    fn is_forgettable(&self, now: Instant) -> bool {
        self.connections == 0 && self.frames.is_full(now) && self.bytes.is_full(now)
    }
}

/// All networks of one size that have a connection, or whose token buckets have not refilled since they had one.
#[derive(Debug)]
pub(crate) struct Networks {
    size: NetworkSize,
    known: BTreeMap<IpAddr, Network>,
}

impl Networks {
    pub(crate) const fn new(size: NetworkSize) -> Self {
        Self { size, known: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns true if the address's network is known, or there is none of this size.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        self.size.network_of(address).is_none_or(|network| self.known.contains_key(&network))
    }

    /// Returns true if the address's network has as many connections as it may. Without one of this size, it has not.
    pub(crate) fn is_full(&self, address: IpAddr, max: usize) -> bool {
        let open = |network| self.known.get(&network).map_or(0, |network| network.connections);
        self.size.network_of(address).is_some_and(|network| open(network) >= max)
    }

    /// Counts a connection.
    pub(crate) fn connect(&mut self, address: IpAddr) {
        if let Some(network) = self.size.network_of(address) {
            self.known.entry(network).or_default().connections += 1;
        }
    }

    /// Counts a connection no longer.
    pub(crate) fn disconnect(&mut self, now: Instant, address: IpAddr) {
        let Some(key) = self.size.network_of(address) else { return };
        if let Some(network) = self.known.get_mut(&key) {
            network.connections = network.connections.saturating_sub(1);
            if network.is_forgettable(now) {
                self.known.remove(&key);
            }
        }
    }

    /// Takes frames out of the network's bucket. Returns false if there are not that many.
    pub(crate) fn take_frames(&mut self, now: Instant, address: IpAddr, rate: &Rate, count: u64) -> bool {
        self.take(address, |network| network.frames.take(now, rate, count))
    }

    /// Takes bytes out of the network's bucket. Returns false if there are not that many.
    pub(crate) fn take_bytes(&mut self, now: Instant, address: IpAddr, rate: &Rate, count: u64) -> bool {
        self.take(address, |network| network.bytes.take(now, rate, count))
    }

    /// An unknown network has no tokens; where there is no network of this size, nothing is limited.
    fn take(&mut self, address: IpAddr, take: impl FnOnce(&mut Network) -> bool) -> bool {
        let network = self.size.network_of(address);
        network.is_none_or(|network| self.known.get_mut(&network).is_some_and(take))
    }

    /// Forgets networks without a connection whose buckets are full again. Returns how many.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let before = self.known.len();
        self.known.retain(|_, network| !network.is_forgettable(now));
        before - self.known.len()
    }
}
