//! Cryptokey routing: which member owns which virtual address and which public key.

use std::{collections::BTreeMap, net::IpAddr};

use partyline_model::DeviceId;

use crate::config::{PartyConfig, PeerConfig};

/// Where a packet goes, by its destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One member.
    Unicast,
    /// Every member: broadcast and link-local multicast.
    Broadcast,
    /// Routers only, of which a party's network has none.
    Routers,
}

impl Scope {
    pub(crate) fn of(destination: IpAddr, config: &PartyConfig) -> Self {
        match destination {
            // All routers and all IGMPv3 routers.
            IpAddr::V4(to) if matches!(to.octets(), [224, 0, 0, 2 | 22]) => Self::Routers,
            IpAddr::V4(to) if to.is_broadcast() || to.is_multicast() || to == config.v4.broadcast() => {
                Self::Broadcast
            }
            // All routers and all MLDv2 routers.
            IpAddr::V6(to) if matches!(to.segments(), [0xff02, 0, 0, 0, 0, 0, 0, 2 | 0x16]) => Self::Routers,
            IpAddr::V6(to) if to.segments()[0] == 0xff02 => Self::Broadcast,
            _ => Self::Unicast,
        }
    }
}

/// The members of one party by id, address and key. Members are represented by their slots in the tunnel's peer table.
#[derive(Debug, Default)]
pub(crate) struct RoutingTable {
    members: BTreeMap<DeviceId, usize>,
    addresses: BTreeMap<IpAddr, usize>,
    keys: BTreeMap<[u8; 32], usize>,
}

impl RoutingTable {
    /// Adds a member. An address or key that another member has moves to this one.
    pub(crate) fn insert(&mut self, id: DeviceId, slot: usize, config: &PeerConfig) {
        self.members.insert(id, slot);
        self.keys.insert(config.key.0, slot);
        self.addresses.extend(config.addresses().map(|address| (address, slot)));
    }

    /// Removes a member with its addresses and key, except those that another member has claimed since.
    pub(crate) fn remove(&mut self, id: DeviceId, config: &PeerConfig) {
        let Some(slot) = self.members.remove(&id) else { return };
        if self.keys.get(&config.key.0) == Some(&slot) {
            self.keys.remove(&config.key.0);
        }
        for address in config.addresses() {
            if self.addresses.get(&address) == Some(&slot) {
                self.addresses.remove(&address);
            }
        }
    }

    pub(crate) fn by_id(&self, id: DeviceId) -> Option<usize> {
        self.members.get(&id).copied()
    }

    pub(crate) fn by_address(&self, address: IpAddr) -> Option<usize> {
        self.addresses.get(&address).copied()
    }

    pub(crate) fn by_key(&self, key: &[u8; 32]) -> Option<usize> {
        self.keys.get(key).copied()
    }

    /// Returns all members in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DeviceId, usize)> {
        self.members.iter().map(|(id, slot)| (*id, *slot))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::testing::{device_id, party_config, peer_config, secrets, v4, v6};

    #[test]
    fn scope_follows_the_destination_address() {
        let config = party_config(0);
        for (destination, scope) in [
            ("10.77.0.2", Scope::Unicast),
            ("10.77.0.255", Scope::Broadcast),
            ("255.255.255.255", Scope::Broadcast),
            ("224.0.0.251", Scope::Broadcast),
            ("239.255.255.250", Scope::Broadcast),
            ("224.0.0.2", Scope::Routers),
            ("224.0.0.22", Scope::Routers),
            ("ff02::fb", Scope::Broadcast),
            ("ff02::2", Scope::Routers),
            ("ff02::16", Scope::Routers),
            ("ff05::2", Scope::Unicast),
            ("fd00:77::2", Scope::Unicast),
        ] {
            assert_eq!(Scope::of(destination.parse().unwrap(), &config), scope, "{destination}");
        }
    }

    #[test]
    fn removal_leaves_what_another_member_has_claimed() {
        let secrets = secrets(2);
        let mut table = RoutingTable::default();
        let first = peer_config(0, &secrets[0]);
        let second = PeerConfig { v4: first.v4, ..peer_config(1, &secrets[1]) };
        table.insert(device_id(0), 0, &first);
        table.insert(device_id(1), 1, &second);
        assert_eq!(table.by_address(v4(0).into()), Some(1));
        table.remove(device_id(0), &first);
        assert_eq!(table.by_address(v4(0).into()), Some(1));
        assert_eq!((table.by_address(v6(0).into()), table.by_id(device_id(0))), (None, None));
        assert_eq!((table.by_key(&first.key.0), table.by_key(&second.key.0)), (None, Some(1)));
        let link_local: Ipv6Addr = "fe80::2".parse().unwrap();
        assert_eq!(table.by_address(link_local.into()), Some(1));
    }
}
