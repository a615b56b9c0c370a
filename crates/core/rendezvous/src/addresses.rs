//! Connections and rate of each client address. An IPv6 customer has a whole /64, so that it counts as one address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use partyline_timing::Level;

use crate::limits::{Limit, Limits};

/// All addresses that have a connection, or whose token bucket has not refilled since they had one.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: BTreeMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    connections: usize,
    bucket: Level,
}

impl Addresses {
    /// Counts a connection, unless the address has too many or too many addresses are known.
    pub(crate) fn connect(&mut self, address: IpAddr, limits: &Limits) -> Result<(), Limit> {
        let address = site(address);
        if self.known.len() >= limits.addresses && !self.known.contains_key(&address) {
            return Err(Limit::Addresses);
        }
        let entry = self.known.entry(address).or_default();
        if entry.connections >= limits.connections_per_address {
            return Err(Limit::ConnectionsPerAddress);
        }
        entry.connections += 1;
        Ok(())
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

    /// Takes `cost` tokens from the address's bucket.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        address: IpAddr,
        cost: u64,
        limits: &Limits,
    ) -> Result<(), Limit> {
        let entry = self.known.get_mut(&site(address));
        let granted = entry.is_some_and(|entry| entry.bucket.take(now, &limits.address_rate, cost));
        if granted { Ok(()) } else { Err(Limit::AddressRate) }
    }

    /// Forgets addresses without a connection whose bucket is full again. Returns how many.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let before = self.known.len();
        self.known.retain(|_, entry| !entry.is_forgettable(now));
        before - self.known.len()
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

/// Returns the address under which a client is counted: IPv4 as it is, IPv6 without its interface identifier.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partyline_timing::Rate;

    use super::*;
    use crate::tests::start;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn address_is_remembered_until_its_bucket_is_full() {
        let limits = Limits { address_rate: Rate::per_second(1, 10), ..Limits::default() };
        let (now, mut addresses) = (start().instant, Addresses::default());
        addresses.connect(HOST, &limits).unwrap();
        assert_eq!(addresses.take(now, HOST, 4, &limits), Ok(()));
        addresses.disconnect(now, HOST);
        assert_eq!((addresses.sweep(now + Duration::from_secs(3)), addresses.len()), (0, 1));
        assert_eq!((addresses.sweep(now + Duration::from_secs(4)), addresses.len()), (1, 0));
    }

    #[test]
    fn unknown_address_has_no_tokens() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take(start().instant, HOST, 1, &Limits::default()), Err(Limit::AddressRate));
    }
}
