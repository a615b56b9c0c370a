//! The channels of one allocation (RFC 8656, section 12), and which number each address has.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use partyline_wire::datagram::{MAX_CHANNEL, MIN_CHANNEL};

use crate::schedule::Deadlines;

pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) bound: bool,
    users: u32,
}

/// Channels that somebody wants, and the numbers of those that somebody wanted.
pub(super) struct Channels {
    wanted: BTreeMap<SocketAddr, Channel>,
    numbers: BTreeMap<u16, SocketAddr>,
    /// When the wanted ones have to be bound again.
    rebinds: Deadlines<SocketAddr>,
    next: u16,
}

impl Channels {
    pub(super) fn new() -> Self {
        Self {
            wanted: BTreeMap::new(),
            numbers: BTreeMap::new(),
            rebinds: Deadlines::new(),
            next: MIN_CHANNEL,
        }
    }

    pub(super) fn get(&self, peer: SocketAddr) -> Option<&Channel> {
        self.wanted.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: SocketAddr) -> Option<&mut Channel> {
        self.wanted.get_mut(&peer)
    }

    /// Whose channel a number is, as long as somebody wants it.
    pub(super) fn owner(&self, number: u16) -> Option<SocketAddr> {
        self.numbers.get(&number).copied().filter(|peer| self.wanted.contains_key(peer))
    }

    /// When the next channel has to be bound again.
    pub(super) fn rebind_at(&self) -> Option<Instant> {
        self.rebinds.next()
    }

    /// Plans when to bind an address's channel again, if somebody wants it.
    pub(super) fn rebind(&mut self, peer: SocketAddr, at: Option<Instant>) {
        self.rebinds.set(peer, at.filter(|_| self.wanted.contains_key(&peer)));
    }

    /// Takes an address whose channel has to be bound again now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketAddr> {
        self.rebinds.pop_due(now)
    }

    /// One more wants a channel to an address; true if it must be asked for.
    pub(super) fn want(&mut self, peer: SocketAddr) -> bool {
        if let Some(channel) = self.wanted.get_mut(&peer) {
            channel.users += 1;
            return false;
        }
        let Some(number) = self.former(peer).or_else(|| self.free()) else { return false };
        self.numbers.insert(number, peer);
        self.wanted.insert(peer, Channel { number, bound: false, users: 1 });
        true
    }

    /// One less does. The channel stays with the server until it expires there, which refuses the address another
    /// number until then: so the address keeps its own, and no other gets it before all others were given away.
    pub(super) fn leave(&mut self, peer: SocketAddr) {
        if let Some(channel) = self.wanted.get_mut(&peer) {
            channel.users -= 1;
            if channel.users == 0 {
                self.wanted.remove(&peer);
                self.rebinds.set(peer, None);
            }
        }
    }

    fn former(&self, peer: SocketAddr) -> Option<u16> {
        self.numbers.iter().find(|(_, owner)| **owner == peer).map(|(number, _)| *number)
    }

    /// A number nobody had, else one whose owner does not want it any more.
    fn free(&mut self) -> Option<u16> {
        let count = MAX_CHANNEL - MIN_CHANNEL + 1;
        let next = |number| if number == MAX_CHANNEL { MIN_CHANNEL } else { number + 1 };
        let order = std::iter::successors(Some(self.next), |number| Some(next(*number)));
        let mut candidates = order.take(count.into());
        let owner = |number: &u16| self.numbers.get(number);
        let unwanted = |number: &u16| owner(number).is_some_and(|peer| !self.wanted.contains_key(peer));
        let number = candidates
            .clone()
            .find(|number| owner(number).is_none())
            .or_else(|| candidates.find(unwanted))?;
        self.next = next(number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_wanted_again_has_its_channel_again() {
        let mut channels = Channels::new();
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 2], port)));
        let number = |channels: &Channels, peer| channels.get(peer).map(|channel| channel.number);
        assert!(channels.want(one) && !channels.want(one));
        let first = number(&channels, one);
        (0..2).for_each(|_| channels.leave(one));
        assert_eq!(number(&channels, one), None);
        assert!(channels.want(other) && channels.want(one));
        assert!(first.is_some());
        assert_eq!(number(&channels, one), first);
        assert_ne!(number(&channels, other), first);
    }
}
