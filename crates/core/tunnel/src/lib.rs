//! The WireGuard tunnel of one device: every party's sessions, addresses, broadcasts and packet sizes.
//!
//! One [`Tunnel`] serves all parties. Packets from a party's network device go in at [`Tunnel::handle_packet`], datagrams
//! from the socket at [`Tunnel::handle_datagram`]. What has to leave is written, encrypted, into the caller's
//! [`Outbox`], grouped for segmentation offload. Nothing here owns a socket or a clock.
//!
//! **Sessions** are WireGuard (Noise IKpsk2) by boringtun. boringtun reads its own clock, so its timers are only *ticked*
//! from here; when to initiate a handshake is decided here, from the time passed in. Of two members the one with the
//! lower public key is the *preferred initiator*: it initiates as soon as there is a path, retries, and renews the keys
//! before they expire. The other waits, and initiates only if nothing arrived for two seconds. Two members that both
//! initiated would fight: each renewal of one would make the other renew as well.
//!
//! **Demultiplexing.** Receiver indices are unique over all parties, so they select the session. A handshake initiation
//! has no index; its first MAC, keyed with the recipient's public key, selects the party.
//!
//! **Floods.** Finding out who sent a handshake message costs an X25519 operation. Above a rate, of all or of its source, a
//! message needs a cookie, which proves its source (WireGuard whitepaper, section 5.3); with it, a source has a token
//! bucket of its own. Established sessions pay nothing for any of this: data selects its session by its index.
//!
//! **Cryptokey routing.** A packet goes to the member that owns its destination address, and is accepted only from the
//! member that owns its source address. Broadcast (255.255.255.255 and the subnet's) and link-local multicast (224/4,
//! ff02::/16) go to every member of that party once, within a rate limit, and are never forwarded further; hence no
//! loops and no duplicates. Messages that would configure the receiver's network (router advertisements, redirects,
//! DHCP) are dropped.
//!
//! **Incoming packets** are judged by their destination port ([`Tunnel::set_incoming_policy`]); what answers this computer
//! comes in, whatever the policy says.
//!
//! **MTU.** The MSS that TCP announces is clamped in both directions (RFC 9293, section 3.7.1). A packet that still
//! exceeds the path MTU is fragmented where IPv4 allows it, or answered with ICMP (RFC 1191) or ICMPv6 (RFC 8201) Packet
//! Too Big.
//!
//! **Control channel.** UDP port [`CONTROL_PORT`] between the virtual IPv6 addresses belongs to the engine. Its packets
//! never reach the network device, and are refused when they come from there.
//!
//! ```
//! use std::{net::IpAddr, time::Instant};
//! use partyline_model::{DeviceId, PartyId, TunnelPublicKey};
//! use partyline_tunnel::{Event, MIN_SCRATCH_LEN, Outbox, PartyConfig, PathConfig, PeerConfig, Received, Tunnel};
//! use x25519_dalek::{PublicKey, StaticSecret};
//!
//! let (now, party) = (Instant::now(), PartyId([1; 32]));
//! let secrets = [StaticSecret::from([10; 32]), StaticSecret::from([11; 32])];
//! let device = |member: usize| DeviceId([member as u8; 32]);
//! // Two members of one party, at 10.77.0.1 and 10.77.0.2.
//! let mut tunnels = [0, 1].map(|us| {
//!     let peer = 1 - us;
//!     let (v4, v6) = (format!("10.77.0.{}/24", us + 1), format!("fd00::{}/64", us + 1));
//!     let ours = PartyConfig { v4: v4.parse().unwrap(), v6: v6.parse().unwrap(), mtu: 1400 };
//!     let theirs = PeerConfig {
//!         key: TunnelPublicKey(PublicKey::from(&secrets[peer]).to_bytes()),
//!         v4: Some([10, 77, 0, peer as u8 + 1].into()),
//!         v6: format!("fd00::{}", peer + 1).parse().unwrap(),
//!     };
//!     let mut tunnel = Tunnel::new(now, [us as u8; 32]);
//!     tunnel.set_party(party, secrets[us].clone(), ours);
//!     tunnel.set_peer(now, party, device(peer), theirs);
//!     tunnel.set_path(now, party, device(peer), Some(PathConfig { headroom: 0, mtu: None }));
//!     tunnel
//! });
//!
//! // Carry datagrams until both are silent: initiation, response, keepalive.
//! let source = IpAddr::from([192, 0, 2, 1]);
//! for _ in 0..3 {
//!     for us in [0, 1] {
//!         let mut outbox = Outbox::new();
//!         tunnels[us].handle_timeout(now, &mut outbox);
//!         let mut datagrams: Vec<_> = outbox.bursts().map(|burst| (1 - us, burst.bytes.to_vec())).collect();
//!         while let Some((to, datagram)) = datagrams.pop() {
//!             let mut scratch = [0; MIN_SCRATCH_LEN];
//!             let received =
//!                 tunnels[to].handle_datagram(now, source, &datagram, &mut scratch, &mut Outbox::new());
//!             if let Received::HandshakeReply { datagram, .. } = received {
//!                 datagrams.push((1 - to, datagram.to_vec()));
//!             }
//!         }
//!     }
//! }
//! assert_eq!(tunnels[0].poll_event(), Some(Event::SessionReady { party, peer: device(1) }));
//! assert_eq!(tunnels[1].poll_event(), Some(Event::SessionReady { party, peer: device(0) }));
//! ```

mod checksum;
mod config;
mod control;
mod drops;
mod event;
mod flows;
mod fragment;
mod handshake_limiter;
mod handshakes;
mod incoming;
mod ip;
mod limits;
mod mss;
mod network_configuration;
mod outbox;
mod packet_too_big;
mod party;
mod peer;
mod peers;
mod pending;
mod port_map;
mod routing;
mod session;
mod source;
mod source_buckets;
mod storm;
mod tunnel;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use config::{PartyConfig, PathConfig, PeerConfig};
pub use control::{CONTROL_PORT, ControlTooLong, MAX_CONTROL_MESSAGE_LEN};
pub use drops::{DropCounters, DropReason};
pub use event::{Event, Received};
pub use handshakes::HandshakeCounters;
pub use limits::{BROADCASTS_PER_SECOND, MAX_DATAGRAM_LEN, MIN_SCRATCH_LEN, WIREGUARD_OVERHEAD};
pub use outbox::{Burst, Outbox, RELAY_HEADROOM};
pub use peer::SessionStats;
pub use source::Source;
pub use storm::Storm;
pub use tunnel::Tunnel;
