//! A TURN client (RFC 8656) without input or output.
//!
//! One [`Allocation`] is one try to get, and then to keep, one relayed address at one server over one transport. It
//! asks without credentials, is challenged (401) with a realm and a nonce, asks again, and is given a relayed
//! address. For every peer address a channel is bound, which also installs the permission for that address (RFC
//! 8656, section 12); nothing is ever sent by Send indication. One Refresh request in every keepalive interval does
//! three jobs: it keeps the NAT's mapping, extends the allocation, and notices a server that forgot it (437), which
//! ends this allocation so that its owner can ask for another one.

mod allocation;
mod channels;
mod indication;
mod trial;

pub(crate) use allocation::{Allocation, Change, Ending, Input};
pub use trial::{AllocationTest, AllocationOutcome};
