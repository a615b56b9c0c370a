//! What an engine is started with, and what starting it returns.

use std::path::PathBuf;

use partyline_model::{AppError, Settings};
use tokio::task::JoinHandle;

use crate::controller::Controller;

/// What an engine needs to know before it starts.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The directory of keys and parties; readable by this process alone.
    pub state_dir: PathBuf,
    /// The directory of files that do not outlast a restart of the computer.
    pub runtime_dir: PathBuf,
    /// The settings that count where the user has set nothing else.
    pub settings: Settings,
    /// A file of certificates (PEM) to trust besides the system's, for private servers.
    pub extra_ca: Option<PathBuf>,
}

/// An engine at work.
#[derive(Debug)]
pub struct RunningEngine {
    /// Drives the engine.
    pub controller: Controller,
    /// Ends when the engine has ended: after [`partyline_model::Command::Stop`], or by itself with an error.
    pub join: JoinHandle<Result<(), AppError>>,
}
