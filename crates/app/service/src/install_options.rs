//! Options for registering the service with the system.

use std::path::PathBuf;

use clap::Args;

/// Options of `install`.
#[derive(Debug, Clone, Args)]
pub struct InstallOptions {
    /// User id that may drive the service; by default the user who called sudo.
    #[arg(long = "allow-user", value_name = "UID")]
    pub allowed_users: Vec<u32>,
    /// Group id whose users may drive the service.
    #[arg(long = "allow-group", value_name = "GID")]
    pub allowed_groups: Vec<u32>,
    /// User id that may see parties and metrics of the service, and change nothing.
    #[arg(long = "allow-observer", value_name = "UID")]
    pub allowed_observers: Vec<u32>,
    /// Rendezvous server for new parties (`wss://host`); can be given several times.
    #[arg(long = "default-server", value_name = "URL")]
    pub servers: Vec<String>,
    /// UDP port all parties share, for a port forwarding by hand; else the system chooses.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// If another user could replace this program, copy it to /usr/local/sbin/partyline-service first and run that.
    #[arg(long)]
    pub copy: bool,
    /// Certificates (PEM) to trust besides the system's, for private servers.
    #[arg(long, value_name = "FILE")]
    pub extra_ca: Option<PathBuf>,
}
