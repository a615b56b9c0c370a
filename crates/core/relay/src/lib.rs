//! TURN server (RFC 8656) and STUN responder (RFC 8489, 5780) without sockets.
//!
//! [`Relay`] is a machine: whoever owns the sockets hands in packets and the time, and is told what to send and which sockets
//! to open. One packet costs a few look-ups in hash tables whatever the number of allocations; ends of
//! allocations are kept in order, so that a timeout costs a logarithm.

mod allocate;
mod allocation;
mod binding;
#[allow(dead_code, reason = "reasons are counted one by one until each refusal has its own")]
mod counters;
mod credentials;
mod forward;
mod frame;
mod integrity;
mod limit;
mod manage;
mod nonce;
mod policy;
mod relay;
mod request;
mod settings;

pub use allocation::{Client, ClientTransport, RelaySocket};
pub use counters::{Counters, DirectionCounters, DropCounters, RefusalCounters};
pub use credentials::time_limited_credentials;
pub use frame::{Frame, HEADROOM, Packet, TAILROOM, next_frame};
pub use relay::{Event, Forward, Relay, Transmit};
pub use settings::{Listener, PeerPolicy, Quotas, RelayAddress, Secret, Settings};
