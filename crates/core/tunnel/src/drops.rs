//! Why packets and datagrams were dropped. Every drop has exactly one reason and is counted exactly once.

/// Declares the reasons, and the structure with one counter for each of them.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $field:ident,)+) => {
        /// Why a packet or datagram was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of [`DropCounters::each`].
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the stable label value, as in metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }
        }

        /// Packets and datagrams dropped, by reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct DropCounters { $($(#[$doc])* pub $field: u64,)+ }

        impl DropCounters {
            /// Returns every counter with its label value, zeros included.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }

            /// Returns the counter of one reason.
            #[must_use]
            pub const fn get(&self, reason: DropReason) -> u64 {
                match reason { $(DropReason::$variant => self.$field,)+ }
            }

            pub(crate) const fn count(&mut self, reason: DropReason) {
                match reason { $(DropReason::$variant => self.$field += 1,)+ }
            }

            pub(crate) const fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

drop_reasons! {
    /// Not an IP packet, not a WireGuard datagram, or lengths that contradict each other.
    Malformed => malformed,
    /// Longer than [`crate::MAX_DATAGRAM_LEN`], or than the caller's buffer.
    TooLong => too_long,
    /// The party is not on this tunnel, or no longer.
    UnknownParty => unknown_party,
    /// No member owns the destination address.
    NoRoute => no_route,
    /// A local program sent from an address that is not this member's own.
    ForeignSource => foreign_source,
    /// A member sent from an address that it does not own.
    SpoofedSource => spoofed_source,
    /// A member sent to an address that is neither this member's nor a broadcast address.
    ForeignDestination => foreign_destination,
    /// There is no path to the member, and a broadcast does not wait for one.
    NoPath => no_path,
    /// More packets waited for a session than the queue holds; the oldest was dropped.
    PendingOverflow => pending_overflow,
    /// A packet waited too long for a session.
    PendingExpired => pending_expired,
    /// The caller did not empty the outbox in time.
    OutboxFull => outbox_full,
    /// Larger than the path's MTU and not to be fragmented; the sender was notified by ICMP Packet Too Big.
    ExceedsMtu => exceeds_mtu,
    /// A broadcast above the rate limit of its source.
    BroadcastRateLimited => broadcast_rate_limited,
    /// Multicast for routers (IGMP, MLD reports, router solicitations). A tunnel has no router.
    RouterMulticast => router_multicast,
    /// A member's message that would change the routes or addresses of this computer: a router advertisement, a redirect,
    /// or what a DHCP server sends.
    NetworkConfiguration => network_configuration,
    /// A member sent to a port of this computer that is not open to the party.
    IncomingBlocked => incoming_blocked,
    /// A local program used the UDP port of the control channel.
    ReservedPort => reserved_port,
    /// A fragment of a control message that is malformed, or contradicts other fragments of its message.
    MalformedControl => malformed_control,
    /// A control message of which not all fragments arrived in time.
    IncompleteControl => incomplete_control,
    /// No session has the receiver index of the datagram.
    UnknownReceiverIndex => unknown_receiver_index,
    /// A handshake initiation from a key that is not a member's, or for a key that is not ours.
    UnknownPeer => unknown_peer,
    /// Too many handshake initiations: the sender has to prove its address with a cookie first.
    HandshakeRateLimited => handshake_rate_limited,
    /// Too many handshake messages from one source, although it has proven its address.
    HandshakeSourceLimited => handshake_source_limited,
    /// The datagram was received before, or is too old for the replay window to tell.
    Replayed => replayed,
    /// The authentication tag or the MAC is wrong.
    Unauthenticated => unauthenticated,
    /// Encrypted with keys that were discarded since.
    ExpiredKeys => expired_keys,
}

impl DropCounters {
    /// Returns the number of all drops.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.each().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_one_counter_with_its_label() {
        let mut counters = DropCounters::default();
        for (nth, reason) in DropReason::ALL.iter().enumerate() {
            (0..=nth).for_each(|_| counters.count(*reason));
        }
        for (nth, (reason, (label, count))) in DropReason::ALL.iter().zip(counters.each()).enumerate() {
            assert_eq!((label, count), (reason.label(), nth as u64 + 1));
            assert_eq!(counters.get(*reason), count);
        }
        let labels: BTreeSet<_> = counters.each().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }

    #[test]
    fn adding_counters_adds_every_reason() {
        let mut one = DropCounters::default();
        DropReason::ALL.iter().for_each(|reason| one.count(*reason));
        let mut sum = one;
        sum.add(&one);
        assert!(sum.each().all(|(_, count)| count == 2));
        assert_eq!(sum.total(), 2 * DropReason::ALL.len() as u64);
    }
}
