//! A client of the BitTorrent DHT (BEP 5), by which members of a party find each other without a server.
//!
//! [`Dht`] reads and writes mutable items (BEP 44) at the nodes closest to their target, over IPv4 and IPv6 (BEP 32). It is
//! a read-only node (BEP 43): it answers no queries and stays out of routing tables. It sends from the tunnel's own socket,
//! so that the addresses at which nodes see it (BEP 42) are the tunnel's.
//!
//! A lookup asks the closest nodes it knows for closer ones, six at a time. A node that takes longer than the usual round trip
//! is passed over, but its response still counts. Reading ends, and writing begins, when the eight closest nodes have answered.
//!
//! What nodes say is not trusted: items are verified, responses must repeat a random transaction id and come from where the
//! query went; at most two nodes of one network count among the closest, and four have ids that follow from their addresses
//! (BEP 42) where there are any; nodes that name many dead ones are no longer believed; and everything is bounded.
//!
//! ```
//! use std::time::Instant;
//!
//! use partyline_dht::{Config, Dht, Event, Item, SigningKey};
//!
//! let now = Instant::now();
//! let mut dht = Dht::new([7; 32], Config::default());
//! dht.add_nodes(now, ["11.0.0.1:6881".parse().unwrap()]);
//!
//! let item = Item::sign(&SigningKey::from_bytes(&[1; 32]), Vec::new(), 1, b"value".to_vec());
//! let lookup = dht.put(now, item, None);
//!
//! // The caller sends this, hands what arrives to `handle_datagram`, and waits until `poll_timeout`.
//! let query = dht.poll_transmit().expect("a query to the only node known");
//! assert!(query.bytes.starts_with(b"d1:ad2:id20:"));
//! while let Some(timeout) = dht.poll_timeout() {
//!     dht.handle_timeout(timeout);
//! }
//!
//! let Some(Event::Done { lookup: done, outcome }) = dht.poll_event() else { panic!("the lookup has ended") };
//! assert_eq!((done, outcome.asked, outcome.answered, outcome.stored), (lookup, 1, 0, 0));
//! ```

mod address;
mod config;
mod counters;
mod dht;
mod event;
mod health;
mod item;
mod lookup;
mod nodes;
mod round;
mod search;
mod secure_id;
mod storage;
#[cfg(test)]
mod tests;
mod transactions;
mod votes;

pub use config::{Config, Families};
pub use counters::{Counters, Drop, DropCounters, LookupCounters, MethodCounters};
pub use dht::Dht;
pub use ed25519_dalek::SigningKey;
pub use event::{Event, LookupId, Outcome, Reflexive, Transmit};
pub use item::{Item, target};
pub use partyline_timing::Rate;
pub use partyline_wire::krpc::NodeId;
pub use secure_id::secure_id;
