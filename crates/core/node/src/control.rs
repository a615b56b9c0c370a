//! Messages that members' engines send each other through the tunnel, on its control channel.

use std::net::SocketAddr;

use partyline_model::{DeviceId, Topic};
use serde::{Deserialize, Serialize};

/// The first bytes of a device's id, which name a member within a party.
pub(crate) type MemberTag = [u8; 8];

/// A message on the control channel, encoded in postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ControlMessage {
    /// A sealed message, the sender's own or one that it passes on.
    Sealed { topic: Topic, sealed: Vec<u8> },
    /// Asks for a `Pong`.
    Ping(u32),
    /// Answers a `Ping`.
    Pong(u32),
    /// Asks whether the receiver would relay for the sender to another member.
    RequestRelay { to: DeviceId },
    /// The sender would. Its round trip to that member takes this long.
    OfferRelay { to: DeviceId, rtt_ms: u16 },
    /// To be forwarded to another member.
    Forward { to: MemberTag, message: Vec<u8> },
    /// Forwarded for another member. Handled on the packet path, since it may hold a packet.
    Forwarded { from: MemberTag, message: Vec<u8> },
    /// Asks for a packet with this token to where a server sees one of the sender's sockets.
    SendFilteringProbe { to: SocketAddr, token: [u8; 12] },
    /// Asks for the lease of a second UDP port.
    RequestSecondPort,
    /// Grants it: where a server sees the first and the second port.
    GrantSecondPort { first: SocketAddr, second: SocketAddr },
    /// Asks for a packet with this token from both ports to where a server sees two of the sender's sockets.
    SendProbeRound { to: [SocketAddr; 2], token: [u8; 12] },
}

impl ControlMessage {
    /// Reads a message; `None` if it is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Writes the message.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    /// Returns the label in logs.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "sealed",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::RequestRelay { .. } => "request_relay",
            Self::OfferRelay { .. } => "offer_relay",
            Self::Forward { .. } => "forward",
            Self::Forwarded { .. } => "forwarded",
            Self::SendFilteringProbe { .. } => "send_filtering_probe",
            Self::RequestSecondPort => "request_second_port",
            Self::GrantSecondPort { .. } => "grant_second_port",
            Self::SendProbeRound { .. } => "send_probe_round",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ControlMessage;

    #[test]
    fn messages_round_trip() {
        let message = ControlMessage::Forward { to: [7; 8], message: vec![1, 2, 3] };
        let bytes = message.encode().expect("a short message");
        assert_eq!(ControlMessage::decode(&bytes), Some(message));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ControlMessage::decode(&bytes);
        }
    }
}
