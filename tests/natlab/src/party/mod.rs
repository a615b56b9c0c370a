//! Scenarios of whole parties, run with the real programs in labs: normal use, and faults.
//!
//! Each scenario has a lab of its own. If one fails, the error chain says what was expected and what was found, and the
//! last lines of every program's log follow.

mod admission;
mod cards;
mod comebacks;
mod copies;
mod diagnosis;
mod everyday;
mod faults;
mod hairpin;
mod handshake_flood;
mod home_server;
mod hostile_member;
mod ipv6;
mod links;
mod names;
mod nat64;
mod portal;
mod remote;
mod report;
mod routes;
mod scenarios;
mod server;
mod small_router;
mod strangers;
mod traffic_check;
mod watch;
mod world;

pub use everyday::run_everyday;
pub use remote::Remote;
pub use report::run;
pub(crate) use report::{Play, play_all};
pub use scenarios::{Scenario, scenarios};
pub use server::Server;
pub use world::{CONNECT_TIMEOUT, Member, World, connected, pairs};
