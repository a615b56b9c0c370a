//! What whoever starts the service may decide. Clients decide none of it.

use std::path::PathBuf;

use clap::Args;
use partyline_engine::EngineOptions;
use partyline_ipc::{Access, Endpoint};
use partyline_platform::Directories;

/// Where the service is to be found.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Directory of the service's local socket; also set by PARTYLINE_RUNTIME_DIR.
    #[arg(long, value_name = "DIR", default_value_os_t = Directories::system().runtime)]
    pub runtime_dir: PathBuf,
}

impl Place {
    /// The local socket.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(&self.runtime_dir)
    }
}

/// Something that can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not done.
    Off,
}

/// How the engine is run.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Directory of keys and parties; also set by PARTYLINE_STATE_DIR.
    #[arg(long, value_name = "DIR", default_value_os_t = Directories::system().state)]
    pub state_dir: PathBuf,
    /// UDP port all parties share; 0 lets the system choose. `partyline config port` overrides it.
    #[arg(long, value_name = "PORT", env = "PARTYLINE_PORT", default_value_t = 0)]
    pub port: u16,
    /// Whether to measure what the network's NAT does; without, every way of connecting is tried. `partyline config
    /// nat_detection` overrides it.
    #[arg(long, value_enum, value_name = "ON|OFF", env = "PARTYLINE_NAT_DETECTION", default_value = "on")]
    pub nat_detection: Switch,
    /// Rendezvous server for new parties (`wss://host`); can be given several times. `partyline config servers`
    /// overrides it.
    #[arg(long = "default-server", value_name = "URL", env = "PARTYLINE_SERVERS", value_delimiter = ',')]
    pub default_servers: Vec<String>,
    /// Certificates (PEM) to trust besides the system's, for private servers.
    #[arg(long, value_name = "FILE", env = "PARTYLINE_EXTRA_CA")]
    pub extra_ca: Option<PathBuf>,
    /// User id that may drive the service, besides root and whoever sits at the computer.
    #[arg(long = "allow-user", value_name = "UID")]
    pub allowed_users: Vec<u32>,
    /// Group id whose users may drive the service.
    #[arg(long = "allow-group", value_name = "GID")]
    pub allowed_groups: Vec<u32>,
}

impl Settings {
    /// What the engine is to know.
    #[must_use]
    pub fn engine(&self, place: &Place) -> EngineOptions {
        EngineOptions {
            state_dir: self.state_dir.clone(),
            runtime_dir: place.runtime_dir.clone(),
            settings: partyline_model::Settings {
                port: self.port,
                nat_detection: self.nat_detection == Switch::On,
                servers: self.default_servers.clone(),
                ..partyline_model::Settings::default()
            },
            extra_ca: self.extra_ca.clone(),
        }
    }

    /// The directories in use: the system's, unless others were chosen.
    #[must_use]
    pub fn directories(&self, place: &Place) -> Directories {
        let system = Directories::system();
        let log = if self.state_dir == system.state { system.log } else { self.state_dir.join("log") };
        Directories {
            state: self.state_dir.clone(),
            runtime: place.runtime_dir.clone(),
            log,
            config: system.config,
        }
    }

    /// Who may connect.
    #[must_use]
    pub fn access(&self) -> Access {
        let seated = Access::default().allow_seated();
        let users = self.allowed_users.iter().copied().fold(seated, Access::allow_user);
        self.allowed_groups.iter().copied().fold(users, Access::allow_group)
    }
}
