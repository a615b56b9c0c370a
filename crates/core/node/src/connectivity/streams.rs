//! Byte streams to relays (TURN over TCP and TLS, RFC 8656, section 3.1), cut into messages.

use std::{collections::BTreeMap, net::SocketAddr};

use partyline_model::StreamId;
use partyline_wire::datagram::{Deframer, FramingError};

/// Streams that are open or being opened.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<StreamId, Stream>);

struct Stream {
    server: SocketAddr,
    frames: Deframer,
}

impl Streams {
    /// Expects bytes from a server.
    pub(super) fn insert(&mut self, id: StreamId, server: SocketAddr) {
        self.0.insert(id, Stream { server, frames: Deframer::default() });
    }

    /// Forgets a stream.
    pub(super) fn remove(&mut self, id: StreamId) {
        self.0.remove(&id);
    }

    /// Takes bytes that arrived.
    pub(super) fn push(&mut self, id: StreamId, bytes: &[u8]) {
        if let Some(stream) = self.0.get_mut(&id) {
            stream.frames.push(bytes);
        }
    }

    /// Returns the next complete message, and the server it is from.
    ///
    /// # Errors
    /// The bytes are no messages; the stream cannot be used any more.
    pub(super) fn next_message(
        &mut self,
        id: StreamId,
    ) -> Result<Option<(SocketAddr, Vec<u8>)>, FramingError> {
        let Some(stream) = self.0.get_mut(&id) else { return Ok(None) };
        Ok(stream.frames.next_message()?.map(|message| (stream.server, message.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_complete_when_its_last_byte_has_arrived() {
        let (mut streams, id) = (Streams::default(), StreamId(1));
        let server = SocketAddr::from(([192, 0, 2, 1], 443));
        streams.insert(id, server);
        streams.push(id, &[0x40, 0, 0, 4, 1, 2]);
        assert_eq!(streams.next_message(id), Ok(None));
        streams.push(id, &[3, 4]);
        assert_eq!(streams.next_message(id), Ok(Some((server, vec![0x40, 0, 0, 4, 1, 2, 3, 4]))));
        streams.push(id, &[0xff; 8]);
        assert_eq!(streams.next_message(id), Err(FramingError));
        streams.remove(id);
        assert_eq!(streams.next_message(id), Ok(None));
    }
}
