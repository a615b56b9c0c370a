//! Connections and rates of each client address, and of the larger IPv6 networks that it is in, of which one customer has
//! many addresses.

use std::{net::IpAddr, time::Instant};

use crate::{
    limits::{Limit, Limits},
    networks::{NetworkSize, Networks},
};

/// All addresses and prefixes that have a connection, or whose token buckets have not refilled since they had one.
#[derive(Debug)]
pub(crate) struct Addresses {
    addresses: Networks,
    prefixes56: Networks,
    prefixes48: Networks,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            addresses: Networks::new(NetworkSize::Address),
            prefixes56: Networks::new(NetworkSize::Prefix56),
            prefixes48: Networks::new(NetworkSize::Prefix48),
        }
    }
}

impl Addresses {
    /// Counts a connection, unless a network of the address has too many or too many addresses are known.
    pub(crate) fn connect(&mut self, address: IpAddr, limits: &Limits) -> Result<(), Limit> {
        if self.addresses.len() >= limits.addresses && !self.addresses.knows(address) {
            return Err(Limit::Addresses);
        }
        let checks = [
            (&self.addresses, limits.connections_per_address, Limit::ConnectionsPerAddress),
            (&self.prefixes56, limits.connections_per_prefix56, Limit::ConnectionsPerPrefix56),
            (&self.prefixes48, limits.connections_per_prefix48, Limit::ConnectionsPerPrefix48),
        ];
        let full = checks.iter().find(|(networks, max, _)| networks.is_full(address, *max));
        if let Some((_, _, limit)) = full {
            return Err(*limit);
        }
        self.each().into_iter().for_each(|networks| networks.connect(address));
        Ok(())
    }

    pub(crate) fn disconnect(&mut self, now: Instant, address: IpAddr) {
        self.each().into_iter().for_each(|networks| networks.disconnect(now, address));
    }

    /// Takes frames out of the address's bucket.
    pub(crate) fn take_frames(
        &mut self,
        now: Instant,
        address: IpAddr,
        count: u64,
        limits: &Limits,
    ) -> Result<(), Limit> {
        let granted = self.addresses.take_frames(now, address, &limits.address_rate, count);
        if granted { Ok(()) } else { Err(Limit::AddressRate) }
    }

    /// Takes bytes out of the buckets of the address and of its prefixes.
    pub(crate) fn take_bytes(
        &mut self,
        now: Instant,
        address: IpAddr,
        count: u64,
        limits: &Limits,
    ) -> Result<(), Limit> {
        let buckets = [
            (&mut self.addresses, &limits.address_bytes, Limit::AddressBytes),
            (&mut self.prefixes56, &limits.prefix56_bytes, Limit::Prefix56Bytes),
            (&mut self.prefixes48, &limits.prefix48_bytes, Limit::Prefix48Bytes),
        ];
        for (networks, rate, limit) in buckets {
            if !networks.take_bytes(now, address, rate, count) {
                return Err(limit);
            }
        }
        Ok(())
    }

    /// Forgets networks without a connection whose buckets are full again. Returns how many.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        self.each().into_iter().map(|networks| networks.sweep(now)).sum()
    }

    /// Returns the number of addresses that are known.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    const fn each(&mut self) -> [&mut Networks; 3] {
        [&mut self.addresses, &mut self.prefixes56, &mut self.prefixes48]
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
    fn address_is_remembered_until_its_buckets_are_full() {
        let limits = Limits {
            address_rate: Rate::per_second(1, 10),
            address_bytes: Rate::per_second(10, 100),
            ..Limits::default()
        };
        let (now, mut addresses) = (start().instant, Addresses::default());
        for (frames, bytes, seconds) in [(4, 10, 4), (1, 50, 5)] {
            addresses.connect(HOST, &limits).unwrap();
            assert_eq!(addresses.take_frames(now, HOST, frames, &limits), Ok(()));
            assert_eq!(addresses.take_bytes(now, HOST, bytes, &limits), Ok(()));
            addresses.disconnect(now, HOST);
            let full = now + Duration::from_secs(seconds);
            assert_eq!((addresses.sweep(full - Duration::from_nanos(1)), addresses.len()), (0, 1));
            assert_eq!((addresses.sweep(full), addresses.len()), (1, 0));
        }
    }

    #[test]
    fn unknown_address_has_no_tokens() {
        let (now, mut addresses) = (start().instant, Addresses::default());
        let limits = Limits::default();
        assert_eq!(addresses.take_frames(now, HOST, 1, &limits), Err(Limit::AddressRate));
        assert_eq!(addresses.take_bytes(now, HOST, 1, &limits), Err(Limit::AddressBytes));
    }

    #[test]
    fn ipv4_addresses_share_nothing() {
        let limits = Limits { connections_per_prefix56: 0, connections_per_prefix48: 0, ..Limits::default() };
        let mut addresses = Addresses::default();
        addresses.connect(HOST, &limits).unwrap();
        assert_eq!(addresses.take_bytes(start().instant, HOST, 1, &limits), Ok(()));
    }
}
