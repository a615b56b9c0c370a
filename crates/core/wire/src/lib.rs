//! Byte formats that cross the network or the local socket, each with encoder, decoder and limits.
//!
//! Decoding never panics, never allocates more than its documented limit, and rejects trailing bytes.
//!
//! | module | format |
//! |---|---|
//! | [`rendezvous`] | frames between members and rendezvous servers |
//! | [`sealed`], [`announcement`], [`membership`], [`punch`] | messages between members, sealed under the party's key |
//! | [`tagged`], [`beacon`] | LAN beacons |
//! | [`direct`] | the same messages on the shared UDP socket |
//! | [`contact_list`] | where members can be reached, for those who find no server |
//! | [`invite`] | invite links |
//! | [`datagram`] | what arrives on the shared UDP socket; TURN's ChannelData and streams |
//! | [`probe`] | connectivity checks |
//! | [`credentials`] | authentication of STUN and TURN requests |
//! | [`krpc`] | the BitTorrent DHT, in which members without a server find each other |
//! | [`ipc`] | the local socket between service and clients |
//! | [`exact`], [`name`] | signed documents and names, parts of the formats above |
//!
//! ```
//! use partyline_wire::rendezvous::ClientFrame;
//!
//! let bytes = ClientFrame::Time { echo: 7 }.encode()?;
//! assert_eq!(ClientFrame::decode(&bytes)?, ClientFrame::Time { echo: 7 });
//! assert!(ClientFrame::decode(&[&bytes[..], &[0]].concat()).is_err(), "trailing bytes");
//! # Ok::<(), partyline_wire::rendezvous::FrameError>(())
//! ```

pub mod announcement;
pub mod beacon;
pub mod contact_list;
pub mod credentials;
pub mod datagram;
pub mod direct;
pub mod exact;
pub mod invite;
pub mod ipc;
pub mod krpc;
pub mod membership;
pub mod name;
pub mod probe;
pub mod punch;
pub mod rendezvous;
pub mod sealed;
pub mod tagged;
mod trace;

pub use trace::{TRACE_ID_LEN, trace_id};
