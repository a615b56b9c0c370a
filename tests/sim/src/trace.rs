//! A hash of everything that was sent, the same for the same run.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

/// The number and the hash of all messages. Of their bytes only the length counts, since WireGuard draws its own keys.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    start: Instant,
    hash: u64,
    /// The number of messages so far.
    pub messages: u64,
}

impl Trace {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start, hash: 0xcbf2_9ce4_8422_2325, messages: 0 }
    }

    /// Returns the hash.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, len: usize) {
        self.mix(now);
        for address in [from, to] {
            match address.ip() {
                IpAddr::V4(ip) => self.number(ip.to_bits().into()),
                IpAddr::V6(ip) => self.number(ip.to_bits() as u64),
            }
            self.number(address.port().into());
        }
        self.number(len as u64);
    }

    pub(crate) fn message(&mut self, now: Instant, who: usize, len: usize) {
        self.mix(now);
        self.number(who as u64);
        self.number(len as u64);
    }

    fn mix(&mut self, now: Instant) {
        self.messages += 1;
        self.number((now - self.start).as_nanos() as u64);
    }

    /// FNV-1a, eight bytes at a time.
    const fn number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}
