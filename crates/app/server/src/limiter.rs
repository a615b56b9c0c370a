//! The limits on open TCP connections, in all and from one address, whatever the connections are for.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::counters::{LimitReached, ReasonCounters};

/// Admits TCP connections within limits, and knows how many are open.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    max: usize,
    max_per_address: usize,
    open: Mutex<Open>,
    /// Notified when the last connection has closed.
    drained: Notify,
    refused: ReasonCounters<LimitReached>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    admitted: u64,
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionLimiter {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        let refused = ReasonCounters::default();
        Arc::new(Self { max, max_per_address, open: Mutex::default(), drained: Notify::new(), refused })
    }

    /// Admits a connection from an address. It counts as open until the permit is dropped.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, LimitReached> {
        let address = customer_address(address);
        let mut open = self.lock();
        let from_address = open.by_address.get(&address).copied().unwrap_or_default();
        let reached = if open.total >= self.max {
            Some(LimitReached::Server)
        } else {
            (from_address >= self.max_per_address).then_some(LimitReached::Address)
        };
        if let Some(limit) = reached {
            self.refused.count(limit);
            return Err(limit);
        }
        open.total += 1;
        open.admitted += 1;
        open.by_address.insert(address, from_address + 1);
        Ok(Permit { limiter: Arc::clone(self), address })
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

    /// Returns the maximum number of connections, in all and from one address.
    pub(crate) const fn limits(&self) -> (usize, usize) {
        (self.max, self.max_per_address)
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
        if let Some(from_address) = open.by_address.get_mut(&address) {
            *from_address -= 1;
            if *from_address == 0 {
                open.by_address.remove(&address);
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

/// An IPv6 customer has a whole /64, so its addresses count as one.
fn customer_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_a_dropped_permit_makes_room() {
        let limiter = ConnectionLimiter::new(3, 2);
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
        assert_eq!(limiter.refused().each().collect::<Vec<_>>(), [("server_limit", 1), ("address_limit", 1)]);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let limiter = ConnectionLimiter::new(9, 1);
        let _first = limiter.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(limiter.admit("2001:db8::2".parse().unwrap()).unwrap_err(), LimitReached::Address);
        assert!(limiter.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
