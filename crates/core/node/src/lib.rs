//! Joins party, netcheck, paths and tunnel into one client machine.
//!
//! A [`Node`] is one device's part in all its parties. It owns no socket, device, clock or randomness: the engine hands
//! in what happened (`handle_*`), and then asks for what to do ([`Node::poll_output`]), what to send
//! ([`Node::flush`]) and when to come back ([`Node::poll_timeout`]), until there is nothing left.
//!
//! How two members come together:
//!
//! 1. **Signalling.** Each member tells the others, by sealed announcements over every channel there is, who it is and
//!    where it may be reached (rendezvous servers, LAN beacon, members already connected).
//! 2. **Paths.** The path machine checks every pair of candidates and meanwhile uses the relay; whenever the best
//!    path changes, the tunnel is told.
//! 3. **Tunnel.** As soon as there is a path, the two shake hands, and packets flow.

mod commands;
mod control;
mod egress;
mod farewell;
mod io;
mod known;
mod lent_port;
mod link;
mod local;
mod mail;
mod measure;
mod members;
mod methods;
mod network;
mod node;
mod observer;
mod packets;
mod passage;
mod peers;
mod problem;
mod range;
mod refusals;
mod relays;
mod servers;
mod settings;
mod signalling;
mod snapshot;
mod state;
mod streams;

pub use commands::RequestId;
pub use egress::{Deliver, Egress, Local, Transmit};
pub use io::{DeviceConfig, DeviceInput, LocalNetwork, Output, ServerId, ServerInput, StreamInput};
pub use node::{Config, Node};
pub use packets::PACKET_ROOM;
pub use partyline_netcheck::{Config as NetcheckConfig, PeerMapping};
pub use partyline_paths::{
    AllocationOutcome, AllocationTest, Config as PathsConfig, RelayServer, RelayTransport, SocketId, StreamId,
};
pub use relays::TurnUrl;
pub use state::StateError;
