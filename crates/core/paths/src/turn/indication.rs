//! Data indications (RFC 8656, section 11.4): data from a peer address that has no channel.

use std::{net::SocketAddr, ops::Range};

use partyline_wire::datagram::{self, STUN_HEADER};
use stun_rs::{MessageDecoder, attributes::turn::XorPeerAddress};

/// The message type of a Data indication.
pub(super) const DATA: [u8; 2] = [0x00, 0x17];
/// The type of the DATA attribute.
const DATA_ATTRIBUTE: u16 = 0x0013;

/// Returns the peer the data is from, and where it lies in the message.
pub(super) fn parse(bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
    // The decoder copies attribute values; their place in the message has to be found separately.
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

#[cfg(test)]
mod tests {
    use stun_rs::{MessageClass, MessageEncoderBuilder, StunMessageBuilder, attributes::turn::Data, methods};

    use super::*;

    fn indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let message = StunMessageBuilder::new(methods::DATA, MessageClass::Indication)
            .with_attribute(XorPeerAddress::from(peer))
            .with_attribute(Data::new(data))
            .build();
        let mut bytes = vec![0; 256];
        let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).unwrap();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn peer_and_data_are_found() {
        let peer = "198.51.100.7:40000".parse().unwrap();
        let bytes = indication(peer, b"five!");
        assert_eq!(bytes[..2], DATA);
        let (from, range) = parse(&bytes).unwrap();
        assert_eq!((from, &bytes[range]), (peer, &b"five!"[..]));
    }

    #[test]
    fn a_truncated_indication_is_refused() {
        let bytes = indication("198.51.100.7:40000".parse().unwrap(), b"five!");
        assert!((0..bytes.len() - 3).all(|len| parse(&bytes[..len]).is_none()));
    }
}
