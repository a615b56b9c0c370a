//! The event loop around the node, and the Controller that drives it.
//!
//! The node decides and this crate acts: it owns sockets and devices, keeps connections, saves the state, and tells the
//! node the time. One task owns the node, so that nothing in it needs a lock.

mod answers;
mod beacon;
mod connections;
mod controller;
mod departures;
mod devices;
mod doctor;
mod egress;
mod engine;
mod metrics;
mod network_events;
mod offered_ports;
mod options;
mod port_mapping;
mod router_report;
mod server_test;
mod snapshots;
mod sockets;
mod startup;
mod store;
mod wakeup;

pub use controller::{Call, Controller};
pub use engine::Engine;
pub use options::{EngineOptions, RunningEngine};
pub use partyline_wire::invite::{Invite, InviteError};
