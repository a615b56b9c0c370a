//! The channels of one allocation (RFC 8656, section 12), and which number each peer address has.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use partyline_timing::Deadlines;
use partyline_wire::datagram::{MAX_CHANNEL, MIN_CHANNEL};
use tracing::debug;

/// A channel to one peer address.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u16,
    /// Whether the server has confirmed the binding.
    pub(super) bound: bool,
    /// How many pairs use it.
    users: u32,
}

/// The channels in use, and the numbers of all that ever were.
///
/// Invariant: every channel in use has its number in `numbers`. A number stays with its address after the last user has
/// left, since the server refuses to bind either again until the old binding has expired; it is given to another
/// address only once every other number is taken.
#[derive(Debug)]
pub(super) struct Channels {
    in_use: BTreeMap<SocketAddr, Channel>,
    numbers: BTreeMap<u16, SocketAddr>,
    /// When the channels in use have to be bound again.
    rebinds: Deadlines<SocketAddr>,
    next: u16,
}

impl Channels {
    pub(super) fn new() -> Self {
        Self {
            in_use: BTreeMap::new(),
            numbers: BTreeMap::new(),
            rebinds: Deadlines::new(),
            next: MIN_CHANNEL,
        }
    }

    pub(super) fn get(&self, peer: SocketAddr) -> Option<&Channel> {
        self.in_use.get(&peer)
    }

    /// Notes that the server has bound a channel and when to bind it again. Returns true if it was not bound before,
    /// or `None` if the channel is not in use any more.
    pub(super) fn on_bound(&mut self, peer: SocketAddr, rebind_at: Instant) -> Option<bool> {
        let channel = self.in_use.get_mut(&peer)?;
        let first = !std::mem::replace(&mut channel.bound, true);
        self.set_rebind(peer, Some(rebind_at));
        Some(first)
    }

    /// Returns the peer address of a channel number, as long as the channel is in use.
    pub(super) fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.numbers.get(&number).copied().filter(|peer| self.in_use.contains_key(peer))
    }

    /// Returns when the next channel has to be bound again.
    pub(super) fn next_rebind(&self) -> Option<Instant> {
        self.rebinds.next()
    }

    /// Schedules the next binding of a channel, if it is in use.
    pub(super) fn set_rebind(&mut self, peer: SocketAddr, at: Option<Instant>) {
        self.rebinds.set(peer, at.filter(|_| self.in_use.contains_key(&peer)));
    }

    /// Removes and returns an address whose channel has to be bound now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketAddr> {
        self.rebinds.pop_due(now)
    }

    /// Adds a user of the channel to an address. Returns true if the channel has to be requested.
    pub(super) fn acquire(&mut self, peer: SocketAddr) -> bool {
        if let Some(channel) = self.in_use.get_mut(&peer) {
            channel.users += 1;
            return false;
        }
        let Some(number) = self.former_number(peer).or_else(|| self.free_number()) else {
            debug!(%peer, reason = "every channel is in use", "channel refused");
            return false;
        };
        self.numbers.insert(number, peer);
        self.in_use.insert(peer, Channel { number, bound: false, users: 1 });
        true
    }

    /// Removes a user of the channel to an address. After the last one the channel is no longer kept bound.
    pub(super) fn release(&mut self, peer: SocketAddr) {
        if let Some(channel) = self.in_use.get_mut(&peer) {
            channel.users -= 1;
            if channel.users == 0 {
                self.in_use.remove(&peer);
                self.rebinds.set(peer, None);
            }
        }
    }

    fn former_number(&self, peer: SocketAddr) -> Option<u16> {
        self.numbers.iter().find(|(_, owner)| **owner == peer).map(|(number, _)| *number)
    }

    /// Returns a number that no address had, else one whose address does not use it any more.
    fn free_number(&mut self) -> Option<u16> {
        let count = MAX_CHANNEL - MIN_CHANNEL + 1;
        let next = |number| if number == MAX_CHANNEL { MIN_CHANNEL } else { number + 1 };
        let order = std::iter::successors(Some(self.next), |number| Some(next(*number)));
        let mut candidates = order.take(count.into());
        let owner = |number: &u16| self.numbers.get(number);
        let unused = |number: &u16| owner(number).is_some_and(|peer| !self.in_use.contains_key(peer));
        let number =
            candidates.clone().find(|number| owner(number).is_none()).or_else(|| candidates.find(unused))?;
        self.next = next(number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 2], port))
    }

    fn number(channels: &Channels, port: u16) -> Option<u16> {
        channels.get(peer(port)).map(|channel| channel.number)
    }

    #[test]
    fn an_address_that_is_used_again_keeps_its_number() {
        let mut channels = Channels::new();
        assert!(channels.acquire(peer(1)) && !channels.acquire(peer(1)));
        let first = number(&channels, 1);
        (0..2).for_each(|_| channels.release(peer(1)));
        assert_eq!(number(&channels, 1), None);
        assert!(channels.acquire(peer(2)) && channels.acquire(peer(1)));
        assert!(first.is_some());
        assert_eq!(number(&channels, 1), first);
        assert_ne!(number(&channels, 2), first);
    }

    #[test]
    fn when_all_numbers_are_taken_those_of_unused_channels_are_given_away() {
        let mut channels = Channels::new();
        let count = MAX_CHANNEL - MIN_CHANNEL + 1;
        assert!((0..count).all(|port| channels.acquire(peer(port))));
        assert!(!channels.acquire(peer(count)), "none left");
        let freed = number(&channels, 7);
        channels.release(peer(7));
        assert!(channels.acquire(peer(count)));
        assert_eq!(number(&channels, count), freed);
        assert_eq!(channels.peer_of(freed.unwrap()), Some(peer(count)));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn only_channels_in_use_are_bound_again() {
        let (mut channels, now) = (Channels::new(), Instant::now());
        let later = now + Duration::from_secs(240);
        assert_eq!(channels.on_bound(peer(1), later), None);
        channels.acquire(peer(1));
        assert_eq!(channels.on_bound(peer(1), later), Some(true));
        assert_eq!((channels.on_bound(peer(1), later), channels.next_rebind()), (Some(false), Some(later)));
        channels.release(peer(1));
        assert_eq!((channels.next_rebind(), channels.pop_due(later)), (None, None));
    }
}
