//! Where the node's packets leave: the sockets, the devices, the streams to relays.

use std::net::SocketAddr;

use partyline_model::PartyId;
use partyline_net::{Outgoing, UdpEndpoint};
use partyline_node::{Egress, SocketId, StreamId};

use crate::{connections::Connections, devices::Devices, sockets::Sockets};

/// All the ways out of one engine.
pub(crate) struct Ways<'a> {
    pub udp: &'a UdpEndpoint,
    pub sockets: &'a Sockets,
    pub devices: &'a mut Devices,
    pub connections: &'a mut Connections,
}

impl Egress for Ways<'_> {
    fn datagrams(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
        // What cannot be sent is counted there.
        let _ = self.udp.try_send(&Outgoing { to, from: None, bytes, segment });
    }

    fn datagrams_from(&mut self, socket: SocketId, to: SocketAddr, segment: usize, bytes: &[u8]) {
        self.sockets.send(socket, &Outgoing { to, from: None, bytes, segment });
    }

    fn stream(&mut self, stream: StreamId, bytes: &[u8]) {
        self.connections.send_on_stream(stream, bytes.to_vec());
    }

    fn packet(&mut self, party: PartyId, packet: &[u8]) {
        self.devices.push(party, packet);
    }
}
