//! This computer's addresses, networks and default gateways.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use partyline_model::CardKind;

use crate::{DEVICE_PREFIX, cards::Cards};

/// An address of one of the computer's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The interface's name.
    pub interface: String,
    /// The interface's index, as used for IPv6 scopes and multicast.
    pub index: Option<u32>,
    /// The IP address.
    pub address: IpAddr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
    /// True for a point-to-point interface (tunnels, modems).
    pub point_to_point: bool,
    /// What stands behind the interface.
    pub card: CardKind,
    /// True for an address that new connections should not use (RFC 4862, section 5.5.4).
    pub deprecated: bool,
}

impl LocalAddress {
    /// Returns the network of the address; `None` if the prefix is too long.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        IpNet::new(self.address, self.prefix).ok().map(|network| network.trunc())
    }
}

/// A default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// The router's address.
    pub address: IpAddr,
    /// The index of the interface towards it.
    pub interface: Option<u32>,
}

/// Returns true if an interface is a party's device, by its name.
#[must_use]
pub fn is_own_device(interface: &str) -> bool {
    interface.strip_prefix(DEVICE_PREFIX).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns this computer's addresses on interfaces that are up, without loopback and without the devices of parties.
///
/// # Errors
/// If the system call fails.
pub fn local_addresses() -> io::Result<Vec<LocalAddress>> {
    addresses(if_addrs::Interface::is_oper_up)
}

/// Returns the same with interfaces that are down, whose networks may come back at any moment.
///
/// # Errors
/// If the system call fails.
pub(crate) fn configured_addresses() -> io::Result<Vec<LocalAddress>> {
    addresses(|_| true)
}

fn addresses(wanted: impl Fn(&if_addrs::Interface) -> bool) -> io::Result<Vec<LocalAddress>> {
    let interfaces = if_addrs::get_if_addrs()?.into_iter();
    let foreign = interfaces.filter(|interface| !interface.is_loopback() && !is_own_device(&interface.name));
    let cards = Cards::read();
    let mut addresses: Vec<_> = foreign.filter(wanted).map(|found| local_address(found, &cards)).collect();
    addresses.sort();
    Ok(addresses)
}

fn local_address(interface: if_addrs::Interface, cards: &Cards) -> LocalAddress {
    let prefix = match &interface.addr {
        if_addrs::IfAddr::V4(v4) => v4.prefixlen,
        if_addrs::IfAddr::V6(v6) => v6.prefixlen,
    };
    LocalAddress {
        card: cards.kind(interface.index),
        deprecated: cards.is_deprecated(interface.index, interface.ip()),
        address: interface.ip(),
        point_to_point: interface.is_p2p,
        index: interface.index,
        interface: interface.name,
        prefix,
    }
}

/// The devices of parties on this computer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnDevices {
    indexes: BTreeSet<u32>,
    networks: BTreeSet<IpNet>,
}

impl OwnDevices {
    /// Reads them.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn read() -> io::Result<Self> {
        let interfaces = if_addrs::get_if_addrs()?.into_iter();
        let own = interfaces.filter(|interface| is_own_device(&interface.name));
        Ok(own.map(|interface| local_address(interface, &Cards::default())).collect())
    }

    /// Returns true if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Returns true if one has this interface index.
    #[must_use]
    pub fn has_index(&self, index: u32) -> bool {
        self.indexes.contains(&index)
    }

    /// Returns true if an address lies in the network of one.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// The devices that have these addresses.
impl FromIterator<LocalAddress> for OwnDevices {
    fn from_iter<I: IntoIterator<Item = LocalAddress>>(addresses: I) -> Self {
        let mut devices = Self::default();
        for address in addresses {
            devices.indexes.extend(address.index);
            devices.networks.extend(address.network());
        }
        devices
    }
}

/// The networks that this computer reaches other than by its default route and the parties' devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalNetworks {
    /// The networks of its own interfaces, those included that are down and may come back at any moment.
    pub on_link: Vec<IpNet>,
    /// The destinations of routes, in any table.
    pub routed: Vec<IpNet>,
}

impl LocalNetworks {
    /// Reads the current networks.
    ///
    /// # Errors
    /// If addresses or routes cannot be read.
    pub async fn read() -> io::Result<Self> {
        let on_link = configured_addresses()?.iter().filter_map(LocalAddress::network).collect();
        let routes = route_manager::AsyncRouteManager::new()?.list().await?;
        let foreign = routes.iter().filter(|route| !route.if_name().is_some_and(|name| is_own_device(name)));
        let networks = foreign.filter_map(|route| IpNet::new(route.destination(), route.prefix()).ok());
        let routed = networks.filter(is_unicast).map(|network| network.trunc()).collect();
        Ok(Self { on_link: sorted(on_link), routed: sorted(routed) })
    }
}

fn sorted(mut networks: Vec<IpNet>) -> Vec<IpNet> {
    networks.sort();
    networks.dedup();
    networks
}

/// Returns false for a default route, multicast, loopback and broadcast.
fn is_unicast(network: &IpNet) -> bool {
    let address = network.addr();
    network.prefix_len() > 0
        && !address.is_multicast()
        && !address.is_loopback()
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Returns the routers of the default routes.
///
/// # Errors
/// If the routing table cannot be read.
pub async fn default_gateways() -> io::Result<Vec<Gateway>> {
    let routes = route_manager::AsyncRouteManager::new()?.list().await?;
    let defaults = routes.iter().filter(|route| route.prefix() == 0);
    let mut gateways: Vec<_> = defaults
        .filter_map(|route| Some(Gateway { address: route.gateway()?, interface: route.if_index() }))
        .collect();
    gateways.sort();
    gateways.dedup();
    Ok(gateways)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_devices_are_recognised_by_name() {
        assert!(is_own_device("partyline0") && is_own_device("partyline12"));
        assert!(!is_own_device("eth0") && !is_own_device("partyline-test"));
    }

    #[test]
    fn default_routes_and_multicast_groups_are_no_local_networks() {
        for text in ["0.0.0.0/0", "::/0", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8", "127.0.0.0/8"] {
            assert!(!is_unicast(&text.parse().unwrap()), "{text}");
        }
        assert!(is_unicast(&"10.0.0.0/8".parse().unwrap()));
    }

    #[tokio::test]
    async fn networks_of_local_addresses_are_on_link() {
        let networks = LocalNetworks::read().await.unwrap();
        let addresses = local_addresses().unwrap();
        let mut found = addresses.iter().filter_map(LocalAddress::network);
        assert!(found.all(|network| networks.on_link.contains(&network)));
        default_gateways().await.unwrap();
    }
}
