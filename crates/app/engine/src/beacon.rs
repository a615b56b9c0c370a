//! The LAN beacon, by which members on one network find each other without a server.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use partyline_net::{BeaconInterface, BeaconSockets};
use partyline_platform::LocalAddress;

/// The beacon's sockets, as long as it is switched on and the system offers them. Without them everything else works.
pub(crate) struct Beacon {
    sockets: Option<BeaconSockets>,
    on: bool,
    /// Where to send and listen.
    interfaces: Vec<BeaconInterface>,
}

impl Beacon {
    pub(crate) fn new(on: bool) -> Self {
        Self { sockets: on.then(open).flatten(), on, interfaces: Vec::new() }
    }

    /// Opens or closes the sockets. Without the beacon this computer does not listen for those of others either.
    pub(crate) fn set_on(&mut self, on: bool) {
        if self.on == on {
            return;
        }
        tracing::debug!(on, "the LAN beacon is switched");
        self.on = on;
        self.sockets = on.then(open).flatten();
        self.apply_interfaces();
    }

    /// Sends and listens on the interfaces of these addresses from now on.
    pub(crate) fn set_addresses(&mut self, addresses: &[LocalAddress]) {
        self.interfaces = interfaces(addresses);
        self.apply_interfaces();
    }

    fn apply_interfaces(&mut self) {
        if let Some(sockets) = &mut self.sockets {
            tracing::debug!(count = self.interfaces.len(), "the LAN beacon uses other interfaces");
            sockets.set_interfaces(self.interfaces.clone());
        }
    }

    /// Sends to one neighbour, or to the group on every interface. Beacons are repeated, so a lost one is not retried.
    pub(crate) fn send(&self, to: Option<SocketAddr>, bytes: &[u8]) {
        let Some(sockets) = &self.sockets else { return };
        match to {
            Some(to) => {
                if let Err(error) = sockets.send_to(to, bytes) {
                    tracing::debug!(%to, %error, "a LAN beacon could not be sent");
                }
            }
            None => {
                let count = sockets.send_to_group(bytes);
                tracing::trace!(count, "sent a LAN beacon");
            }
        }
    }

    /// Waits for the next beacon and its source; forever without sockets.
    pub(crate) async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        match &self.sockets {
            Some(sockets) => sockets.receive().await,
            None => std::future::pending().await,
        }
    }

    /// Gives up after the sockets failed.
    pub(crate) fn close(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the LAN beacon is lost");
        self.sockets = None;
    }
}

fn open() -> Option<BeaconSockets> {
    let opened = BeaconSockets::open();
    opened.inspect_err(|error| tracing::warn!(%error, "the LAN beacon is not available")).ok()
}

/// The interfaces on which LAN neighbours may be, each with one of its IPv4 addresses.
fn interfaces(addresses: &[LocalAddress]) -> Vec<BeaconInterface> {
    let mut interfaces: Vec<BeaconInterface> = Vec::new();
    for local in addresses {
        let Some(index) = local.index else { continue };
        let position = interfaces.iter().position(|known| known.index == index).unwrap_or_else(|| {
            interfaces.push(BeaconInterface { index, v4: None, v6: false });
            interfaces.len() - 1
        });
        match local.address {
            IpAddr::V4(address) => interfaces[position].v4 = interfaces[position].v4.or(Some(address)),
            IpAddr::V6(_) => interfaces[position].v6 = true,
        }
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beacon_that_is_switched_off_has_no_sockets() {
        let mut beacon = Beacon::new(false);
        beacon.set_addresses(&[]);
        assert!(beacon.sockets.is_none());
        beacon.set_on(true);
        beacon.set_on(false);
        assert!(beacon.sockets.is_none());
    }

    #[test]
    fn each_interface_is_listed_once_with_its_first_ipv4_address() {
        let local = |index, address: &str| LocalAddress {
            interface: "eth0".to_owned(),
            index,
            address: address.parse().expect("an address"),
            prefix: 24,
            point_to_point: false,
            card: partyline_model::CardKind::Physical,
            deprecated: false,
        };
        let addresses = [
            local(Some(2), "fe80::1"),
            local(Some(2), "192.168.1.7"),
            local(Some(2), "192.168.1.8"),
            local(Some(3), "10.0.0.1"),
            local(None, "10.9.9.9"),
        ];
        let expected = [
            BeaconInterface { index: 2, v4: Some([192, 168, 1, 7].into()), v6: true },
            BeaconInterface { index: 3, v4: Some([10, 0, 0, 1].into()), v6: false },
        ];
        assert_eq!(interfaces(&addresses), expected);
    }
}
