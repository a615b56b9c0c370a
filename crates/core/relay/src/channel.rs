//! The channel bindings of an allocation (RFC 8656, section 12): short numbers that stand for peers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tracing::{debug, trace};

/// How long a channel binding lasts without being refreshed (RFC 8656, section 12).
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Why a channel cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindError {
    /// The channel is bound to another peer, or the peer to another channel.
    Conflict,
    /// The allocation has as many channels, or permissions, as it may.
    Full,
}

#[derive(Debug, Clone, Copy)]
struct ChannelBinding {
    peer: SocketAddr,
    expires: Instant,
}

/// Channel bindings in both directions. The two tables are each other's inverse; expired bindings stay in both until their
/// place is needed.
#[derive(Debug)]
pub(crate) struct ChannelBindings {
    by_number: HashMap<u16, ChannelBinding, FixedState>,
    by_peer: HashMap<SocketAddr, u16, FixedState>,
}

impl ChannelBindings {
    pub(crate) fn new(hasher: &FixedState) -> Self {
        let (by_number, by_peer) =
            (HashMap::with_hasher(hasher.clone()), HashMap::with_hasher(hasher.clone()));
        Self { by_number, by_peer }
    }

    /// Returns the peer that a channel is bound to.
    pub(crate) fn peer_of(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        self.by_number.get(&channel).filter(|binding| binding.expires > now).map(|binding| binding.peer)
    }

    /// Returns the channel that is bound to a peer.
    pub(crate) fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let channel = *self.by_peer.get(&peer)?;
        self.peer_of(channel, now).map(|_| channel)
    }

    /// Checks whether a channel can be bound to a peer, and makes room for it.
    pub(crate) fn prepare(
        &mut self,
        channel: u16,
        peer: SocketAddr,
        max: usize,
        now: Instant,
    ) -> Result<(), BindError> {
        let conflicts = self.peer_of(channel, now).is_some_and(|bound| bound != peer)
            || self.channel_to(peer, now).is_some_and(|bound| bound != channel);
        if conflicts {
            return Err(BindError::Conflict);
        }
        if self.by_number.len() >= max && !self.by_number.contains_key(&channel) {
            self.remove_expired(now);
            if self.by_number.len() >= max {
                return Err(BindError::Full);
            }
        }
        Ok(())
    }

    /// Binds a channel or refreshes its binding. Call [`Self::prepare`] first.
    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr, now: Instant) {
        let refreshed = self.peer_of(channel, now) == Some(peer);
        self.unbind(channel, peer);
        if refreshed {
            trace!(channel, %peer, "channel binding refreshed");
        } else {
            debug!(channel, %peer, "channel bound");
        }
        self.by_number.insert(channel, ChannelBinding { peer, expires: now + CHANNEL_LIFETIME });
        self.by_peer.insert(peer, channel);
    }

    /// Removes what expired bindings of either side left, so that the tables stay each other's inverse.
    fn unbind(&mut self, channel: u16, peer: SocketAddr) {
        if let Some(old) = self.by_number.remove(&channel) {
            self.by_peer.remove(&old.peer);
        }
        if let Some(old) = self.by_peer.remove(&peer) {
            self.by_number.remove(&old);
        }
    }

    fn remove_expired(&mut self, now: Instant) {
        let before = self.by_number.len();
        self.by_number.retain(|_, binding| binding.expires > now);
        debug!(count = before - self.by_number.len(), reason = "place is needed", "expired channels removed");
        let by_number = &self.by_number;
        self.by_peer.retain(|_, channel| by_number.contains_key(channel));
    }
}
