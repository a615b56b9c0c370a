//! One client's allocation: its relayed addresses, whom it lets in, and its channels (RFC 8656, sections 3, 9 and 12).

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use stun_rs::TransactionId;

use crate::{limit::Bucket, request::Signature};

/// How long a permission lasts without being refreshed.
const PERMISSION_NS: u64 = 300 * 1_000_000_000;
/// How long a channel binding lasts without being refreshed.
const CHANNEL_NS: u64 = 600 * 1_000_000_000;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTransport {
    /// Datagrams, on the listener with this index.
    Udp(u8),
    /// A TCP or TLS connection, numbered by whoever owns it; a number must not be used again while its allocation lives.
    Stream(u32),
}

/// A client: RFC 8656's 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// How it reaches the server.
    pub transport: ClientTransport,
    /// The address it is seen at.
    pub address: SocketAddr,
}

/// A socket bound to a relayed address. Numbers are small and used again after [`crate::Event::CloseSocket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelaySocket(u32);

impl RelaySocket {
    pub(crate) const fn new(allocation: usize, v6: bool) -> Self {
        Self((allocation as u32) << 1 | v6 as u32)
    }

    /// The number, for use as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The socket with that number.
    #[must_use]
    pub const fn from_index(index: usize) -> Self {
        Self(index as u32)
    }

    pub(crate) const fn allocation(self) -> usize {
        (self.0 >> 1) as usize
    }

    pub(crate) const fn is_v6(self) -> bool {
        self.0 & 1 == 1
    }
}

/// A peer could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The channel has another peer, or the peer another channel: 400.
    Contradiction,
    /// All places are taken: 508.
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    peer: SocketAddr,
    expires_ns: u64,
}

/// An allocation whose sockets are still being opened, and what its client will be told then.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) signature: Signature,
    pub(crate) fingerprint: bool,
    pub(crate) even_port: bool,
    /// Sockets asked for and not heard of.
    pub(crate) waiting: u8,
    /// Attempts left to find a free port.
    pub(crate) attempts: u8,
}

/// An allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) client: Client,
    pub(crate) username: Box<str>,
    /// The request that made it, so that its retransmission gets the same answer.
    pub(crate) transaction: TransactionId,
    /// Public relayed addresses: IPv4, IPv6.
    pub(crate) relayed: [Option<SocketAddr>; 2],
    /// Why the additional family could not be had, if it was asked for.
    pub(crate) additional_error: Option<u16>,
    pub(crate) expires_ns: u64,
    pub(crate) bucket: Bucket,
    pub(crate) pending: Option<Box<Pending>>,
    permissions: HashMap<IpAddr, u64, FixedState>,
    channels: HashMap<u16, Channel, FixedState>,
    numbers: HashMap<SocketAddr, u16, FixedState>,
}

impl Allocation {
    pub(crate) fn new(
        client: Client,
        username: &str,
        transaction: TransactionId,
        expires_ns: u64,
        hasher: &FixedState,
        pending: Pending,
    ) -> Self {
        Self {
            client,
            username: username.into(),
            transaction,
            relayed: [None; 2],
            additional_error: None,
            expires_ns,
            bucket: Bucket::default(),
            pending: Some(Box::new(pending)),
            permissions: HashMap::with_hasher(hasher.clone()),
            channels: HashMap::with_hasher(hasher.clone()),
            numbers: HashMap::with_hasher(hasher.clone()),
        }
    }

    /// The relayed address of a peer's family.
    pub(crate) fn relayed_for(&self, peer: IpAddr) -> Option<SocketAddr> {
        self.relayed[usize::from(peer.is_ipv6())]
    }

    pub(crate) fn permits(&self, peer: IpAddr, now_ns: u64) -> bool {
        self.permissions.get(&peer).is_some_and(|expires_ns| *expires_ns > now_ns)
    }

    /// The peer a channel is bound to.
    pub(crate) fn peer_of(&self, channel: u16, now_ns: u64) -> Option<SocketAddr> {
        self.channels.get(&channel).filter(|channel| channel.expires_ns > now_ns).map(|channel| channel.peer)
    }

    /// The channel bound to a peer.
    pub(crate) fn channel_to(&self, peer: SocketAddr, now_ns: u64) -> Option<u16> {
        let number = *self.numbers.get(&peer)?;
        self.peer_of(number, now_ns).map(|_| number)
    }

    /// Whether permissions for all of `peers` can be held.
    pub(crate) fn has_room_for(&mut self, peers: &[SocketAddr], most: usize, now_ns: u64) -> bool {
        let fresh = |permissions: &HashMap<IpAddr, u64, FixedState>| {
            let new = peers.iter().filter(|peer| !permissions.contains_key(&peer.ip()));
            permissions.len() + new.count()
        };
        if fresh(&self.permissions) > most {
            self.permissions.retain(|_, expires_ns| *expires_ns > now_ns);
        }
        fresh(&self.permissions) <= most
    }

    /// Installs or refreshes a permission; ask [`Self::has_room_for`] first.
    pub(crate) fn permit(&mut self, peer: IpAddr, now_ns: u64) {
        self.permissions.insert(peer, now_ns + PERMISSION_NS);
    }

    /// Binds a channel, or refreshes its binding.
    pub(crate) fn bind(
        &mut self,
        number: u16,
        peer: SocketAddr,
        most: usize,
        now_ns: u64,
    ) -> Result<(), Denied> {
        let contradicts = self.peer_of(number, now_ns).is_some_and(|bound| bound != peer)
            || self.channel_to(peer, now_ns).is_some_and(|bound| bound != number);
        if contradicts {
            return Err(Denied::Contradiction);
        }
        if self.channels.len() >= most && !self.channels.contains_key(&number) {
            self.forget_expired_channels(now_ns);
            if self.channels.len() >= most {
                return Err(Denied::Full);
            }
        }
        if !self.has_room_for(&[peer], most, now_ns) {
            return Err(Denied::Full);
        }
        self.permit(peer.ip(), now_ns);
        self.release(number, peer);
        self.channels.insert(number, Channel { peer, expires_ns: now_ns + CHANNEL_NS });
        self.numbers.insert(peer, number);
        Ok(())
    }

    /// Takes away what expired bindings of either side left behind, so that the two tables stay each other's inverse.
    fn release(&mut self, number: u16, peer: SocketAddr) {
        if let Some(old) = self.channels.remove(&number) {
            self.numbers.remove(&old.peer);
        }
        if let Some(old) = self.numbers.remove(&peer) {
            self.channels.remove(&old);
        }
    }

    fn forget_expired_channels(&mut self, now_ns: u64) {
        self.channels.retain(|_, channel| channel.expires_ns > now_ns);
        let channels = &self.channels;
        self.numbers.retain(|_, number| channels.contains_key(number));
    }
}

#[cfg(test)]
#[path = "allocation/tests.rs"]
mod tests;
