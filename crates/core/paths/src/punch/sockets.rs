//! The sockets that punching has asked for, over all peers.

use std::collections::{BTreeMap, VecDeque};

use crate::api::{Event, PeerId, SocketId};

/// Sockets open at once, at most, so that neither files nor the router's table run out.
const MOST: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: BTreeMap<SocketId, PeerId>,
    last: u16,
}

/// A socket that nothing has been sent from yet when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) id: SocketId,
    /// The port it is bound to.
    pub(crate) port: u16,
}

impl Sockets {
    /// Asks for sockets; `None` if there would be too many.
    pub(crate) fn request(
        &mut self,
        peer: PeerId,
        count: usize,
        events: &mut VecDeque<Event>,
    ) -> Option<Vec<SocketId>> {
        if self.open.len() + count > MOST {
            return None;
        }
        let ids: Vec<SocketId> = (0..count).map(|_| self.next(peer)).collect();
        if !ids.is_empty() {
            events.push_back(Event::OpenSockets(ids.clone()));
        }
        Some(ids)
    }

    /// Numbers go round; one in use is passed over.
    fn next(&mut self, peer: PeerId) -> SocketId {
        loop {
            self.last = Some(self.last + 1).filter(|next| *next <= SocketId::LAST_PUNCH.0).unwrap_or(1);
            let id = SocketId(self.last);
            if let std::collections::btree_map::Entry::Vacant(place) = self.open.entry(id) {
                place.insert(peer);
                return id;
            }
        }
    }

    pub(crate) fn owner(&self, id: SocketId) -> Option<PeerId> {
        self.open.get(&id).copied()
    }

    /// Closes one, if it is open; the shared socket never is closed.
    pub(crate) fn close(&mut self, id: SocketId, events: &mut VecDeque<Event>) {
        if self.open.remove(&id).is_some() {
            events.push_back(Event::CloseSocket(id));
        }
    }

    /// All that one peer has open.
    pub(crate) fn of(&self, peer: PeerId) -> Vec<SocketId> {
        self.open.iter().filter(|(_, owner)| **owner == peer).map(|(id, _)| *id).collect()
    }
}
