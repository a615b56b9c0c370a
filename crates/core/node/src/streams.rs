//! Byte streams to relays (TURN over TCP and TLS), cut into messages.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use partyline_model::{Now, PartyId};
use partyline_paths::{Local, StreamId};
use partyline_wire::datagram::{Deframer, FramingError};

use crate::{
    Node,
    io::{Output, StreamInput},
};

/// Streams that are open or being opened.
#[derive(Default)]
pub struct Streams(BTreeMap<StreamId, Stream>);

struct Stream {
    server: SocketAddr,
    frames: Deframer,
}

impl Streams {
    /// Expects bytes from a server.
    pub fn add(&mut self, id: StreamId, server: SocketAddr) {
        self.0.insert(id, Stream { server, frames: Deframer::default() });
    }

    /// Forgets a stream.
    pub fn remove(&mut self, id: StreamId) {
        self.0.remove(&id);
    }

    fn push(&mut self, id: StreamId, bytes: &[u8]) {
        if let Some(stream) = self.0.get_mut(&id) {
            stream.frames.push(bytes);
        }
    }

    fn next(&mut self, id: StreamId) -> Result<Option<(SocketAddr, Vec<u8>)>, FramingError> {
        let Some(stream) = self.0.get_mut(&id) else { return Ok(None) };
        Ok(stream.frames.next_message()?.map(|message| (stream.server, message.to_vec())))
    }
}

impl Node {
    /// Takes what became of a stream to a relay, and returns the IP packets that came by it.
    pub fn handle_stream(&mut self, now: Now, id: StreamId, input: StreamInput) -> Vec<(PartyId, Vec<u8>)> {
        match input {
            StreamInput::Opened => self.paths.stream_opened(now.instant, id),
            StreamInput::Closed => self.close_stream(now.instant, id),
            StreamInput::Data(bytes) => {
                self.streams.push(id, &bytes);
                return self.read_stream(now, id);
            }
        }
        Vec::new()
    }

    fn read_stream(&mut self, now: Now, id: StreamId) -> Vec<(PartyId, Vec<u8>)> {
        let mut packets = Vec::new();
        loop {
            match self.streams.next(id) {
                Ok(Some((server, message))) => {
                    let mut packet = vec![0; message.len().max(partyline_tunnel::MIN_SCRATCH_LEN)];
                    if let Some((party, len)) =
                        self.receive(now, Local::Stream(id), server, &message, &mut packet)
                    {
                        packet.truncate(len);
                        packets.push((party, packet));
                    }
                }
                Ok(None) => return packets,
                Err(FramingError) => {
                    self.outputs.push_back(Output::StreamClose { id });
                    self.close_stream(now.instant, id);
                    return packets;
                }
            }
        }
    }

    fn close_stream(&mut self, now: Instant, id: StreamId) {
        self.streams.remove(id);
        self.paths.stream_closed(now, id);
    }
}
