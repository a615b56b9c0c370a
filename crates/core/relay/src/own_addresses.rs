//! The addresses of the computer that the server runs on. A program there may trust them: an admin page that answers only
//! its own computer would be open to everybody if the relay sent packets to it.

use std::net::IpAddr;

use crate::{
    peer_policy::effective,
    settings::{Listener, RelayAddress},
};

/// All addresses that lead to the server's own computer.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    /// Those of the configuration, which a one-to-one NAT may translate and no interface has.
    configured: Vec<IpAddr>,
    /// Those of the network interfaces, as they were read last.
    interfaces: Vec<IpAddr>,
}

impl OwnAddresses {
    pub(crate) fn new(listeners: &[Listener], relay: &[RelayAddress]) -> Self {
        let listeners = listeners.iter().flat_map(|listener| [listener.local.ip(), listener.public.ip()]);
        let relay = relay.iter().flat_map(|address| [address.local, address.public]);
        Self { configured: sorted(listeners.chain(relay)), interfaces: Vec::new() }
    }

    /// Replaces the addresses of the network interfaces. Returns the number of different ones.
    pub(crate) fn set_interfaces(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> usize {
        self.interfaces = sorted(addresses);
        self.interfaces.len()
    }

    /// Returns true if packets for an address reach the server's own computer.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let knows = |ip: &IpAddr| {
            self.configured.binary_search(ip).is_ok() || self.interfaces.binary_search(ip).is_ok()
        };
        knows(&address) || knows(&effective(address))
    }
}

/// Sorts addresses, so that each packet costs a binary search. Interfaces may have thousands.
fn sorted(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut sorted: Vec<_> = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_and_interface_addresses_are_own_in_every_spelling() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let listener = Listener {
            local: "10.0.0.1:3478".parse().unwrap(),
            public: "198.51.100.1:3478".parse().unwrap(),
        };
        let mut own = OwnAddresses::new(&[listener], &[]);
        assert_eq!(own.set_interfaces([ip("203.0.113.9"), ip("2001:db8::9"), ip("203.0.113.9")]), 2);
        for address in [
            "10.0.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "::ffff:203.0.113.9",
            "64:ff9b::203.0.113.9",
            "2002:cb00:7109::1",
            "2001:db8::9",
        ] {
            assert!(own.contains(ip(address)), "{address}");
        }
        own.set_interfaces([]);
        assert!(!own.contains(ip("203.0.113.9")) && own.contains(ip("10.0.0.1")));
    }
}
