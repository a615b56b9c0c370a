//! The rendezvous server without its sockets: topics, presence, mailboxes and limits.
//!
//! A [`Rendezvous`] takes connections and frames and returns [`Event`]s. It reads no clock and draws no randomness of
//! its own. A member that holds a topic's key may enter the topic under the handle of a key of its own, and be listed there with a
//! record.
//! Records and messages are sealed by their senders, so that the server only compares and forwards bytes.
//!
//! The server keeps nothing that its clients cannot announce again: who is present, their newest records, and for a few
//! minutes the messages to members that are absent. Each of these has a limit. Frames are paced by token buckets per
//! address (IPv6: per /64) and per topic, and their bytes, with what others receive because of them, per connection,
//! address, IPv6 /56 and /48. A connection that is on no topic is closed after a while. The work per frame grows with
//! the logarithm of what is held, except where a frame is forwarded to a topic's members.
//!
//! Rule of use: after every `handle_*` call drain [`Rendezvous::poll_event`]; call [`Rendezvous::handle_timeout`] when
//! the moment returned by [`Rendezvous::poll_timeout`] has come. Verify what [`Rendezvous::handle_frame`] returns, and hand
//! it in with [`Rendezvous::handle_entry`] before the connection's next frame.
//!
//! ```
//! use std::{net::Ipv4Addr, time::Instant};
//! use partyline_model::{Now, Timestamp};
//! use partyline_rendezvous::{Event, Limits, Rendezvous};
//! use partyline_wire::rendezvous::{ClientFrame, ServerFrame};
//!
//! let now = Now { instant: Instant::now(), unix: Timestamp(1_800_000_000_000) };
//! let mut server = Rendezvous::new(now, Limits::default(), None, [7; 32]);
//! let connection = server.handle_connect(now, Ipv4Addr::LOCALHOST.into())?;
//! if let Some(entry) = server.handle_frame(now, connection, &ClientFrame::Time { echo: 5 }.encode()?) {
//!     server.handle_entry(now, entry.verify());
//! }
//!
//! let mut sent = Vec::new();
//! while let Some(event) = server.poll_event() {
//!     if let Event::Send { frame, .. } = event {
//!         sent.push(ServerFrame::decode(&frame)?);
//!     }
//! }
//! assert!(matches!(sent[0], ServerFrame::Welcome { .. }));
//! assert_eq!(sent[1], ServerFrame::TimeReply { echo: 5, time: now.unix });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addresses;
mod connections;
mod counters;
mod entry;
mod event;
mod grant;
mod limits;
mod mailbox;
mod memory;
mod networks;
mod outbox;
mod refusal;
mod server;
#[cfg(test)]
mod tests;
mod topic;

pub use counters::{Counters, LimitHits, Refusals, Stats};
pub use entry::{UnverifiedEntry, VerifiedEntry};
pub use event::{AdmissionError, ConnectionId, Event};
pub use grant::{RelayOffer, relay_password};
pub use limits::{Limit, Limits, ROSTERS_AT_ONCE};
pub use partyline_timing::Rate;
pub use server::Rendezvous;
