//! Options of the process that hosts the engine. Clients of the local socket can change none of them.

use std::path::PathBuf;

use clap::Args;
use partyline_engine::EngineOptions;
use partyline_ipc::{Access, Endpoint};
use partyline_platform::Directories;

/// Where the service is found.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Directory of the service's local socket; also set by PARTYLINE_RUNTIME_DIR.
    #[arg(long, value_name = "DIR", default_value_os_t = Directories::system().runtime)]
    pub runtime_dir: PathBuf,
}

impl Place {
    /// Returns the local socket.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(&self.runtime_dir)
    }
}

/// A feature that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Switched on.
    On,
    /// Switched off.
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
    /// OpenTelemetry collector (OTLP/HTTP) to export traces and metrics to; by default that of
    /// OTEL_EXPORTER_OTLP_ENDPOINT, and without one nothing is exported.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// User id that may drive the service, besides root and the user at the computer's seat.
    #[arg(long = "allow-user", value_name = "UID")]
    pub allowed_users: Vec<u32>,
    /// Group id whose users may drive the service.
    #[arg(long = "allow-group", value_name = "GID")]
    pub allowed_groups: Vec<u32>,
    /// User id that may see parties and metrics of the service, and change nothing.
    #[arg(long = "allow-observer", value_name = "UID")]
    pub allowed_observers: Vec<u32>,
}

impl Settings {
    /// Returns the options of the engine.
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

    /// Returns the directories in use: the system's, unless others were chosen.
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

    /// Returns who may connect to the local socket.
    #[must_use]
    pub fn access(&self) -> Access {
        let seated = Access::default().allow_active_session();
        let users = self.allowed_users.iter().copied().fold(seated, Access::allow_user);
        let groups = self.allowed_groups.iter().copied().fold(users, Access::allow_group);
        self.allowed_observers.iter().copied().fold(groups, Access::allow_observer)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(arguments: &[&str]) -> Options {
        Options::parse_from(["test"].iter().chain(arguments))
    }

    #[test]
    fn options_become_the_engines_defaults() {
        let options = parse(&[
            "--state-dir=/s",
            "--runtime-dir=/r",
            "--port=4000",
            "--nat-detection=off",
            "--default-server=wss://a",
            "--default-server=wss://b",
        ]);
        let engine = options.settings.engine(&options.place);
        assert_eq!((engine.state_dir, engine.runtime_dir), ("/s".into(), "/r".into()));
        let expected = partyline_model::Settings {
            port: 4000,
            nat_detection: false,
            servers: vec!["wss://a".to_owned(), "wss://b".to_owned()],
            ..partyline_model::Settings::default()
        };
        assert_eq!(engine.settings, expected);
        assert_eq!(options.settings.otlp_endpoint, None, "nothing is exported by default");
    }

    #[test]
    fn every_variable_of_an_option_is_documented() {
        let document = include_str!("../../../../docs/settings.md");
        let command = Options::command();
        let variables = command.get_arguments().filter_map(|argument| {
            Some((argument.get_long()?.to_owned(), argument.get_env()?.to_str()?.to_owned()))
        });
        let variables: Vec<_> = variables.collect();
        assert!(variables.len() >= 4, "{variables:?}");
        for (flag, variable) in variables {
            let row = document.lines().find(|line| line.starts_with(&format!("| `{variable}` |")));
            assert!(row.is_some_and(|row| row.contains(&format!("`--{flag}`"))), "{variable} of --{flag}");
        }
    }

    #[test]
    fn logs_follow_a_state_directory_of_ones_own() {
        let options = parse(&["--state-dir=/s", "--runtime-dir=/r"]);
        let directories = options.settings.directories(&options.place);
        assert_eq!(directories.log, PathBuf::from("/s/log"));
        assert_eq!((directories.state, directories.runtime), ("/s".into(), "/r".into()));
        let system = Directories::system();
        let state = format!("--state-dir={}", system.state.display());
        let options = parse(&[&state]);
        assert_eq!(options.settings.directories(&options.place).log, system.log);
    }
}
