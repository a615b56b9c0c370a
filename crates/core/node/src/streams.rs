//! Byte streams to relays (TURN over TCP and TLS), cut into messages.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use partyline_model::Now;
use partyline_paths::{Local, StreamId};
use partyline_wire::datagram::{Deframer, FramingError};

use crate::{
    Node,
    egress::Egress,
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
    /// Takes what became of a stream to a relay. IP packets in what arrived leave by [`Egress::deliver`]; `scratch` is as
    /// for [`Self::handle_datagram`], for messages of up to 64 KiB.
    pub fn handle_stream(
        &mut self,
        now: Now,
        id: StreamId,
        input: StreamInput,
        scratch: &mut [u8],
        egress: &mut impl Egress,
    ) {
        match input {
            StreamInput::Opened => self.paths.stream_opened(now.instant, id),
            StreamInput::Closed => self.close_stream(now.instant, id),
            StreamInput::Data(bytes) => {
                self.streams.push(id, &bytes);
                self.read_stream(now, id, scratch, egress);
            }
        }
    }

    fn read_stream(&mut self, now: Now, id: StreamId, scratch: &mut [u8], egress: &mut impl Egress) {
        loop {
            match self.streams.next(id) {
                Ok(Some((server, message))) => {
                    self.receive(now, Local::Stream(id), server, &message, scratch, egress);
                }
                Ok(None) => return,
                Err(FramingError) => {
                    self.outputs.push_back(Output::StreamClose { id });
                    return self.close_stream(now.instant, id);
                }
            }
        }
    }

    fn close_stream(&mut self, now: Instant, id: StreamId) {
        self.streams.remove(id);
        self.paths.stream_closed(now, id);
    }
}
