//! The rendezvous server without its sockets: topics, presence, mailboxes, limits.
//!
//! A [`Rendezvous`] is told of connections and frames and answers with [`Event`]s; it reads no clock and draws no
//! randomness of its own. Whoever holds a topic's key may enter the topic under a handle and be seen there with a
//! record; what records and messages say is sealed, so that the server only compares and forwards bytes.
//!
//! It keeps nothing that its clients cannot announce again: who is present, their newest records, and for a few
//! minutes messages to those who are not. Every one of these has a limit, and everybody's frames are paced by two
//! token buckets: one per address (IPv6: per /64) and one per topic. Work per frame grows with the logarithm of what
//! is held, except where a frame is passed on to a topic's members.
//!
//! Rule of use: after every `handle_*` call drain [`Rendezvous::poll_event`]; call [`Rendezvous::handle_timeout`]
//! when the moment given by [`Rendezvous::poll_timeout`] has come.

mod address;
mod bucket;
mod grant;
mod limits;
mod mailbox;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod topic;

pub use grant::{RelayOffer, credential};
pub use limits::{Limits, Rate};
pub use server::{ConnectionId, Event, Full, Rendezvous};
pub use stats::Stats;
