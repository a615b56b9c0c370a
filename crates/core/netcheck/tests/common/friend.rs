//! Another member, which can send from two ports.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use partyline_nat::{Nat, Protocol, Rules};
use partyline_tests_netsim::{HostId, Line, Network, RouterId};

const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(11, 0, 7, 1));
const PRIVATE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 7));

/// A member as a test describes it.
pub struct Friend {
    /// The NAT between it and the Internet.
    pub nat: Option<Nat>,
    /// Its sockets; these are public addresses if it has no NAT.
    pub sockets: [SocketAddr; 2],
    /// Which of its sockets can send.
    pub works: [bool; 2],
}

impl Friend {
    /// Returns a member with a public address.
    pub fn open() -> Self {
        Self { nat: None, sockets: sockets(PUBLIC), works: [true; 2] }
    }

    /// Returns a member behind a NAT of its own.
    pub fn behind(seed: u64, rules: Rules) -> Self {
        Self { nat: Some(Nat::new(seed, PUBLIC, rules)), sockets: sockets(PRIVATE), works: [true; 2] }
    }
}

fn sockets(ip: IpAddr) -> [SocketAddr; 2] {
    [41_641, 50_000].map(|port| SocketAddr::new(ip, port))
}

/// A member on the network.
pub struct FriendHost {
    pub host: HostId,
    router: Option<RouterId>,
    sockets: [SocketAddr; 2],
    works: [bool; 2],
}

impl FriendHost {
    pub fn new(network: &mut Network, friend: Friend) -> Self {
        let router = friend.nat.map(|nat| network.add_router(None, nat));
        let host = network.add_host(router, [friend.sockets[0].ip()], Line::IDEAL);
        Self { host, router, sockets: friend.sockets, works: friend.works }
    }

    /// Returns the addresses at which a remote host sees its sockets.
    pub fn reflexive(
        &self,
        now: Instant,
        remote: SocketAddr,
        network: &mut Network,
    ) -> [Option<SocketAddr>; 2] {
        self.sockets.map(|socket| match self.router {
            Some(router) => network.routers[router].nat.outbound(now, Protocol::Udp, socket, remote),
            None => Some(socket),
        })
    }

    pub fn working_sockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.into_iter().zip(self.works).filter(|(_, works)| *works).map(|(socket, _)| socket)
    }
}
