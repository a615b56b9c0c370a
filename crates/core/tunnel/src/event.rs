//! What the tunnel reports to its caller.

use partyline_model::{DeviceId, PartyId};

use crate::drops::DropReason;

/// What a datagram from the socket contained. Slices point into the scratch buffer that the caller passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// An IP packet for the party's network device.
    Packet {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
        /// The packet.
        packet: &'a mut [u8],
    },
    /// A complete message of the control channel.
    Control {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
        /// The message.
        message: Vec<u8>,
    },
    /// A handshake message that has to be answered by the path on which it arrived.
    HandshakeReply {
        /// The party and member, or `None` while an initiator has yet to prove its address.
        peer: Option<(PartyId, DeviceId)>,
        /// The answer.
        datagram: &'a mut [u8],
    },
    /// An authentic datagram without content: a keepalive, a cookie reply, or a chunk of a control message.
    Authenticated {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
    },
    /// The datagram was dropped and counted.
    Dropped(DropReason),
}

/// A change in the state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Keys were agreed on: packets can be sent and received.
    SessionReady {
        /// The party.
        party: PartyId,
        /// The member.
        peer: DeviceId,
    },
    /// The keys expired before new ones were agreed on.
    SessionLost {
        /// The party.
        party: PartyId,
        /// The member.
        peer: DeviceId,
    },
}
