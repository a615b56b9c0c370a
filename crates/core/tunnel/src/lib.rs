//! The WireGuard tunnel of one device: every party's sessions, addresses, broadcasts and packet sizes.
//!
//! One [`Tunnel`] serves all parties. Packets from a party's network device go in at [`Tunnel::outbound`], datagrams
//! from the socket at [`Tunnel::inbound`]; what has to leave in return is written, encrypted, into the caller's
//! [`Outbox`], already grouped for segmentation offload. Nothing here owns a socket or a clock.
//!
//! **Sessions** are WireGuard (Noise IKpsk2) by boringtun. boringtun reads its own clock, so its timers are only
//! *ticked* from here; when to shake hands is decided here, from the time passed in. Of two members the one whose
//! tunnel key is lower *leads*: it initiates as soon as there is a path, retries, and renews the keys before they
//! lapse. The other waits, and only steps in if nothing came for two seconds. Two leaders would fight: each renewal
//! of one would make the other renew as well.
//!
//! **Whose datagram is it?** Receiver indices are unique over all parties, so they select the session; a handshake
//! initiation names no index, so its first MAC, keyed with the recipient's public key, selects the party.
//!
//! **Cryptokey routing**: a packet goes to the member that owns its destination, and is accepted only from the member
//! that owns its source. Broadcast (255.255.255.255 and the subnet's) and link multicast (224/4, ff02::/16) go to
//! every member of that party once, within a budget, and never further: there is no forwarding, hence no loops and
//! no duplicates.
//!
//! **Sizes**: TCP is told a maximum segment that fits (RFC 9293 section 3.7.1, clamped in both directions); what is
//! still too big is answered with ICMP (RFC 1191) or ICMPv6 (RFC 8201) Packet Too Big, or fragmented where IPv4
//! allows it.
//!
//! **Control channel**: UDP port [`CONTROL_PORT`] between the virtual IPv6 addresses belongs to the engine. It is taken
//! out before the network device and refused when it comes from there.

mod bucket;
mod checksum;
mod control;
mod drops;
mod fragment;
mod inbound;
mod mss;
mod outbound;
mod outbox;
mod packet;
mod party;
mod peer;
mod session;
mod too_big;
mod tunnel;

#[cfg(test)]
mod tests;

pub use control::{CONTROL_PORT, ControlTooLong, MAX_CONTROL_MESSAGE_LEN};
pub use drops::{DropCounters, DropReason};
pub use inbound::MIN_SCRATCH_LEN;
pub use outbox::{Burst, Outbox, RELAY_HEADROOM};
pub use party::{PartyConfig, PeerConfig};
pub use peer::PathConfig;
pub use session::SessionStats;
pub use tunnel::{Event, Received, Tunnel};

/// What WireGuard adds to a packet: header 16, authentication tag 16.
pub const OVERHEAD: usize = 32;

/// The longest datagram that is looked at. Nothing on the tunnel's socket is longer than a jumbo frame.
pub const MAX_DATAGRAM_LEN: usize = 9216;
