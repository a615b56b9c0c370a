//! Joins party, netcheck, paths and tunnel into one client machine.
//!
//! A [`Node`] is one device's part in all its parties. It owns no socket, network device, clock or randomness: the
//! engine hands in what happened (`handle_*`), and then polls for what to do ([`Node::poll_output`]), what to send
//! ([`Node::flush`]) and when to come back ([`Node::poll_timeout`]), until there is nothing left.
//!
//! # How two members connect
//!
//! 1. **Signaling.** Each member announces who it is and its candidates (RFC 8445) in sealed messages, over every
//!    channel there is: rendezvous servers, LAN beacons, and the tunnels to members that are connected already.
//! 2. **Paths.** As soon as a member is known, the path machine checks every pair of candidates, predicts and punches
//!    ports, and meanwhile uses a relay (TURN, RFC 8656). Whenever the path in use changes, the tunnel is told.
//! 3. **Tunnel.** As soon as there is a path, the two exchange a WireGuard handshake, and packets flow.
//!
//! # Structure
//!
//! Three parts, none of which knows another's inside; [`Node`] moves events between them:
//!
//! ```text
//!              ┌───────────────────────── Node ──────────────────────────┐
//!   servers ───│► signaling ── PeerChanged, Control, … ──► connectivity ◄─│─── sockets, streams
//!   beacons ───│► parties      ◄── Candidates, Nat, SessionUp ── paths    │
//!              │  channels                              tunnel, netcheck  │─── Egress
//!  commands ───│──────────► view (reads both) ──► Snapshot                │
//!              └──────────────────────────────────────────────────────────┘
//! ```
//!
//! - `signaling` owns the parties ([`partyline_party::Membership`] and what surrounds it) and the channels by which
//!   sealed messages travel. A further channel implements one trait there and touches nothing else.
//! - `connectivity` owns candidates, relay selection, the network check, and the packet path, in which the path machine
//!   and the tunnel are coupled. It also does what members do for each other: relaying, filtering probes, second ports.
//! - `view` owns what only people need: measurements, open pings, the revision of the snapshot.
//!
//! # Example
//!
//! ```
//! use std::time::Instant;
//!
//! use partyline_model::{Now, Timestamp};
//! use partyline_node::{Config, NetcheckConfig, Node, Output, PathsConfig};
//!
//! let now = Now { instant: Instant::now(), unix: Timestamp(1_790_000_000_000) };
//! let config = Config {
//!     settings: partyline_model::Settings::default(),
//!     version: "1.0.0".to_owned(),
//!     paths: PathsConfig::default(),
//!     netcheck: NetcheckConfig::default(),
//! };
//! let mut node = Node::new(now, [7; 32], config, None).expect("a new device needs no state");
//! // A new device asks for its key to be stored before anything else.
//! assert!(matches!(node.poll_output(), Some(Output::Save)));
//! let saved = node.save();
//! assert!(!saved.is_empty());
//! ```

mod connectivity;
mod control;
mod counters;
mod egress;
mod io;
mod node;
mod problem;
mod settings;
mod signaling;
mod state;
mod turn_url;
mod view;

pub use connectivity::{MemberRelayCounters, ProbeResponderCounters};
pub use counters::Counters;
pub use egress::{Deliver, Egress, Local, PACKET_ROOM, Transmit};
pub use io::{
    DeviceConfig, DeviceInput, LocalNetwork, Output, RequestId, ServerId, ServerInput, StreamInput,
};
pub use node::{Config, Node};
pub use partyline_netcheck::{Config as NetcheckConfig, PeerMapping};
pub use partyline_paths::{
    AllocationOutcome, AllocationTest, Config as PathsConfig, RelayServer, RelayTransport, SocketId, StreamId,
};
pub use signaling::{ChannelCounters, ResendCounters, SealedDrops, SignalingCounters};
pub use state::StateError;
pub use turn_url::TurnUrl;
