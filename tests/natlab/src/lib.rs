//! A small internet in Linux network namespaces, and the scenarios that whole parties run through in it.
//!
//! One [`Lab`] is one internet: a namespace `inet` that routes public addresses (11.0.0.x and 2a11::/16), with
//! customers around it. Every customer is connected by an unnumbered point-to-point veth, so that nothing is on-link
//! with anything else, as in real access networks. A customer is a server with public addresses, or a router with a LAN
//! behind it: a home (masquerade, optionally with IPv6) or an office that lets out nothing but TCP 443. A LAN can also have
//! no router at all.
//!
//! Labs carry a prefix of their own, so many can stand side by side; each is taken down when its [`Lab`] is dropped,
//! and [`sweep`] removes what a killed process left behind. Building one needs root.

mod cable;
pub mod classify;
mod device;
mod host;
mod lab;
pub mod matrix;
mod namespace;
mod nat;
mod parallel;
pub mod party;
pub mod portmap;
mod process;
pub mod roam;
mod router;
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
