//! The TOML file. Every key is optional, and unknown keys are refused.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use partyline_rendezvous::{Limits, ROSTERS_AT_ONCE, Rate};
use serde::Deserialize;

use crate::StartError;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<Vec<SocketAddr>>,
    pub(super) insecure_plain: Option<bool>,
    pub(super) host: Option<String>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) tls: Option<TlsSection>,
    pub(super) relay: RelaySection,
    pub(super) limits: LimitsSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSection {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RelaySection {
    pub(super) enabled: Option<bool>,
    pub(super) secret: Option<String>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) credential_hours: Option<u64>,
    pub(super) realm: Option<String>,
    pub(super) region: Option<String>,
    pub(super) listen: Option<Vec<IpAddr>>,
    pub(super) external: Option<Vec<IpAddr>>,
    pub(super) port: Option<u16>,
    pub(super) alternate_port: Option<u16>,
    pub(super) tcp: Option<bool>,
    pub(super) ports: Option<[u16; 2]>,
    pub(super) allow_private_peers: Option<bool>,
    pub(super) denied_peers: Option<Vec<IpNet>>,
    pub(super) foreign_payloads: Option<bool>,
    pub(super) streams: Option<usize>,
    pub(super) allocations: Option<usize>,
    pub(super) allocations_per_user: Option<usize>,
    pub(super) allocations_per_address: Option<usize>,
    pub(super) bandwidth_per_allocation: Option<u64>,
    pub(super) bandwidth_per_network: Option<u64>,
    pub(super) bandwidth: Option<u64>,
    pub(super) others: Vec<OtherRelay>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OtherRelay {
    pub(super) url: String,
    #[serde(default)]
    pub(super) region: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    pub(super) connections: Option<usize>,
    pub(super) connections_per_address: Option<usize>,
    connections_per_prefix56: Option<usize>,
    connections_per_prefix48: Option<usize>,
    frames_per_address: Option<RateSection>,
    bytes_per_connection: Option<RateSection>,
    bytes_per_address: Option<RateSection>,
    bytes_per_prefix56: Option<RateSection>,
    bytes_per_prefix48: Option<RateSection>,
    entry_seconds: Option<u64>,
    roster_seconds: Option<u64>,
    topics: Option<usize>,
    topics_per_connection: Option<usize>,
    members_per_topic: Option<usize>,
    frames_per_topic: Option<RateSection>,
    held_bytes: Option<usize>,
    mail_per_handle: Option<usize>,
    mail_bytes_per_topic: Option<usize>,
    mail_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateSection {
    burst: u32,
    per_second: u32,
}

impl From<RateSection> for Rate {
    fn from(rate: RateSection) -> Self {
        Self::per_second(rate.per_second.into(), rate.burst.into())
    }
}

fn roster_rate(seconds: u64) -> Rate {
    Rate::every(Duration::from_secs(seconds), ROSTERS_AT_ONCE)
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, StartError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| StartError::ConfigUnreadable { path: path.to_owned(), cause })?;
        toml::from_str(&text)
            .map_err(|cause| StartError::ConfigWrong { path: path.to_owned(), cause: cause.to_string() })
    }
}

impl LimitsSection {
    pub(super) fn override_defaults(self, limits: Limits) -> Limits {
        Limits {
            connections: self.connections.unwrap_or(limits.connections),
            connections_per_address: self.connections_per_address.unwrap_or(limits.connections_per_address),
            connections_per_prefix56: self
                .connections_per_prefix56
                .unwrap_or(limits.connections_per_prefix56),
            connections_per_prefix48: self
                .connections_per_prefix48
                .unwrap_or(limits.connections_per_prefix48),
            address_rate: self.frames_per_address.map_or(limits.address_rate, Rate::from),
            connection_bytes: self.bytes_per_connection.map_or(limits.connection_bytes, Rate::from),
            address_bytes: self.bytes_per_address.map_or(limits.address_bytes, Rate::from),
            prefix56_bytes: self.bytes_per_prefix56.map_or(limits.prefix56_bytes, Rate::from),
            prefix48_bytes: self.bytes_per_prefix48.map_or(limits.prefix48_bytes, Rate::from),
            entry_timeout: self.entry_seconds.map_or(limits.entry_timeout, Duration::from_secs),
            roster_rate: self.roster_seconds.map_or(limits.roster_rate, roster_rate),
            topics: self.topics.unwrap_or(limits.topics),
            topics_per_connection: self.topics_per_connection.unwrap_or(limits.topics_per_connection),
            members_per_topic: self.members_per_topic.unwrap_or(limits.members_per_topic),
            topic_rate: self.frames_per_topic.map_or(limits.topic_rate, Rate::from),
            held_bytes: self.held_bytes.unwrap_or(limits.held_bytes),
            mail_per_handle: self.mail_per_handle.unwrap_or(limits.mail_per_handle),
            mail_bytes_per_topic: self.mail_bytes_per_topic.unwrap_or(limits.mail_bytes_per_topic),
            mail_lifetime: self.mail_seconds.map_or(limits.mail_lifetime, Duration::from_secs),
            ..limits
        }
    }
}
