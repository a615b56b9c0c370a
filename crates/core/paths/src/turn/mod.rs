//! A TURN client (RFC 8656) without input or output of its own.
//!
//! One [`Allocation`] is one attempt to get, and then to keep, one relayed address at one server over one transport.
//!
//! 1. An Allocate request without credentials is answered with 401, a realm and a nonce (RFC 8489, section 9.2). The
//!    signed request is answered with a relayed address. An allocation that the server still remembers from an
//!    earlier run (437) is released first.
//! 2. For every peer address a channel is bound, which also installs the permission for that address (section 12).
//!    Send indications are never used; Data indications are understood.
//! 3. One Refresh request per keepalive interval has three purposes: it keeps the NAT mapping, extends the allocation,
//!    and notices a server that lost it (437). In that case this allocation ends, so that its owner can request
//!    another.
//!
//! `requests` retransmits, `channels` assigns channel numbers, `indication` parses Data indications. [`AllocationTest`]
//! asks once whether a server grants allocations at all.

mod allocation;
mod allocation_test;
mod channels;
mod indication;
mod requests;

pub(crate) use allocation::{Allocation, AllocationChange, AllocationEnd, ServerMessage};
pub use allocation_test::{AllocationOutcome, AllocationTest};
