//! Another member of the party, with its own port and a second port as the node has. What members signal to each other
//! through the tunnel is passed on here without delay; packets cross the lab.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use partyline_netcheck::{FilteringProbeRequest, PortPair, ProbeRound, binding_request, mapped_address};

use crate::Host;

/// Copies of each packet, since none is retransmitted.
const COPIES: usize = 3;
const TOKEN: [u8; 12] = *b"port pair 01";

pub struct Friend {
    server: SocketAddr,
    sockets: [UdpSocket; 2],
    mapped: [Option<SocketAddr>; 2],
    reported: bool,
}

impl Friend {
    pub fn new(host: &Host, own: Ipv4Addr, server: SocketAddr) -> Result<Self> {
        let open = || {
            let socket = UdpSocket::bind((own, 0))?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        let sockets = [host.enter(open)??, host.enter(open)??];
        Ok(Self { server, sockets, mapped: [None; 2], reported: false })
    }

    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter()
    }

    /// Sends the requested filtering probe, and binding requests that show the mapped addresses of its sockets.
    pub fn send_requested(&self, request: FilteringProbeRequest) {
        for _ in 0..COPIES {
            let _ = self.sockets[0].send_to(&request.packet(), request.to);
            self.sockets().for_each(|socket| drop(socket.send_to(&binding_request(TOKEN), self.server)));
        }
    }

    /// Sends a round of probes from both sockets to both destinations.
    pub fn send_round(&self, round: ProbeRound) {
        for to in round.to {
            self.sockets().for_each(|socket| drop(socket.send_to(&round.packet(), to)));
        }
    }

    /// Handles received datagrams, and returns the mapped ports once, as soon as both are known.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<PortPair> {
        for (socket, mapped) in self.sockets.iter().zip(&mut self.mapped) {
            while let Ok((length, from)) = socket.recv_from(buffer) {
                let address = mapped_address(from, TOKEN, &buffer[..length]).filter(|_| from == self.server);
                *mapped = mapped.or(address);
            }
        }
        let [Some(first), Some(second)] = self.mapped else { return None };
        (!std::mem::replace(&mut self.reported, true)).then_some(PortPair { first, second })
    }
}
