//! Where the relay is, and how it is set up.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use partyline_relay::{PeerPolicy, Quotas, Secret, Settings};
use partyline_rendezvous::RelayOffer;
use partyline_tests_netsim::TurnServer;
use partyline_wire::rendezvous::RelayServer;

/// The relay's name.
pub(crate) const HOST: &str = "relay.test";
const SECRET: &str = "shared by server and relay";
const REALM: &str = "partyline";
const PORTS: [u16; 2] = [3478, 3479];
const FIRST_V4: [u8; 4] = [11, 0, 255, 1];
const SECOND_V4: [u8; 4] = [11, 0, 255, 2];
/// The relay's first IPv6 address; the second follows it.
const FIRST_V6: u128 = 0x2001_0db8_ffff_0000_0000_0000_0000_0001;

/// Returns the two addresses of a family (RFC 5780). Clients are told the first.
pub(crate) fn addresses(v6: bool) -> [IpAddr; 2] {
    if v6 {
        [FIRST_V6, FIRST_V6 + 1].map(|bits| Ipv6Addr::from_bits(bits).into())
    } else {
        [FIRST_V4, SECOND_V4].map(IpAddr::from)
    }
}

/// Returns true for the relay's addresses.
pub(crate) fn owns(ip: IpAddr) -> bool {
    addresses(ip.is_ipv6()).contains(&ip)
}

/// Returns what the rendezvous server grants.
pub(crate) fn offer() -> RelayOffer {
    let urls = ["turn:relay.test:3478?transport=udp", "turns:relay.test:443?transport=tcp"];
    RelayOffer {
        servers: urls.map(|url| RelayServer { url: url.into(), region: "test".into() }).into(),
        secret: SECRET.into(),
        realm: REALM.into(),
        lifetime: Duration::from_secs(86_400),
    }
}

/// Returns a relay without allocations.
pub(crate) fn start(seed: [u8; 32]) -> TurnServer {
    let settings = Settings {
        realm: REALM.into(),
        shared_secret: Some(Secret::new(SECRET)),
        peers: PeerPolicy { allow_private: true, denied: Vec::new() },
        quotas: Quotas { peers_per_allocation: 512, ..Quotas::default() },
        ..Settings::default()
    };
    let ips = [false, true].into_iter().flat_map(addresses);
    let listeners = ips.flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip, port))).collect();
    let relayed = [false, true].map(|v6| addresses(v6)[0]);
    TurnServer::new(settings, listeners, &relayed, seed)
}
