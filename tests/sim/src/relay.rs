//! Where the relay is, and how it is set up.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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
/// The relay's first addresses; the second ones, and those after a move, follow them.
const FIRST_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 255, 1);
const FIRST_V6: u128 = 0x2001_0db8_ffff_0000_0000_0000_0000_0001;

/// Returns the two addresses of a family (RFC 5780) that the servers have after so many moves. Clients are told the first.
pub(crate) fn addresses(v6: bool, moves: u8) -> [IpAddr; 2] {
    if v6 {
        [0, 1].map(|n| Ipv6Addr::from_bits(FIRST_V6 + 2 * u128::from(moves) + n).into())
    } else {
        [0, 1].map(|n| Ipv4Addr::from_bits(FIRST_V4.to_bits() + 2 * u32::from(moves) + n).into())
    }
}

/// Returns true for the addresses that the servers have after so many moves.
pub(crate) fn owns(ip: IpAddr, moves: u8) -> bool {
    addresses(ip.is_ipv6(), moves).contains(&ip)
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

/// Returns a relay without allocations, after so many moves.
pub(crate) fn start(moves: u8, seed: [u8; 32]) -> TurnServer {
    let settings = Settings {
        realm: REALM.into(),
        shared_secret: Some(Secret::new(SECRET)),
        peers: PeerPolicy { allow_private: true, denied: Vec::new() },
        quotas: Quotas { peers_per_allocation: 512, ..Quotas::default() },
        ..Settings::default()
    };
    let ips = [false, true].into_iter().flat_map(|v6| addresses(v6, moves));
    let listeners = ips.flat_map(|ip| PORTS.map(|port| SocketAddr::new(ip, port))).collect();
    let relayed = [false, true].map(|v6| addresses(v6, moves)[0]);
    TurnServer::new(settings, listeners, &relayed, seed)
}
