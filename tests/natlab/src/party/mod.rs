//! Whole parties of the real programs, played in labs: what a group of friends does, and what goes wrong for them.
//!
//! Each scenario has a lab of its own. Where one fails, the error chain says what was expected and what was seen, and
//! the last lines of every program's log follow.

mod faults;
mod ipv6;
mod remote;
mod report;
mod scenarios;
mod server;
mod watch;
mod world;

pub use remote::Remote;
pub use report::play;
pub use scenarios::{Scenario, scenarios};
pub use server::Server;
pub use world::{Member, World, connected};
