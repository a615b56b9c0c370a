//! Byte formats that cross the network or the local socket, each with encode, decode and limits.
//!
//! Decoding never panics, never allocates more than its documented limit, and refuses trailing bytes.

pub mod announcement;
pub mod beacon;
pub mod credentials;
pub mod datagram;
pub mod exact;
pub mod invite;
pub mod ipc;
pub mod membership;
pub mod name;
pub mod probe;
pub mod punch;
pub mod rendezvous;
pub mod sealed;
mod trace;

pub use trace::{TRACE_ID_LEN, trace_id};
