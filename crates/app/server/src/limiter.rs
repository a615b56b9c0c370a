//! The limits on open TCP connections, in all, from one address and from one IPv6 prefix, whatever the connections are for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use partyline_model::{HOST_PREFIX_LEN, network_of};
use tokio::sync::Notify;

use crate::counters::{LimitReached, ReasonCounters};

/// Maximum numbers of open TCP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// From one address (IPv6: one /64).
    pub per_address: usize,
    /// From one IPv6 /56.
    pub per_prefix56: usize,
    /// From one IPv6 /48.
    pub per_prefix48: usize,
}

/// Admits TCP connections within limits, and knows how many are open.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    limits: ConnectionLimits,
    open: Mutex<Open>,
    /// Notified when the last connection has closed.
    drained: Notify,
    refused: ReasonCounters<LimitReached>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    admitted: u64,
    /// Connections by the length of the prefix and the network.
    by_network: HashMap<(u8, IpAddr), usize>,
}

impl Open {
    fn from(&self, network: (u8, IpAddr)) -> usize {
        self.by_network.get(&network).copied().unwrap_or_default()
    }
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let refused = ReasonCounters::default();
        Arc::new(Self { limits, open: Mutex::default(), drained: Notify::new(), refused })
    }

    /// Admits a connection from an address. It counts as open until the permit is dropped.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, LimitReached> {
        let mut open = self.lock();
        if let Some(limit) = self.reached(&open, address) {
            self.refused.count(limit);
            return Err(limit);
        }
        open.total += 1;
        open.admitted += 1;
        networks(address).for_each(|network| *open.by_network.entry(network).or_default() += 1);
        Ok(Permit { limiter: Arc::clone(self), address })
    }

    /// Returns the limit that another connection from an address would exceed.
    fn reached(&self, open: &Open, address: IpAddr) -> Option<LimitReached> {
        if open.total >= self.limits.total {
            return Some(LimitReached::Server);
        }
        let full = networks(address).find(|network| open.from(*network) >= self.max_from(*network));
        full.map(
            |(bits, _)| if bits == HOST_PREFIX_LEN { LimitReached::Address } else { LimitReached::Prefix },
        )
    }

    const fn max_from(&self, (bits, _): (u8, IpAddr)) -> usize {
        match bits {
            48 => self.limits.per_prefix48,
            56 => self.limits.per_prefix56,
            _ => self.limits.per_address,
        }
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.lock().total
    }

    /// Returns the number of connections admitted since the start.
    pub(crate) fn admitted(&self) -> u64 {
        self.lock().admitted
    }

    /// Returns the connections refused since the start, by the limit they would have exceeded.
    pub(crate) const fn refused(&self) -> &ReasonCounters<LimitReached> {
        &self.refused
    }

    /// Returns the maximum numbers of connections.
    pub(crate) const fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Waits until no connection is open.
    pub(crate) async fn wait_until_drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.open() == 0 {
                return;
            }
            drained.await;
        }
    }

    fn release(&self, address: IpAddr) {
        let mut open = self.lock();
        open.total -= 1;
        for network in networks(address) {
            let left = open.from(network).saturating_sub(1);
            if left > 0 {
                open.by_network.insert(network, left);
            } else {
                open.by_network.remove(&network);
            }
        }
        if open.total == 0 {
            self.drained.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An admitted connection. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl Permit {
    /// Returns the client's address; for IPv6, the /64 network.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self.address);
    }
}

/// Returns the networks that an address is in, with the lengths of their prefixes. IPv4 addresses share none.
fn networks(address: IpAddr) -> impl Iterator<Item = (u8, IpAddr)> {
    let all = [HOST_PREFIX_LEN, 56, 48].map(|prefix_len| (prefix_len, network_of(address, prefix_len)));
    all.into_iter().filter(|(prefix_len, network)| *prefix_len == HOST_PREFIX_LEN || network.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: usize, per_address: usize) -> ConnectionLimits {
        ConnectionLimits { total, per_address, per_prefix56: 9, per_prefix48: 9 }
    }

    #[test]
    fn both_limits_hold_and_a_dropped_permit_makes_room() {
        let limiter = ConnectionLimiter::new(limits(3, 2));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = limiter.admit(a).unwrap();
        let _second = limiter.admit(a).unwrap();
        assert_eq!(limiter.admit(a).unwrap_err(), LimitReached::Address);
        let _third = limiter.admit(b).unwrap();
        assert_eq!(limiter.admit(b).unwrap_err(), LimitReached::Server);
        drop(first);
        let fourth = limiter.admit(b);
        assert!(fourth.is_ok());
        assert_eq!((limiter.open(), limiter.admitted()), (3, 4));
        assert_eq!(
            limiter.refused().each().collect::<Vec<_>>(),
            [("server_limit", 1), ("address_limit", 1), ("prefix_limit", 0)]
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let limiter = ConnectionLimiter::new(limits(9, 1));
        let _first = limiter.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(limiter.admit("2001:db8::2".parse().unwrap()).unwrap_err(), LimitReached::Address);
        assert!(limiter.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    /// One customer's IPv6 prefix has thousands of addresses.
    #[test]
    fn one_ipv6_prefix_cannot_take_all_connections() {
        let limiter =
            ConnectionLimiter::new(ConnectionLimits { per_prefix56: 2, per_prefix48: 3, ..limits(9, 1) });
        let admit = |text: &str| limiter.admit(text.parse().unwrap());
        let permits = ["2001:db8:0:1::1", "2001:db8:0:2::1"].map(|text| admit(text).unwrap());
        assert_eq!(admit("2001:db8:0:3::1").unwrap_err(), LimitReached::Prefix, "the /56 is full");
        let third = admit("2001:db8:0:100::1").unwrap();
        assert_eq!(admit("2001:db8:0:200::1").unwrap_err(), LimitReached::Prefix, "the /48 is full");
        let other = admit("2001:db8:1::1").unwrap();
        let v4 = admit("192.0.2.1").unwrap();
        drop(permits);
        assert!(admit("2001:db8:0:3::1").is_ok());
        drop((third, other, v4));
        assert_eq!((limiter.open(), limiter.lock().by_network.len()), (0, 0));
    }
}
