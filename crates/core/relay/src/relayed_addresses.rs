//! The relayed transport addresses of the server: which ports are taken, and by which socket.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand_chacha::rand_core::RngCore;

use crate::{client::RelaySocket, settings::RelayAddress};

/// Ports drawn at random before the range is searched in order.
const RANDOM_DRAWS: usize = 16;

/// Hands out relayed addresses, at most one IP address per family.
#[derive(Debug)]
pub(crate) struct RelayedAddresses {
    /// IPv4, IPv6.
    addresses: [Option<RelayAddress>; 2],
    ports: RangeInclusive<u16>,
    in_use: HashMap<SocketAddr, RelaySocket, FixedState>,
}

impl RelayedAddresses {
    pub(crate) fn new(addresses: &[RelayAddress], ports: RangeInclusive<u16>, hasher: &FixedState) -> Self {
        let of_family = |v6: bool| addresses.iter().find(|address| address.public.is_ipv6() == v6).copied();
        Self {
            addresses: [of_family(false), of_family(true)],
            ports,
            in_use: HashMap::with_hasher(hasher.clone()),
        }
    }

    /// Returns true if the server relays for this address family.
    pub(crate) fn supports(&self, v6: bool) -> bool {
        self.addresses[usize::from(v6)].is_some()
    }

    /// Returns true if relayed addresses of this server have this IP address.
    pub(crate) fn is_relay_ip(&self, ip: IpAddr) -> bool {
        self.addresses[usize::from(ip.is_ipv6())].is_some_and(|relay| relay.public == ip)
    }

    /// Returns the socket of a relayed address.
    pub(crate) fn socket_at(&self, address: SocketAddr) -> Option<RelaySocket> {
        if !self.is_relay_ip(address.ip()) {
            return None;
        }
        self.in_use.get(&address).copied()
    }

    /// Reserves a port for a socket. Returns the public address, and the local one to bind the socket to; `None` if no
    /// port is free.
    pub(crate) fn reserve(
        &mut self,
        socket: RelaySocket,
        even: bool,
        rng: &mut impl RngCore,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let address = self.addresses[usize::from(socket.is_v6())]?;
        let port = self.free_port(address.public, even, rng)?;
        let public = SocketAddr::new(address.public, port);
        self.in_use.insert(public, socket);
        Some((public, SocketAddr::new(address.local, port)))
    }

    /// Frees the port of a public address.
    pub(crate) fn release(&mut self, public: SocketAddr) {
        self.in_use.remove(&public);
    }

    /// Ports are random, so that a stranger cannot guess the next one.
    fn free_port(&self, ip: IpAddr, even: bool, rng: &mut impl RngCore) -> Option<u16> {
        let (first, last) = (u64::from(*self.ports.start()), u64::from(*self.ports.end()));
        let count = (last + 1).checked_sub(first).filter(|count| *count > 0)?;
        let drawn: [u16; RANDOM_DRAWS] = std::array::from_fn(|_| (first + rng.next_u64() % count) as u16);
        let from = u64::from(drawn[0]) - first;
        let searched = (0..count).map(|step| (first + (from + step) % count) as u16);
        let is_free = |port: &u16| {
            (!even || port.is_multiple_of(2)) && !self.in_use.contains_key(&SocketAddr::new(ip, *port))
        };
        drawn.into_iter().chain(searched).find(is_free)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    fn addresses(ports: RangeInclusive<u16>) -> RelayedAddresses {
        let ip = [198, 51, 100, 1].into();
        let relay = RelayAddress { local: [10, 0, 0, 1].into(), public: ip };
        RelayedAddresses::new(&[relay], ports, &FixedState::with_seed(1))
    }

    #[test]
    fn every_port_of_the_range_is_handed_out_once() {
        let (mut addresses, mut rng) = (addresses(50_000..=50_099), ChaCha8Rng::from_seed([1; 32]));
        let mut ports: Vec<_> = (0..100)
            .map(|n| addresses.reserve(RelaySocket::new(n, false), false, &mut rng).unwrap().0.port())
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, (50_000..=50_099).collect::<Vec<_>>());
        assert_eq!(addresses.reserve(RelaySocket::new(100, false), false, &mut rng), None);
        let public = SocketAddr::from(([198, 51, 100, 1], 50_007));
        addresses.release(public);
        let local = SocketAddr::from(([10, 0, 0, 1], 50_007));
        let socket = RelaySocket::new(101, false);
        assert_eq!(addresses.reserve(socket, false, &mut rng), Some((public, local)));
        assert_eq!(addresses.socket_at(public), Some(socket));
    }

    #[test]
    fn even_ports_and_missing_families_are_respected() {
        let (mut addresses, mut rng) = (addresses(50_001..=50_003), ChaCha8Rng::from_seed([1; 32]));
        let even = addresses.reserve(RelaySocket::new(0, false), true, &mut rng);
        assert_eq!(even.map(|(public, _)| public.port()), Some(50_002));
        assert_eq!(addresses.reserve(RelaySocket::new(1, false), true, &mut rng), None);
        assert!(addresses.supports(false) && !addresses.supports(true));
        assert_eq!(addresses.reserve(RelaySocket::new(1, true), false, &mut rng), None);
    }
}
