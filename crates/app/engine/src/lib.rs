//! The event loop around the node, and the Controller that drives it.
//!
//! The node decides; this crate does: it reads sockets and devices, keeps connections, writes the state down, and hands
//! the node the time. One task owns the node, so that nothing in it needs a lock.

mod connections;
mod controller;
mod devices;
mod doctor;
mod egress;
mod engine;
mod open;
mod ports;
mod router;
mod sockets;
mod store;
mod surroundings;
mod trial;
mod wake;

use std::path::PathBuf;

use partyline_model::{AppError, Settings};
use tokio::task::JoinHandle;

pub use controller::{Call, Controller};
pub use engine::Engine;

/// What an engine needs to know before it starts.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where keys and parties are kept; readable by this process alone.
    pub state_dir: PathBuf,
    /// Where things live that do not outlast a restart of the computer.
    pub runtime_dir: PathBuf,
    /// What counts where the user has set nothing else.
    pub settings: Settings,
    /// Certificates (PEM) to trust besides the system's, for private servers.
    pub extra_ca: Option<PathBuf>,
}

/// An engine at work.
#[derive(Debug)]
pub struct RunningEngine {
    /// Drives it.
    pub controller: Controller,
    /// Ends when the engine has ended: after [`partyline_model::Command::Stop`], or by itself with an error.
    pub join: JoinHandle<Result<(), AppError>>,
}
