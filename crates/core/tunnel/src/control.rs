//! The engine's own channel inside the tunnel: messages between members that never reach the network device.
//!
//! Each message is cut into chunks of [`CHUNK`] bytes, carried by UDP over IPv6 between the virtual addresses, port
//! [`CONTROL_PORT`] on both sides: `message number (4), chunk index (1), chunk count (1), bytes`, big endian. A message
//! is delivered when all its chunks have come, in any order, or not at all: like any datagram it can be lost.

use std::{
    collections::VecDeque,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use crate::{
    DropReason, checksum,
    packet::{UDP, V6_HEADER},
};

/// UDP port of the control channel.
pub const CONTROL_PORT: u16 = 20556;
/// Longest control message, in bytes.
pub const MAX_CONTROL_MESSAGE_LEN: usize = 16 * 1024;

/// Bytes of a message in one packet; fits the smallest IPv6 packet size of 1,280 with all headers.
const CHUNK: usize = 1200;
const UDP_HEADER: usize = 8;
const CHUNK_HEADER: usize = 6;
const HEADERS: usize = V6_HEADER + UDP_HEADER + CHUNK_HEADER;
/// Messages of one member that may be incomplete at a time, and for how long.
const PARTIAL: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);

/// A control message above [`MAX_CONTROL_MESSAGE_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a control message has at most {MAX_CONTROL_MESSAGE_LEN} bytes, this one has {0}")]
pub struct ControlTooLong(pub usize);

/// The packets that carry a message.
pub(crate) fn packets(
    from: Ipv6Addr,
    to: Ipv6Addr,
    number: u32,
    message: &[u8],
) -> Result<impl Iterator<Item = Vec<u8>>, ControlTooLong> {
    if message.len() > MAX_CONTROL_MESSAGE_LEN {
        return Err(ControlTooLong(message.len()));
    }
    let count = message.len().div_ceil(CHUNK).max(1);
    Ok((0..count).map(move |index| {
        let chunk = &message[index * CHUNK..message.len().min((index + 1) * CHUNK)];
        packet(from, to, (number, index as u8, count as u8), chunk)
    }))
}

fn packet(from: Ipv6Addr, to: Ipv6Addr, (number, index, count): (u32, u8, u8), chunk: &[u8]) -> Vec<u8> {
    let udp_len = UDP_HEADER + CHUNK_HEADER + chunk.len();
    let mut packet = Vec::with_capacity(HEADERS + chunk.len());
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
    let sum =
        checksum::pseudo_header(from.into(), to.into(), UDP, udp_len) + checksum::sum(&packet[V6_HEADER..]);
    // RFC 768: a checksum of zero means there is none, so a computed zero goes as all ones.
    let sum = match checksum::finish(sum) {
        0 => u16::MAX,
        sum => sum,
    };
    packet[V6_HEADER + 6..V6_HEADER + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Puts one member's chunks together again.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: VecDeque<Partial>,
}

#[derive(Debug)]
struct Partial {
    number: u32,
    since: Instant,
    missing: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl Reassembly {
    /// Takes the payload of an IP packet on the control port; returns a message once it is complete. The tunnel has
    /// authenticated the packet, so the UDP checksum adds nothing.
    pub(crate) fn take(&mut self, now: Instant, udp: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let (header, chunk) =
            udp.split_first_chunk::<{ UDP_HEADER + CHUNK_HEADER }>().ok_or(DropReason::Control)?;
        let number = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let (index, count) = (usize::from(header[12]), usize::from(header[13]));
        let full = if index + 1 < count { chunk.len() == CHUNK } else { chunk.len() <= CHUNK };
        if index >= count || count > MAX_CONTROL_MESSAGE_LEN.div_ceil(CHUNK) || !full {
            return Err(DropReason::Control);
        }
        if count == 1 {
            return Ok(Some(chunk.to_vec()));
        }
        self.partial.retain(|partial| now.saturating_duration_since(partial.since) < PATIENCE);
        let at = self.find_or_start(now, number, count);
        let partial = &mut self.partial[at];
        partial.add(index, count, chunk)?;
        Ok((partial.missing == 0).then(|| self.partial.remove(at)).flatten().map(|partial| partial.bytes))
    }

    fn find_or_start(&mut self, now: Instant, number: u32, count: usize) -> usize {
        if let Some(at) = self.partial.iter().position(|partial| partial.number == number) {
            return at;
        }
        if self.partial.len() == PARTIAL {
            self.partial.pop_front();
        }
        self.partial.push_back(Partial {
            number,
            since: now,
            missing: u16::MAX >> (16 - count),
            count,
            bytes: vec![0; count * CHUNK],
        });
        self.partial.len() - 1
    }
}

impl Partial {
    fn add(&mut self, index: usize, count: usize, chunk: &[u8]) -> Result<(), DropReason> {
        let end = index * CHUNK + chunk.len();
        if count != self.count || self.missing & 1 << index == 0 || end > MAX_CONTROL_MESSAGE_LEN {
            return Err(DropReason::Control);
        }
        self.missing &= !(1 << index);
        self.bytes[index * CHUNK..end].copy_from_slice(chunk);
        if index + 1 == count {
            self.bytes.truncate(end);
        }
        Ok(())
    }
}
