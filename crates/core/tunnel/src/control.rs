//! The control channel: messages between the engines of two members, carried inside the tunnel and never seen by the
//! network device.
//!
//! A message is cut into chunks of at most [`MAX_CHUNK_LEN`] bytes. Each chunk is a UDP datagram over IPv6 between the virtual
//! addresses, with port [`CONTROL_PORT`] on both sides and this payload, in network byte order:
//!
//! ```text
//! message number (4) | chunk index (1) | chunk count (1) | bytes
//! ```
//!
//! A message is delivered once all its chunks have arrived, in any order. Like a datagram it can be lost or overtaken.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{
    checksum,
    drops::DropReason,
    ip::{IpHeader, UDP, V6_HEADER_LEN},
};

/// UDP port of the control channel on the virtual IPv6 addresses.
pub const CONTROL_PORT: u16 = 20556;
/// The longest control message, in bytes.
pub const MAX_CONTROL_MESSAGE_LEN: usize = 16 * 1024;

/// The longest part of a message in one packet, in bytes: with all headers it fits the IPv6 minimum MTU of 1,280.
const MAX_CHUNK_LEN: usize = 1200;
const MAX_CHUNKS: usize = MAX_CONTROL_MESSAGE_LEN.div_ceil(MAX_CHUNK_LEN);
const UDP_HEADER_LEN: usize = 8;
const CHUNK_HEADER_LEN: usize = 6;
const HEADERS_LEN: usize = V6_HEADER_LEN + UDP_HEADER_LEN + CHUNK_HEADER_LEN;
/// Messages of one member that may be incomplete at a time; the oldest makes room.
const MAX_PARTIAL_MESSAGES: usize = 4;
/// How long a message may stay incomplete.
const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A control message is longer than [`MAX_CONTROL_MESSAGE_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("control message of {0} bytes exceeds the maximum of {MAX_CONTROL_MESSAGE_LEN}")]
pub struct ControlTooLong(pub usize);

/// Returns true if a packet belongs to the control channel.
pub(crate) fn is_control(packet: &[u8], header: &IpHeader) -> bool {
    matches!(header.destination, IpAddr::V6(_))
        && header.protocol == UDP
        && header.destination_port(packet) == Some(CONTROL_PORT)
}

/// Returns the packets that carry a message.
pub(crate) fn packets(
    from: Ipv6Addr,
    to: Ipv6Addr,
    number: u32,
    message: &[u8],
) -> Result<impl Iterator<Item = Vec<u8>>, ControlTooLong> {
    if message.len() > MAX_CONTROL_MESSAGE_LEN {
        return Err(ControlTooLong(message.len()));
    }
    let count = message.len().div_ceil(MAX_CHUNK_LEN).max(1);
    Ok((0..count).map(move |index| {
        let chunk = &message[index * MAX_CHUNK_LEN..message.len().min((index + 1) * MAX_CHUNK_LEN)];
        packet(from, to, (number, index as u8, count as u8), chunk)
    }))
}

fn packet(from: Ipv6Addr, to: Ipv6Addr, (number, index, count): (u32, u8, u8), chunk: &[u8]) -> Vec<u8> {
    let udp_len = UDP_HEADER_LEN + CHUNK_HEADER_LEN + chunk.len();
    let mut packet = Vec::with_capacity(HEADERS_LEN + chunk.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend((udp_len as u16).to_be_bytes());
    packet.extend([UDP, 1]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(CONTROL_PORT.to_be_bytes());
    packet.extend(CONTROL_PORT.to_be_bytes());
    packet.extend((udp_len as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(number.to_be_bytes());
    packet.extend([index, count]);
    packet.extend(chunk);
    let sum = checksum::pseudo_header(from.into(), to.into(), UDP, udp_len)
        + checksum::sum(&packet[V6_HEADER_LEN..]);
    // RFC 768: zero on the wire means "no checksum", so a computed zero is sent as all ones.
    let sum = match checksum::finish(sum) {
        0 => u16::MAX,
        sum => sum,
    };
    packet[V6_HEADER_LEN + 6..V6_HEADER_LEN + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Reassembles the control messages of one member.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: VecDeque<PartialMessage>,
    discarded: usize,
}

#[derive(Debug)]
struct PartialMessage {
    number: u32,
    since: Instant,
    /// One bit for each chunk that has not arrived.
    missing: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes the UDP datagram of a packet on the control port; returns the message once it is complete. The tunnel has
    /// authenticated the packet, so the UDP checksum would add nothing.
    pub(crate) fn handle_chunk(&mut self, now: Instant, udp: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let (header, chunk) = udp
            .split_first_chunk::<{ UDP_HEADER_LEN + CHUNK_HEADER_LEN }>()
            .ok_or(DropReason::MalformedControl)?;
        let number = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let (index, count) = (usize::from(header[12]), usize::from(header[13]));
        let is_last = index + 1 == count;
        let fits = if is_last { chunk.len() <= MAX_CHUNK_LEN } else { chunk.len() == MAX_CHUNK_LEN };
        if index >= count || count > MAX_CHUNKS || !fits {
            return Err(DropReason::MalformedControl);
        }
        if count == 1 {
            return Ok(Some(chunk.to_vec()));
        }
        self.expire(now);
        let at = self.find_or_start(now, number, count);
        let partial = &mut self.partial[at];
        partial.add(index, count, chunk)?;
        Ok((partial.missing == 0).then(|| self.partial.remove(at)).flatten().map(|partial| partial.bytes))
    }

    /// Returns the number of incomplete messages that were discarded since the last call.
    pub(crate) fn take_discarded(&mut self) -> usize {
        std::mem::take(&mut self.discarded)
    }

    fn expire(&mut self, now: Instant) {
        let before = self.partial.len();
        self.partial.retain(|partial| now.saturating_duration_since(partial.since) < REASSEMBLY_TIMEOUT);
        self.discarded += before - self.partial.len();
    }

    fn find_or_start(&mut self, now: Instant, number: u32, count: usize) -> usize {
        if let Some(at) = self.partial.iter().position(|partial| partial.number == number) {
            return at;
        }
        if self.partial.len() == MAX_PARTIAL_MESSAGES {
            self.partial.pop_front();
            self.discarded += 1;
        }
        self.partial.push_back(PartialMessage {
            number,
            since: now,
            missing: u16::MAX >> (16 - count),
            count,
            bytes: vec![0; count * MAX_CHUNK_LEN],
        });
        self.partial.len() - 1
    }
}

impl PartialMessage {
    fn add(&mut self, index: usize, count: usize, chunk: &[u8]) -> Result<(), DropReason> {
        let end = index * MAX_CHUNK_LEN + chunk.len();
        if count != self.count || self.missing & 1 << index == 0 || end > MAX_CONTROL_MESSAGE_LEN {
            return Err(DropReason::MalformedControl);
        }
        self.missing &= !(1 << index);
        self.bytes[index * MAX_CHUNK_LEN..end].copy_from_slice(chunk);
        if index + 1 == count {
            self.bytes.truncate(end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{checksum_holds, start, v6};

    fn chunks(number: u32, message: &[u8]) -> Vec<Vec<u8>> {
        packets(v6(0), v6(1), number, message).unwrap().collect()
    }

    fn udp_of(packet: &[u8]) -> &[u8] {
        &packet[V6_HEADER_LEN..]
    }

    #[test]
    fn chunks_are_valid_packets_within_the_ipv6_minimum_mtu() {
        for packet in chunks(7, &[9; 5000]) {
            let header = IpHeader::parse(&packet).unwrap();
            assert!(is_control(&packet, &header) && checksum_holds(&packet) && packet.len() <= 1280);
        }
    }

    #[test]
    fn message_is_complete_when_its_last_missing_chunk_arrives() {
        let message: Vec<u8> = (0..3000).map(|i| (i % 251) as u8).collect();
        let (now, packets, mut reassembly) = (start(), chunks(7, &message), Reassembly::default());
        for at in [2, 0] {
            assert_eq!(reassembly.handle_chunk(now, udp_of(&packets[at])), Ok(None));
        }
        assert_eq!(reassembly.handle_chunk(now, udp_of(&packets[2])), Err(DropReason::MalformedControl));
        assert_eq!(reassembly.handle_chunk(now, udp_of(&packets[1])), Ok(Some(message)));
    }

    #[test]
    fn incomplete_messages_expire_and_make_room() {
        let (now, mut reassembly) = (start(), Reassembly::default());
        for number in 0..6 {
            reassembly.handle_chunk(now, udp_of(&chunks(number, &[0; 3000])[0])).unwrap();
        }
        assert_eq!(reassembly.take_discarded(), 2);
        let later = now + REASSEMBLY_TIMEOUT;
        reassembly.handle_chunk(later, udp_of(&chunks(9, &[0; 3000])[0])).unwrap();
        assert_eq!((reassembly.take_discarded(), reassembly.partial.len()), (4, 1));
    }

    #[test]
    fn too_long_messages_are_refused() {
        let refused = packets(v6(0), v6(1), 0, &[0; MAX_CONTROL_MESSAGE_LEN + 1]).err();
        assert_eq!(refused, Some(ControlTooLong(MAX_CONTROL_MESSAGE_LEN + 1)));
        assert_eq!(chunks(0, &[0; MAX_CONTROL_MESSAGE_LEN]).len(), MAX_CHUNKS);
    }

    proptest! {
        #[test]
        fn hostile_chunks_never_exceed_the_limits(chunks in proptest::collection::vec(
            (0u32..6, 0u8..16, 0u8..16, prop::sample::select(vec![0usize, 5, 1200, 1201])), 0..60,
        )) {
            let (now, mut reassembly) = (start(), Reassembly::default());
            for (number, index, count, len) in chunks {
                let mut udp = vec![0; 8];
                udp.extend(number.to_be_bytes());
                udp.extend([index, count]);
                udp.resize(14 + len, 1);
                if let Ok(Some(message)) = reassembly.handle_chunk(now, &udp) {
                    prop_assert!(message.len() <= MAX_CONTROL_MESSAGE_LEN);
                }
                prop_assert!(reassembly.partial.len() <= MAX_PARTIAL_MESSAGES);
            }
        }
    }
}
