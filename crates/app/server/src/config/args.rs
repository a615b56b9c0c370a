//! Command-line flags, each of which can be an environment variable instead.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use super::file::{File, TlsSection};
use crate::StartError;

const PREFIX: &str = "PARTYLINE_SERVER_";

/// Introduces members of game parties to each other, and relays for them where nothing else works.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "partyline-server", version)]
pub struct Args {
    /// Does this instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file (TOML).
    #[arg(long, short, global = true, env = "PARTYLINE_SERVER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Development mode: without TLS on 127.0.0.1:4480, with a relay for loopback addresses and a random secret.
    #[arg(long, global = true)]
    pub dev: bool,
    /// Address for HTTPS, WebSockets and TURN over TLS; may be repeated.
    #[arg(long, global = true, value_delimiter = ',', env = "PARTYLINE_SERVER_LISTEN")]
    pub listen: Vec<SocketAddr>,
    /// The server's public name, for the relay's URLs.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_HOST")]
    pub host: Option<String>,
    /// Certificate with its chain (PEM).
    #[arg(long, global = true, requires = "tls_key", env = "PARTYLINE_SERVER_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, global = true, requires = "tls_certificate", env = "PARTYLINE_SERVER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Serve without TLS on addresses that others can reach.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_INSECURE_PLAIN")]
    pub insecure_plain: bool,
    /// Address for /metrics and /healthz alone; without it, /metrics answers loopback only.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// URL of an OpenTelemetry collector to which traces and metrics are exported (OTLP/HTTP).
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Do not relay.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_NO_RELAY")]
    pub no_relay: bool,
    /// File with the secret shared with other relays.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_RELAY_SECRET_FILE")]
    pub relay_secret_file: Option<PathBuf>,
    /// Secret shared with other relays; only from the environment, because other users can see flags.
    #[arg(skip)]
    pub relay_secret: Option<String>,
    /// IP address the relay listens on; may be repeated.
    #[arg(long, global = true, value_delimiter = ',', env = "PARTYLINE_SERVER_RELAY_LISTEN")]
    pub relay_listen: Vec<IpAddr>,
    /// The same addresses as others see them, behind a one-to-one NAT; one per family.
    #[arg(long, global = true, value_delimiter = ',', env = "PARTYLINE_SERVER_RELAY_EXTERNAL")]
    pub relay_external: Vec<IpAddr>,
    /// UDP and TCP port of STUN and TURN.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_RELAY_PORT")]
    pub relay_port: Option<u16>,
    /// Second UDP port, for NAT discovery; 0 for none.
    #[arg(long, global = true, env = "PARTYLINE_SERVER_RELAY_ALTERNATE_PORT")]
    pub relay_alternate_port: Option<u16>,
    /// Log more; may be repeated. `PARTYLINE_LOG` sets levels by module.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Commands other than serving.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Read and check the configuration and the certificate, and print what would be served.
    CheckConfig,
}

impl Args {
    /// Adds the settings that are read from the environment only.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        self.relay_secret = std::env::var(format!("{PREFIX}RELAY_SECRET")).ok();
        self
    }

    pub(super) fn override_file(&self, file: &mut File) {
        fn set<T: Clone>(slot: &mut Option<T>, value: &Option<T>) {
            *slot = value.clone().or(slot.take());
        }
        fn set_list<T: Clone>(slot: &mut Option<Vec<T>>, value: &[T]) {
            if !value.is_empty() {
                *slot = Some(value.to_vec());
            }
        }
        set_list(&mut file.listen, &self.listen);
        set(&mut file.host, &self.host);
        set(&mut file.admin, &self.admin);
        if let (Some(certificate), Some(key)) = (self.tls_certificate.clone(), self.tls_key.clone()) {
            file.tls = Some(TlsSection { certificate, key });
        }
        set(&mut file.insecure_plain, &self.insecure_plain.then_some(true));
        let relay = &mut file.relay;
        set(&mut relay.enabled, &self.no_relay.then_some(false));
        if self.relay_secret.is_some() || self.relay_secret_file.is_some() {
            relay.secret = self.relay_secret.clone();
            relay.secret_file = self.relay_secret_file.clone();
        }
        set_list(&mut relay.listen, &self.relay_listen);
        set_list(&mut relay.external, &self.relay_external);
        set(&mut relay.port, &self.relay_port);
        set(&mut relay.alternate_port, &self.relay_alternate_port);
    }
}

/// Refuses unknown variables with the prefix, since a mistyped one would silently have no effect.
pub(super) fn refuse_unknown_variables() -> Result<(), StartError> {
    let command = Args::command();
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    let unknown = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).find(|name| {
        name.strip_prefix(PREFIX).is_some_and(|rest| rest != "RELAY_SECRET") && !known.contains(&&**name)
    });
    unknown.map_or(Ok(()), |name| Err(StartError::UnknownVariable(name)))
}
