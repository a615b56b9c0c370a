//! Data indications (RFC 8656, section 11.4): what a relay sends us from an address without a channel.

use std::{net::SocketAddr, ops::Range};

use partyline_wire::datagram::{self, STUN_HEADER};
use stun_rs::{MessageDecoder, attributes::turn::XorPeerAddress};

/// The message type.
pub(super) const DATA: [u8; 2] = [0x00, 0x17];
/// The type of the DATA attribute.
const DATA_ATTRIBUTE: u16 = 0x0013;

/// From whom the data is, and where it lies in the message.
pub(super) fn data(bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
    let payload = data_attribute(bytes)?;
    let (message, _) = MessageDecoder::default().decode(bytes).ok()?;
    let peer = message.get::<XorPeerAddress>()?.as_xor_peer_address().ok()?;
    Some((*peer.socket_address(), payload))
}

fn data_attribute(bytes: &[u8]) -> Option<Range<usize>> {
    let mut at = STUN_HEADER;
    loop {
        let &[t0, t1, l0, l1] = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = at + 4..at + 4 + len;
        if u16::from_be_bytes([t0, t1]) == DATA_ATTRIBUTE {
            return (value.end <= bytes.len()).then_some(value);
        }
        at = value.end + datagram::stream_padding(len);
    }
}
