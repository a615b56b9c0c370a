//! A network in virtual time, in one thread and without sockets.
//!
//! A [`Simulation`] is a clock, a [`Queue`] of events and a [`Network`]: hosts with addresses, behind chains of routers that
//! run the NAT model of `core/nat`, on lines with latency, jitter, loss, duplication and a rate. The harness of each crate
//! owns the machines under test. It sends their datagrams and stream data into the simulation, takes the next event with
//! [`Simulation::next`], and hands it to the machine that runs on the event's host. Everything random is drawn from one
//! [`Dice`], so that the same seed gives the same run.
//!
//! Servers are hosts too. [`StunServer`] implements NAT behavior discovery (RFC 5780), correctly or with a chosen fault;
//! [`TurnServer`] runs the state machine of the real relay. The nodes of the BitTorrent DHT ([`dht`]) are too many to be hosts; they
//! are a network of their own.
//!
//! ```
//! use std::{net::SocketAddr, time::Duration};
//! use partyline_model::{Allocation, Filtering, Mapping};
//! use partyline_nat::{Nat, Rules};
//! use partyline_tests_netsim::{Event, Line, Simulation};
//!
//! let mut simulation = Simulation::<()>::new(1);
//! let rules = Rules::new(Mapping::EndpointIndependent, Filtering::AddressDependent, Allocation::Preserving);
//! let home = simulation.network.add_router(None, Nat::new(1, [203, 0, 113, 1].into(), rules));
//! let client = simulation.network.add_host(Some(home), [[192, 168, 1, 2].into()], Line::GOOD);
//! let server = simulation.network.add_host(None, [[198, 51, 100, 1].into()], Line::GOOD);
//!
//! let destination = SocketAddr::from(([198, 51, 100, 1], 3478));
//! simulation.send(client, ([192, 168, 1, 2], 5000).into(), destination, b"hello".to_vec());
//! let end = simulation.now().instant + Duration::from_secs(1);
//! let Some(Event::Datagram(datagram)) = simulation.next(end) else { panic!("nothing arrived") };
//! assert_eq!((datagram.host, datagram.source), (server, ([203, 0, 113, 1], 5000).into()));
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot go on must fail")]

mod card;
mod credentials;
pub mod dht;
mod dice;
mod line;
mod network;
mod queue;
mod router;
mod simulation;
mod streams;
pub mod stun;
mod stun_server;
mod turn_server;

pub use card::{Card, Overlay, OverlayId};
pub use credentials::LongTermCredentials;
pub use dice::Dice;
pub use line::{Line, Transmitter};
pub use network::{Datagram, Delivery, Host, HostId, InFlight, Interference, Network, Progress};
pub use queue::Queue;
pub use router::{Place, Router, RouterId};
pub use simulation::{Event, Simulation};
pub use streams::{Direction, Segment, Streams};
pub use stun_server::{ChangeRequests, StunServer};
pub use turn_server::{Output, TurnServer};
