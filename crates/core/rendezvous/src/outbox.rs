//! Events that wait for the caller.

use std::{collections::VecDeque, sync::Arc};

use partyline_wire::rendezvous::ServerFrame;

use crate::event::{ConnectionId, Event};

/// A queue of events. Frames are encoded once for all their recipients.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    events: VecDeque<Event>,
    frames_sent: u64,
    bytes_sent: u64,
}

impl Outbox {
    /// Queues a frame for one connection.
    pub(crate) fn send(&mut self, to: ConnectionId, frame: &ServerFrame) {
        self.send_all([to], frame);
    }

    /// Queues a frame for many connections.
    pub(crate) fn send_all(&mut self, to: impl IntoIterator<Item = ConnectionId>, frame: &ServerFrame) {
        let bytes = match frame.encode() {
            Ok(bytes) => Arc::<[u8]>::from(bytes),
            // Cannot happen, since whatever is forwarded was within the same limits when it was received.
            Err(error) => return tracing::error!(%error, "frame dropped: it cannot be encoded"),
        };
        for to in to {
            self.frames_sent += 1;
            self.bytes_sent += bytes.len() as u64;
            tracing::trace!(connection = to.0, bytes = bytes.len(), "frame queued");
            self.events.push_back(Event::Send { to, frame: Arc::clone(&bytes) });
        }
    }

    /// Queues the end of a connection.
    pub(crate) fn close(&mut self, connection: ConnectionId, code: u16, reason: &'static str) {
        self.events.push_back(Event::Close { connection, code, reason });
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns how many frames were queued so far.
    pub(crate) const fn frames_sent(&self) -> u64 {
        self.frames_sent
    }

    /// Returns how many bytes these frames have together.
    pub(crate) const fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }
}
