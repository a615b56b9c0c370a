//! Finds, checks and keeps the best path to every peer: relay first, direct where possible.
//!
//! The crate is a relative of ICE: candidates, pairs, checks and nomination are those of RFC 8445, and relays are TURN
//! servers (RFC 8656). Paths carry WireGuard messages. A *peer* is the device of another member, counted once for each
//! party that both are in; `docs/glossary.md` explains such words. Three things differ from ICE:
//!
//! - Packets flow through a relay from the first moment on, while direct paths are still being checked.
//! - The choice is never final: paths are measured for as long as the peer is known, and replaced when they fail or a
//!   better one appears.
//! - Where checks cannot suffice, both sides cross their NATs together by predicting or trying ports.
//!
//! # The protocol
//!
//! **Candidates.** All parties of a computer share one [`Paths`] and one main UDP socket, which is the base of all host
//! and reflexive candidates. The caller passes what it has gathered itself ([`Paths::set_local`]) and which relay
//! servers there are ([`Paths::set_relays`]); the machine reports the complete list to announce
//! ([`Event::LocalCandidates`]). Each peer's candidates are passed in as they arrive, in any order and as often as they
//! change ([`Paths::set_peer`]).
//!
//! **Relays** (`relays`, `turn`). An allocation is kept at the best relay server, and a second one at another server as
//! a standby. UDP is preferred; TCP and TLS are tried a second later. As soon as a check has crossed an allocation of
//! either side, packets flow through it.
//!
//! **Checks** (`pairing`, `pair`, `pairs`). Each direct candidate of the peer is paired with the main socket, and each
//! relayed one with an allocation of ours. If only one side has an allocation, the other side's main socket takes its
//! place. A pair is checked with authenticated STUN Binding requests ([`partyline_wire::probe`]) from both sides at
//! once, so that the checks open both NATs for each other. Checks are paced (RFC 8445, section 14). A check of the peer
//! triggers one of ours (section 7.3.1.4), and shows addresses that were not announced (peer-reflexive, section
//! 7.3.1.3).
//!
//! **Selection** (`selection`). Paths compete by tier: local network, direct, through another member, relay over UDP,
//! relay over a stream. Within a tier the cost decides: round trip time, jitter, loss (`quality`). The controlling side
//! chooses so, and nominates the path it uses by USE-CANDIDATE. The other side uses the nominated path, even one of a
//! worse tier, as long as it finds it valid and not suspect, and chooses by itself otherwise. A direct path takes over once a check was
//! answered on it, since it carries packets both ways then. What is still under way through the relay arrives as well,
//! and the tunnel's replay window drops duplicates, so that a change loses nothing.
//!
//! **Liveness** (`pair`). After a packet was sent, an authenticated one must come back; where the traffic brings none,
//! checks provoke one (RFC 7675, only stricter). A path that is silent for 500 ms, or for four round trips if that is
//! longer, is suspect: packets go out on the next best path as well. After 3 s (or the same four round trips) it has
//! failed, and the direct pairs that failed before are checked again. Without traffic, the controlling side keeps the
//! selected path alive; other direct paths are not kept alive.
//!
//! **Punching** (`strategy`, `punch`). From the behavior of both NATs (RFC 4787) follows whether checks suffice, whether
//! both sides should send to predicted ports, whether one should open many sockets while the other tries ports, or
//! whether only a relay is possible. Attempts are agreed on by signals ([`Event::Signal`]) so that both sides start at
//! the same moment: the *proposer* offers, the other side answers. A circuit breaker per method bounds retries, and a
//! budget over all peers bounds what sprays send.
//!
//! **Members as relays** (`member_relays`). A member that both sides reach directly can forward between them. The caller
//! finds such members; a path through one is checked and selected like any other.
//!
//! # Using it
//!
//! The machine has no sockets and no clock. After every call, drain [`Paths::poll_transmit`] and [`Paths::poll_event`],
//! and read [`Paths::poll_timeout`] again: any call may have moved it, [`Paths::route`] included. When its moment comes,
//! call [`Paths::handle_timeout`]; earlier calls do no harm. `None` means that there is nothing to do before the next
//! input.
//!
//! Tunnel messages do not pass through the machine. A received one takes three calls: [`Paths::handle_datagram`] returns
//! it as a range of the datagram, the tunnel opens it, and [`Paths::on_authenticated`] is told the path that the first
//! call returned; an answer to a handshake leaves by [`Paths::hop`] of that path. To send, ask [`Paths::route`] for each
//! batch, and send by both of its hops.
//!
//! ```
//! use std::time::Instant;
//!
//! use partyline_model::{Candidate, CandidateKind, NatProfile, PathKind};
//! use partyline_paths::{Config, Local, Paths, PeerId, PeerParams, SocketId};
//! use partyline_wire::probe::Tag;
//!
//! const ADDRESSES: [&str; 2] = ["198.51.100.1:7777", "198.51.100.2:7777"];
//! const PEER: PeerId = PeerId(1);
//!
//! // Two members who know each other's candidates, by some signaling channel.
//! let mut now = Instant::now();
//! let mut members = [0, 1].map(|me| {
//!     let mut paths = Paths::new([me as u8; 32], Config::default());
//!     let address = ADDRESSES[1 - me].parse().unwrap();
//!     paths.set_peer(now, PEER, PeerParams {
//!         probe_key: [7; 32],
//!         local_tag: Tag([me as u8; 8]),
//!         remote_tag: Tag([1 - me as u8; 8]),
//!         controlling: me == 0,
//!         nat: NatProfile::default(),
//!         candidates: vec![Candidate { kind: CandidateKind::Host, address }],
//!     });
//!     paths
//! });
//!
//! // A network without NATs and without delay. Once nothing is under way, time jumps to the next deadline.
//! while members.iter().any(|paths| paths.view(now, PEER).unwrap().quality.rtt_ms.is_none()) {
//!     let mut idle = true;
//!     for me in [0, 1] {
//!         while let Some(transmit) = members[me].poll_transmit() {
//!             let source = ADDRESSES[me].parse().unwrap();
//!             members[1 - me].handle_datagram(now, Local::Socket(SocketId::MAIN), source, &transmit.bytes);
//!             idle = false;
//!         }
//!     }
//!     if idle {
//!         now = members.iter().filter_map(Paths::poll_timeout).min().unwrap();
//!         members.iter_mut().for_each(|paths| paths.handle_timeout(now));
//!     }
//! }
//! assert_eq!(members[0].view(now, PEER).unwrap().kind, Some(PathKind::Direct));
//! assert_eq!(members[0].route(now, PEER).unwrap().primary.destination, ADDRESSES[1].parse().unwrap());
//! ```
//!
//! # Where to find what
//!
//! | module | content |
//! |---|---|
//! | `api`, `path`, `counters` | the public vocabulary |
//! | `paths` | [`Paths`]: input, output, timers |
//! | `peer` | one peer, which wires the parts below |
//! | `pair`, `pairs`, `pairing` | one candidate pair; the collection with its limits; which pairs are wanted |
//! | `selection`, `quality` | which path is used; what checks measure |
//! | `strategy`, `punch` | what to try between two NATs; attempts to do so |
//! | `relays`, `turn` | which allocations are held; the TURN client |
//! | `member_relays` | offers of members to relay |
//! | `remote` | a peer as it announces itself; the keys and tags of checks |
//! | `traffic` | whether a peer's traffic suffers, so that sprays pause |
//! | `context`, `transactions`, `pacing`, `sockets` | what peers share: ids, paces and budgets, punch sockets |
//! | `router_table` | how many flows sprays may create in the router |
//! | `address` | properties of addresses |
//! | `explain` | the answer to "why this path?" |
//!
//! # Observing it
//!
//! Every change of a path, pair, relay or punch attempt is logged at debug with its reason, within a span that names
//! the peer; changes of path also at info, and every dropped datagram at trace. [`Paths::counters`] counts drops, and
//! [`Event::Attempted`] counts methods.

#![allow(rustdoc::private_intra_doc_links)]

mod address;
mod api;
mod context;
mod counters;
mod explain;
mod member_relays;
mod pacing;
mod pair;
mod pairing;
mod pairs;
mod path;
mod paths;
mod peer;
mod peer_names;
mod punch;
mod quality;
mod relays;
mod remote;
mod router_table;
mod selection;
mod sockets;
mod strategy;
#[cfg(test)]
mod testing;
mod traffic;
mod transactions;
mod turn;

pub use api::{
    Config, Event, Handled, MAX_REMOTE_CANDIDATES, PeerParams, PeerView, RelayServer, RelayTransport,
    Transmit,
};
pub use counters::Counters;
pub use partyline_model::{SocketId, StreamId};
pub use path::{AllocationId, Hop, Local, MemberRelay, Path, PeerId, Route, Via};
pub use paths::Paths;
pub use turn::{AllocationOutcome, AllocationTest};
