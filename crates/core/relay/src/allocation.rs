//! One allocation: its relayed addresses, permissions, channels and bandwidth (RFC 8656, sections 3, 9 and 12).

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use foldhash::fast::FixedState;
use partyline_timing::{Level, Rate};
use stun_rs::TransactionId;
use tracing::debug;

use crate::{
    channel::{BindError, ChannelBindings},
    client::Client,
    counters::{DropReason, Refusal},
    integrity::Signature,
    permission::Permissions,
    saturation::Saturation,
};

/// An allocation whose sockets are still being bound, with what its success response needs.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) signature: Signature,
    pub(crate) fingerprint: bool,
    pub(crate) even_port: bool,
    /// Sockets that were requested and not reported yet.
    pub(crate) sockets: u8,
    /// Attempts left to find a free port.
    pub(crate) attempts: u8,
}

/// An allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) client: Client,
    pub(crate) username: Box<str>,
    /// The transaction that created it, so that a retransmission gets the same response (RFC 8656, section 7.2).
    pub(crate) transaction: TransactionId,
    /// Public relayed addresses: IPv4, IPv6.
    pub(crate) relayed: [Option<SocketAddr>; 2],
    /// Why the additional address family could not be provided, if it was requested.
    pub(crate) additional_error: Option<Refusal>,
    pub(crate) expires: Instant,
    /// The bandwidth used.
    bandwidth: Level,
    saturation: Saturation,
    pub(crate) pending: Option<Box<Pending>>,
    permissions: Permissions,
    channels: ChannelBindings,
}

impl Allocation {
    pub(crate) fn new(
        client: Client,
        username: &str,
        transaction: TransactionId,
        expires: Instant,
        hasher: &FixedState,
        pending: Pending,
    ) -> Self {
        Self {
            client,
            username: username.into(),
            transaction,
            relayed: [None; 2],
            additional_error: None,
            expires,
            bandwidth: Level::default(),
            saturation: Saturation::default(),
            pending: Some(Box::new(pending)),
            permissions: Permissions::new(hasher),
            channels: ChannelBindings::new(hasher),
        }
    }

    /// Takes a packet out of the bandwidth. Returns false if that is used up.
    pub(crate) fn take_bandwidth(&mut self, now: Instant, rate: &Rate, length: u64) -> bool {
        let granted = self.bandwidth.take(now, rate, length);
        if !granted && self.saturation.report(now) {
            let reason = DropReason::AllocationBandwidth.label();
            debug!(client = %self.client.address, reason, "dropping packets of this allocation");
        }
        granted
    }

    /// Returns the relayed address of the peer's family.
    pub(crate) fn relayed_for(&self, peer: IpAddr) -> Option<SocketAddr> {
        self.relayed[usize::from(peer.is_ipv6())]
    }

    /// Returns true if the peer has a permission.
    pub(crate) fn permits(&self, peer: IpAddr, now: Instant) -> bool {
        self.permissions.permits(peer, now)
    }

    /// Returns the peer that a channel is bound to.
    pub(crate) fn peer_of(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        self.channels.peer_of(channel, now)
    }

    /// Returns the channel that is bound to a peer.
    pub(crate) fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        self.channels.channel_to(peer, now)
    }

    /// Installs or refreshes permissions for all of `peers`. Returns false, and installs none, if that would exceed `max`.
    pub(crate) fn permit(&mut self, peers: &[SocketAddr], max: usize, now: Instant) -> bool {
        let has_room = self.permissions.has_room_for(peers.iter().map(SocketAddr::ip), max, now);
        if has_room {
            peers.iter().for_each(|peer| self.permissions.install(peer.ip(), now));
        }
        has_room
    }

    /// Binds a channel to a peer, or refreshes its binding, and installs a permission for the peer.
    pub(crate) fn bind_channel(
        &mut self,
        channel: u16,
        peer: SocketAddr,
        max: usize,
        now: Instant,
    ) -> Result<(), BindError> {
        self.channels.prepare(channel, peer, max, now)?;
        if !self.permit(&[peer], max, now) {
            return Err(BindError::Full);
        }
        self.channels.bind(channel, peer, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        channel::CHANNEL_LIFETIME, client::ClientTransport, integrity::Integrity,
        permission::PERMISSION_LIFETIME,
    };

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn allocation(now: Instant) -> Allocation {
        let client = Client { transport: ClientTransport::Udp(0), address: ([192, 0, 2, 1], 1).into() };
        let pending = Pending {
            signature: Signature { kind: Integrity::Sha1, key: Vec::new() },
            fingerprint: false,
            even_port: false,
            sockets: 0,
            attempts: 0,
        };
        let transaction = TransactionId::from([0; 12]);
        Allocation::new(client, "user", transaction, now, &FixedState::with_seed(1), pending)
    }

    fn peer(number: u8) -> SocketAddr {
        ([203, 0, 113, number], 1000).into()
    }

    #[test]
    fn permission_lasts_five_minutes_and_channel_ten() {
        let now = start();
        let mut allocation = allocation(now);
        allocation.bind_channel(0x4000, peer(1), 8, now).unwrap();
        let before = |lifetime| now + lifetime - Duration::from_nanos(1);
        assert!(allocation.permits(peer(1).ip(), before(PERMISSION_LIFETIME)));
        assert!(!allocation.permits(peer(1).ip(), now + PERMISSION_LIFETIME));
        assert_eq!(allocation.channel_to(peer(1), before(CHANNEL_LIFETIME)), Some(0x4000));
        assert_eq!(allocation.channel_to(peer(1), now + CHANNEL_LIFETIME), None);
        assert_eq!(allocation.peer_of(0x4000, now + CHANNEL_LIFETIME), None);
    }

    #[test]
    fn channel_has_one_peer_and_peer_one_channel() {
        let now = start();
        let mut allocation = allocation(now);
        allocation.bind_channel(0x4000, peer(1), 8, now).unwrap();
        assert_eq!(allocation.bind_channel(0x4000, peer(2), 8, now), Err(BindError::Conflict));
        assert_eq!(allocation.bind_channel(0x4001, peer(1), 8, now), Err(BindError::Conflict));
        assert_eq!(allocation.bind_channel(0x4000, peer(1), 8, now), Ok(()));
        assert_eq!(allocation.bind_channel(0x4001, peer(1), 8, now + CHANNEL_LIFETIME), Ok(()));
    }

    #[test]
    fn expired_bindings_and_permissions_make_room() {
        let now = start();
        let mut allocation = allocation(now);
        for number in 0..4 {
            allocation.bind_channel(0x4000 + u16::from(number), peer(number), 4, now).unwrap();
        }
        assert_eq!(allocation.bind_channel(0x4004, peer(4), 4, now), Err(BindError::Full));
        assert!(!allocation.permit(&[peer(4)], 4, now));
        assert_eq!(allocation.bind_channel(0x4004, peer(4), 4, now + CHANNEL_LIFETIME), Ok(()));
    }

    #[test]
    fn permissions_are_installed_for_all_peers_or_none() {
        let now = start();
        let mut allocation = allocation(now);
        assert!(!allocation.permit(&[peer(1), peer(2), peer(3)], 2, now));
        assert!(!allocation.permits(peer(1).ip(), now));
        assert!(allocation.permit(&[peer(1), peer(2)], 2, now));
    }

    proptest! {
        #[test]
        fn bindings_agree_with_a_list(steps in prop::collection::vec((0u16..4, 0u8..4, 0u64..400), 0..60)) {
            let mut now = start();
            let (mut allocation, mut list) = (allocation(now), BTreeMap::<u16, (SocketAddr, Instant)>::new());
            for (number, other, wait) in steps {
                now += Duration::from_secs(wait);
                list.retain(|_, (_, expires)| *expires > now);
                let conflict = list.iter().any(|(n, (p, _))| (*n == number) != (*p == peer(other)));
                prop_assert_eq!(allocation.bind_channel(number, peer(other), 8, now).is_err(), conflict);
                if !conflict {
                    list.insert(number, (peer(other), now + CHANNEL_LIFETIME));
                }
                for n in 0..4 {
                    prop_assert_eq!(allocation.peer_of(n, now), list.get(&n).map(|(p, _)| *p));
                    let bound = list.iter().find(|(_, (p, _))| *p == peer(n as u8)).map(|(n, _)| *n);
                    prop_assert_eq!(allocation.channel_to(peer(n as u8), now), bound);
                }
            }
        }
    }
}
