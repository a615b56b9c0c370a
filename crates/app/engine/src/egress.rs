//! The engine's side of the node's one exit.

use partyline_net::Outgoing;
use partyline_node::{Deliver, Egress, Local, Transmit};

use crate::{
    connections::Connections,
    departures::{Departure, Departures},
    devices::Devices,
    sockets::Sockets,
};

/// Everything that packets leave by: sockets, streams to relays, the parties' devices.
pub(crate) struct EngineEgress {
    pub sockets: Sockets,
    pub devices: Devices,
    pub connections: Connections,
    pub departures: Departures,
}

impl Egress for EngineEgress {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        match local {
            Local::Socket(socket) => {
                let destination = self.sockets.outward(destination);
                let from = match self.departures.of(destination.ip()) {
                    Departure::Free => None,
                    Departure::From(source) => Some(source),
                    Departure::Refused => {
                        return tracing::trace!(to = %destination, reason = "inside a party", "datagrams not sent");
                    }
                };
                self.sockets.send(socket, &Outgoing { to: destination, from, bytes, segment });
            }
            Local::Stream(stream) => self.connections.send_on_stream(stream, bytes.to_vec()),
        }
    }

    fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
        self.devices.push(party, packet);
    }
}
