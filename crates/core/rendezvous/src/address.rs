//! What each address has open and how fast it talks. An IPv6 customer has a /64, so that counts as one address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use crate::{Limits, bucket::Bucket};

/// All addresses that have a connection, or lately talked much.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: BTreeMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    bucket: Bucket,
}

impl Addresses {
    /// Counts a connection, unless the address has too many or too many addresses are known.
    pub(crate) fn connect(&mut self, now: Instant, address: IpAddr, limits: &Limits) -> bool {
        let address = site(address);
        if self.known.len() >= limits.addresses && !self.known.contains_key(&address) {
            return false;
        }
        let entry = self
            .known
            .entry(address)
            .or_insert_with(|| Address { connections: 0, bucket: Bucket::full(now) });
        if entry.connections >= limits.connections_per_address {
            return false;
        }
        entry.connections += 1;
        true
    }

    pub(crate) fn disconnect(&mut self, now: Instant, address: IpAddr) {
        let address = site(address);
        if let Some(entry) = self.known.get_mut(&address) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.is_forgettable(now) {
                self.known.remove(&address);
            }
        }
    }

    /// Takes `cost` from the address's pace.
    pub(crate) fn take(&mut self, now: Instant, address: IpAddr, cost: u32, limits: &Limits) -> bool {
        let entry = self.known.get_mut(&site(address));
        entry.is_some_and(|entry| entry.bucket.take(now, limits.address_rate, cost))
    }

    /// Forgets addresses that have no connection and have rested.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, entry| !entry.is_forgettable(now));
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Address {
    fn is_forgettable(&self, now: Instant) -> bool {
        self.connections == 0 && self.bucket.is_full(now)
    }
}

fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}
