//! What the server counts since its start. Every structure can be exported as labelled counters with `each`.

/// Declares an enum of reasons, and a structure with one counter for each of them.
macro_rules! counted_reasons {
    (
        $(#[$reason_doc:meta])* enum $reason:ident;
        $(#[$counters_doc:meta])* struct $counters:ident;
        $($(#[$doc:meta])* $variant:ident => $field:ident,)+
    ) => {
        $(#[$reason_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $reason { $($(#[$doc])* $variant,)+ }

        impl $reason {
            /// Returns the stable label value, as in metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }
        }

        $(#[$counters_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $counters { $($(#[$doc])* pub $field: u64,)+ }

        impl $counters {
            /// Returns every counter with its label value, zeros included.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }

            /// Returns the sum of all counters.
            #[must_use]
            pub const fn total(&self) -> u64 {
                0 $(+ self.$field)+
            }

            pub(crate) const fn count(&mut self, reason: $reason) {
                match reason { $($reason::$variant => self.$field += 1,)+ }
            }
        }
    };
}

counted_reasons! {
    /// Why a request was answered with an error response.
    enum Refusal;
    /// Error responses by reason, each named after its STUN error code.
    struct RefusalCounters;
    /// 401 to a request without credentials: the first step of long-term authentication (RFC 8489, section 9.2.4).
    Challenge => challenge,
    /// 400: a required attribute is missing, or attributes contradict each other.
    BadRequest => bad_request,
    /// 401: unknown user, expired user name or wrong password.
    Unauthenticated => unauthenticated,
    /// 403: the operator does not allow this peer address.
    Forbidden => forbidden,
    /// 420: a comprehension-required attribute that this server does not understand.
    UnknownAttribute => unknown_attribute,
    /// 437: the client has no allocation, or already has one.
    AllocationMismatch => allocation_mismatch,
    /// 438: the nonce has expired or was issued to another address.
    StaleNonce => stale_nonce,
    /// 440: the server has no relayed addresses of the requested family.
    AddressFamilyNotSupported => address_family_not_supported,
    /// 441: the allocation belongs to another user.
    WrongCredentials => wrong_credentials,
    /// 442: a requested transport other than UDP.
    UnsupportedTransport => unsupported_transport,
    /// 443: the allocation has no relayed address of the peer's family.
    PeerAddressFamilyMismatch => peer_address_family_mismatch,
    /// 486: the user or its address has reached its quota of allocations.
    AllocationQuotaReached => allocation_quota_reached,
    /// 508: a limit of the server, its port range or an allocation is reached, or the feature is not offered.
    InsufficientCapacity => insufficient_capacity,
}

counted_reasons! {
    /// Why a packet was dropped without an answer.
    enum DropReason;
    /// Packets dropped by reason. The owner of the sockets adds `queue_full` and `oversized`, which only it can see.
    struct DropCounters;
    /// Neither STUN nor ChannelData, or broken.
    Malformed => malformed,
    /// Data from a client that has no allocation.
    NoAllocation => no_allocation,
    /// The peer has no permission, or it has expired.
    NoPermission => no_permission,
    /// The channel is not bound, or its binding has expired.
    NoChannel => no_channel,
    /// The allocation has no relayed address of the peer's family.
    AddressFamilyMismatch => address_family_mismatch,
    /// The destination is one of the server's own listeners, another program on one of its addresses, or port 0.
    ForbiddenPeer => forbidden_peer,
    /// The payload does not have the form of what members send to each other.
    ForeignPayload => foreign_payload,
    /// The allocation has used up its bandwidth.
    AllocationBandwidth => allocation_bandwidth,
    /// The client's network has used up its bandwidth.
    NetworkBandwidth => network_bandwidth,
    /// The server has used up its bandwidth.
    ServerBandwidth => server_bandwidth,
    /// A request above the rate for clients without an allocation.
    RateLimited => rate_limited,
    /// A request that could only be answered at more than four times its length.
    Amplification => amplification,
    /// A socket or the queue of a stream did not take the packet.
    QueueFull => queue_full,
    /// A datagram longer than the receive buffer.
    Oversized => oversized,
}

/// What was relayed, by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectionCounters {
    /// From clients to their peers.
    pub from_clients: u64,
    /// From peers to clients.
    pub to_clients: u64,
}

impl DirectionCounters {
    /// Returns both counters with their label values.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [("from_client", self.from_clients), ("to_client", self.to_clients)].into_iter()
    }
}

/// Everything that the server counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Allocations that exist now. A gauge.
    pub allocations_active: u64,
    /// Allocations created.
    pub allocations_created: u64,
    /// STUN and TURN requests received.
    pub requests: u64,
    /// Binding requests answered with success.
    pub bindings: u64,
    /// Requests answered with an error.
    pub refused: RefusalCounters,
    /// Packets relayed.
    pub packets: DirectionCounters,
    /// Payload bytes relayed.
    pub bytes: DirectionCounters,
    /// Packets dropped.
    pub dropped: DropCounters,
}
