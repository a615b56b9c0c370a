//! The BitTorrent DHT in virtual time: many nodes that behave like those of the real one, and a client's operations in it.

mod network;
mod run;
mod trial;

pub use network::{DhtMix, DhtNetwork};
pub use run::{Run, run_lookup};
pub use trial::{Start, Trial, TrialResult};
