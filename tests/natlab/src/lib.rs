//! A small internet in Linux network namespaces, and the scenarios that run whole parties in it.
//!
//! A [`Lab`] is one internet: a namespace `inet` that routes public addresses (11.0.0.x and 2a11::/16) between
//! customers. Each customer is connected by an unnumbered point-to-point veth, so that no two are on-link with each
//! other, as in real access networks. A customer is a server with public addresses, or a router with a LAN behind it: a
//! home (masquerade, optionally with IPv6) or an office that allows nothing but outgoing TCP to port 443. A LAN can
//! also have no router at all.
//!
//! The names of a lab's namespaces have a prefix of their own, so labs can run in parallel. Dropping the [`Lab`]
//! removes them, and [`sweep`] removes those that a killed process left behind. Building a lab needs root.

mod cable;
pub mod classify;
mod device;
pub mod dht;
mod host;
mod lab;
pub mod matrix;
mod namespace;
mod nat;
mod nat64;
mod parallel;
pub mod party;
pub mod portmap;
mod process;
pub mod roam;
mod router;
pub mod serverless;
pub mod soak;
pub mod stream;
pub mod sweep;
mod trace;
pub mod traffic;
mod wait;
mod worker;

pub use cable::Line;
pub use host::Host;
pub use lab::{Lab, Site};
pub use process::{Process, checked};
pub use router::{Nat, RouterOptions};
pub use wait::until;
