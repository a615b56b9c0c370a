//! The permissions of an allocation (RFC 8656, section 9): peer addresses that may send to it and be sent to.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tracing::{debug, trace};

/// How long a permission lasts without being refreshed (RFC 8656, section 9).
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// Peer addresses with the expiry of their permissions. Expired ones stay until their place is needed.
#[derive(Debug)]
pub(crate) struct Permissions(HashMap<IpAddr, Instant, FixedState>);

impl Permissions {
    pub(crate) fn new(hasher: &FixedState) -> Self {
        Self(HashMap::with_hasher(hasher.clone()))
    }

    /// Returns true if the peer has a permission that has not expired.
    pub(crate) fn permits(&self, peer: IpAddr, now: Instant) -> bool {
        self.0.get(&peer).is_some_and(|expires| *expires > now)
    }

    /// Returns true if permissions for all of `peers` can be installed without exceeding `max`.
    pub(crate) fn has_room_for(
        &mut self,
        peers: impl Iterator<Item = IpAddr> + Clone,
        max: usize,
        now: Instant,
    ) -> bool {
        let needed = |permissions: &HashMap<IpAddr, Instant, FixedState>| {
            permissions.len() + peers.clone().filter(|peer| !permissions.contains_key(peer)).count()
        };
        if needed(&self.0) > max {
            let before = self.0.len();
            self.0.retain(|_, expires| *expires > now);
            debug!(count = before - self.0.len(), reason = "place is needed", "expired permissions removed");
        }
        needed(&self.0) <= max
    }

    /// Installs or refreshes a permission. Check [`Self::has_room_for`] first.
    pub(crate) fn install(&mut self, peer: IpAddr, now: Instant) {
        let before = self.0.insert(peer, now + PERMISSION_LIFETIME);
        if before.is_none_or(|expires| expires <= now) {
            debug!(%peer, expired = before.is_some(), "permission installed");
        } else {
            trace!(%peer, "permission refreshed");
        }
    }
}
