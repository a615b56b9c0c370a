//! Joins party, netcheck, paths and tunnel into one client machine.
//!
//! A [`Node`] is one device's part in all its parties. It owns the device key, the settings and the parties, but no
//! socket, network device, clock or randomness: the engine hands in what happened and does what the node asks for.
//!
//! # The order of calls
//!
//! Inputs enter by the `handle_*` methods. What they cause leaves by four exits: datagrams and stream messages by
//! [`Egress::transmit`], IP packets by [`Egress::deliver`], everything else as an [`Output`], and what people see as a
//! [`snapshot`](Node::snapshot) whenever the [`revision`](Node::revision) has grown. Sending makes outputs, and the
//! results of outputs make the node send, so the engine repeats both until there is nothing left:
//!
//! ```text
//! loop {
//!     one input: handle_datagram, handle_packet, handle_server, handle_command, handle_timeout, …
//!     loop {
//!         flush(egress)
//!         while let Some(output) = poll_output() { perform(output) }
//!         if there was no output { break }
//!     }
//!     sleep until poll_timeout(), or until the next input
//! }
//! ```
//!
//! The three inputs of packets ([`Node::handle_packet`], [`Node::handle_datagram`], [`Node::handle_stream`]) may be
//! called many times before one flush. A received IP packet is delivered at once; everything else they cause, outputs
//! included, comes with the flush. Every input may move
//! [`poll_timeout`](Node::poll_timeout) in either direction.
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
//!  commands, servers, beacons          datagrams, streams, packets
//!            │                                     │
//! ┌──────────▼─────────────── Node ────────────────▼─────────────────────┐
//! │      signaling ── PeerChanged, Control, … ──► connectivity           │
//! │        parties ◄── Candidates, SessionUp, … ──  netcheck, relays,    │
//! │        channels                                 packet path:         │
//! │            │                                      paths, tunnel      │
//! │            └───────────► view ◄──────────────────────┘               │
//! └──────────┬────────────────┬────────────────────┬─────────────────────┘
//!            ▼                ▼                    ▼
//!      poll_output        snapshot        transmit, deliver
//! ```
//!
//! - `signaling` owns the parties ([`partyline_party::Membership`] and what surrounds it) and the channels by which
//!   sealed messages travel. A further channel implements the trait `Channel` and is listed in `Channels`, `ChannelKind`
//!   and the counters.
//! - `connectivity` owns candidates, relay selection, the network check, and the packet path, in which the path machine
//!   and the tunnel are coupled. It also does what members do for each other: relaying, filtering probes, second ports.
//! - `view` owns what only people need: measurements, open pings, the revision of the snapshot. It reads the other two
//!   when a snapshot is drawn, and sends them nothing.
//!
//! A control message from a member goes where it belongs: sealed messages to `signaling`, pongs to `view`, all others to
//! `connectivity`. [`Node`] takes commands apart in the same way.
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
mod host_names;
mod incoming;
mod io;
mod join_refusal;
mod node;
mod problem;
mod settings;
mod signaling;
mod spans;
mod state;
#[cfg(test)]
mod testing;
mod trusted_servers;
mod turn_url;
mod view;

pub use connectivity::{MemberRelayCounters, ProbeResponderCounters};
pub use counters::Counters;
pub use egress::{Deliver, Egress, Local, PACKET_ROOM, Transmit};
pub use io::{
    DeviceConfig, DeviceInput, HostAddress, LocalNetwork, Output, PortMappingReport, RequestId, ServerId,
    ServerInput, StreamInput,
};
pub use node::{Config, Node};
pub use partyline_netcheck::{Config as NetcheckConfig, PeerMapping};
pub use partyline_party::RefusalCounters;
pub use partyline_paths::{
    AllocationOutcome, AllocationTest, Config as PathsConfig, Counters as PathCounters, RelayServer,
    RelayTransport, SocketId, StreamId,
};
pub use partyline_tunnel::DropCounters as TunnelDropCounters;
pub use problem::{server_at_private_address, server_without_hairpin};
pub use signaling::{ChannelCounters, ResendCounters, SignalingCounters};
pub use state::StateError;
pub use turn_url::TurnUrl;
