//! Records the last packets on a cable, to find out why a scenario failed.

use std::{
    collections::VecDeque,
    fmt::Write,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Number of packets that are kept.
const MAX_ENTRIES: usize = 10_000;
/// Bytes kept of each packet: the IP and UDP headers, and the beginning of the payload.
const HEAD: usize = 60;

/// The last packets on one cable. Clones share the same record.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    begun: Instant,
    packets: Arc<Mutex<VecDeque<Passed>>>,
}

#[derive(Debug)]
struct Passed {
    at: Instant,
    outward: bool,
    lost: bool,
    length: usize,
    head: Vec<u8>,
}

impl Trace {
    /// Creates an empty trace. Times count from now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), packets: Arc::default() }
    }

    /// Records a packet that was put on the cable, or lost on it.
    pub fn note(&self, outward: bool, packet: &[u8], lost: bool) {
        let head = packet[..packet.len().min(HEAD)].to_vec();
        let passed = Passed { at: Instant::now(), outward, lost, length: packet.len(), head };
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() == MAX_ENTRIES {
            packets.pop_front();
        }
        packets.push_back(passed);
    }

    /// Formats the packets as text, one per line and oldest first.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for passed in self.packets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let at = passed.at.duration_since(self.begun).as_secs_f64() * 1000.0;
            let way = if passed.outward { "out" } else { "in " };
            let lost = if passed.lost { " LOST" } else { "" };
            let what = describe(&passed.head).unwrap_or_else(|| format!("{:02x?}", &passed.head));
            let _ = writeln!(text, "{at:9.1} {way} {:5} {what}{lost}", passed.length);
        }
        text
    }
}

/// Describes an IPv4 packet by its addresses and its payload.
fn describe(packet: &[u8]) -> Option<String> {
    let start = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 {
        return None;
    }
    let ip = |at: usize| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(bytes.into())
    };
    let (source, destination) = (ip(12)?, ip(16)?);
    let ports = word(packet, start).zip(word(packet, start + 2));
    let (protocol, payload) = match packet.get(9)? {
        6 => ("TCP", "".to_owned()),
        17 => ("UDP", payload(packet.get(start + 8..)?)),
        1 => ("ICMP", format!("type {}", packet.get(start)?)),
        other => return Some(format!("{source} > {destination} protocol {other}")),
    };
    let (from, to) = ports?;
    Some(format!("{protocol} {source}:{from} > {destination}:{to} {payload}"))
}

fn payload(bytes: &[u8]) -> String {
    let first = bytes.first().copied().unwrap_or_default();
    let stun = bytes.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42]);
    match word(bytes, 0).unwrap_or_default() {
        kind if stun => format!("STUN {}", stun_words(kind)),
        channel @ 0x4000..0x5000 => {
            format!("channel {channel:04x} {}", payload(bytes.get(4..).unwrap_or_default()))
        }
        _ if (1..=4).contains(&first) && bytes.get(1..4) == Some(&[0; 3]) => {
            let kinds = ["initiation", "response", "cookie", "data"];
            format!("WireGuard {}", kinds[usize::from(first) - 1])
        }
        // Bencoded dictionaries, and direct signaling.
        _ if first == b'd' => "DHT".to_owned(),
        _ if first == 0x50 => "direct signaling".to_owned(),
        _ => bytes.iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Returns the method and class of a STUN message type (RFC 8489, section 5).
fn stun_words(kind: u16) -> String {
    let method = match (kind & 0x3e00) >> 2 | (kind & 0x00e0) >> 1 | kind & 0x000f {
        1 => "binding",
        3 => "allocate",
        4 => "refresh",
        6 => "send",
        7 => "data",
        8 => "permission",
        9 => "channel bind",
        _ => "other",
    };
    let class = match kind & 0x0110 {
        0x000 => "request",
        0x010 => "indication",
        0x100 => "success",
        _ => "error",
    };
    format!("{method} {class}")
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = packet.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::{Trace, stun_words};

    #[test]
    fn packets_are_described() {
        let trace = Trace::new();
        let mut packet = vec![0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 11, 0, 0, 2];
        packet.extend([0, 80, 0x0d, 0x96, 0, 28, 0, 0]);
        packet.extend([0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        trace.note(true, &packet, true);
        let text = trace.text();
        assert!(text.ends_with("UDP 10.0.0.1:80 > 11.0.0.2:3478 STUN allocate request LOST\n"), "{text}");
    }

    #[test]
    fn stun_methods_and_classes_are_distinguished() {
        assert_eq!(stun_words(0x0109), "channel bind success");
        assert_eq!(stun_words(0x0111), "binding error");
        assert_eq!(stun_words(0x0017), "data indication");
    }
}
