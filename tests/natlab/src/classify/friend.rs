//! A member of the party elsewhere, as the node is one: its own port and one that it lends. What members say to each other
//! through the tunnel, they say here without a delay; the packets cross the lab.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use partyline_netcheck::{FilteringProbeRequest, PortPair, ProbeRound, binding_request, mapped_address};

use crate::Host;

/// How often things are sent that nobody repeats.
const PACKETS: usize = 3;
const TOKEN: [u8; 12] = *b"lent in labs";

pub struct Friend {
    server: SocketAddr,
    sockets: [UdpSocket; 2],
    seen: [Option<SocketAddr>; 2],
    told: bool,
}

impl Friend {
    pub fn new(host: &Host, own: Ipv4Addr, server: SocketAddr) -> Result<Self> {
        let open = || {
            let socket = UdpSocket::bind((own, 0))?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        let sockets = [host.enter(open)??, host.enter(open)??];
        Ok(Self { server, sockets, seen: [None; 2], told: false })
    }

    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter()
    }

    /// Sends what any member would, and asks where its sockets are seen.
    pub fn send_requested(&self, request: FilteringProbeRequest) {
        for _ in 0..PACKETS {
            let _ = self.sockets[0].send_to(&request.packet(), request.to);
            self.sockets().for_each(|socket| drop(socket.send_to(&binding_request(TOKEN), self.server)));
        }
    }

    /// Sends from both to both.
    pub fn send_round(&self, round: ProbeRound) {
        for to in round.to {
            self.sockets().for_each(|socket| drop(socket.send_to(&round.packet(), to)));
        }
    }

    /// Takes what came; once both are seen, what it lends.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<PortPair> {
        for (socket, seen) in self.sockets.iter().zip(&mut self.seen) {
            while let Ok((length, from)) = socket.recv_from(buffer) {
                let told = mapped_address(from, TOKEN, &buffer[..length]).filter(|_| from == self.server);
                *seen = seen.or(told);
            }
        }
        let [Some(first), Some(second)] = self.seen else { return None };
        (!std::mem::replace(&mut self.told, true)).then_some(PortPair { first, second })
    }
}
