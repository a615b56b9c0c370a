//! The UDP sockets that punching has asked for, over all peers.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use partyline_model::SocketId;
use tracing::{debug, trace};

use crate::{api::Event, path::PeerId};

/// Bounds the punch sockets open at once, so that neither file descriptors nor the router's table run out.
const MAX_PUNCH_SOCKETS: usize = 512;

/// Which punch sockets are open or being opened, and for which peer.
#[derive(Debug, Default)]
pub(crate) struct PunchSockets {
    open: BTreeMap<SocketId, PeerId>,
    last: u16,
}

/// A socket from which nothing had been sent when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PunchSocket {
    pub(crate) id: SocketId,
    /// The port it is bound to.
    pub(crate) port: u16,
}

impl PunchSockets {
    /// Asks the caller for `count` sockets; returns `None` if there would be too many.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        count: usize,
        events: &mut VecDeque<Event>,
    ) -> Option<Vec<SocketId>> {
        if self.open.len() + count > MAX_PUNCH_SOCKETS {
            debug!(count, open = self.open.len(), reason = "limit reached", "punch sockets refused");
            return None;
        }
        let ids: Vec<SocketId> = (0..count).map(|_| self.allocate(peer)).collect();
        if !ids.is_empty() {
            debug!(count, "opening punch sockets");
            events.push_back(Event::OpenSockets(ids.clone()));
        }
        Some(ids)
    }

    /// Allocates the next free number; numbers are reused only after all others.
    fn allocate(&mut self, peer: PeerId) -> SocketId {
        loop {
            self.last = if self.last >= SocketId::LAST_PUNCH.0 { 1 } else { self.last + 1 };
            let id = SocketId(self.last);
            if let Entry::Vacant(place) = self.open.entry(id) {
                place.insert(peer);
                return id;
            }
        }
    }

    /// Returns the peer for which a socket was opened.
    pub(crate) fn owner(&self, id: SocketId) -> Option<PeerId> {
        self.open.get(&id).copied()
    }

    /// Closes a punch socket, if it is open. The main socket is never closed.
    pub(crate) fn close(&mut self, id: SocketId, events: &mut VecDeque<Event>) {
        if self.open.remove(&id).is_some() {
            trace!(socket = id.0, open = self.open.len(), "punch socket closed");
            events.push_back(Event::CloseSocket(id));
        }
    }

    /// Closes all punch sockets of a peer.
    pub(crate) fn close_all(&mut self, peer: PeerId, events: &mut VecDeque<Event>) {
        debug!("closing all punch sockets of a peer");
        let owned = self.open.extract_if(.., |_, owner| *owner == peer);
        events.extend(owned.map(|(id, _)| Event::CloseSocket(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round_within_their_range_and_skip_open_sockets() {
        let (mut sockets, mut events) = (PunchSockets::default(), VecDeque::new());
        let first = sockets.open(PeerId(1), 1, &mut events).unwrap();
        assert_eq!(first, [SocketId(1)]);
        sockets.last = SocketId::LAST_PUNCH.0 - 1;
        let next = sockets.open(PeerId(1), 2, &mut events).unwrap();
        assert_eq!(next, [SocketId::LAST_PUNCH, SocketId(2)]);
    }

    #[test]
    fn no_more_than_the_limit_is_opened() {
        let (mut sockets, mut events) = (PunchSockets::default(), VecDeque::new());
        assert!(sockets.open(PeerId(1), MAX_PUNCH_SOCKETS, &mut events).is_some());
        assert_eq!(sockets.open(PeerId(2), 1, &mut events), None);
        sockets.close_all(PeerId(1), &mut events);
        assert!(sockets.open(PeerId(2), 1, &mut events).is_some());
    }

    #[test]
    fn sockets_are_closed_once_and_the_main_socket_never() {
        let (mut sockets, mut events) = (PunchSockets::default(), VecDeque::new());
        let id = sockets.open(PeerId(1), 1, &mut events).unwrap()[0];
        assert_eq!(sockets.owner(id), Some(PeerId(1)));
        for id in [id, id, SocketId::MAIN] {
            sockets.close(id, &mut events);
        }
        assert_eq!(events, [Event::OpenSockets(vec![id]), Event::CloseSocket(id)]);
    }
}
