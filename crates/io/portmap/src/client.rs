//! A client of any of the protocols, with bounded waiting times.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    Flow, MappingRecord, Options, Protocol,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
    natpmp, pcp, pinhole, upnp,
};

/// Bounds one request for a mapping or for flows, with all retransmissions and searches.
const MAP_TIMEOUT: Duration = Duration::from_secs(15);
/// Bounds one check of a mapping.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds the deletion of one mapping.
const DELETE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The client of one protocol.
pub(crate) enum Client {
    Pcp(pcp::Client),
    NatPmp(natpmp::Client),
    Upnp(Box<upnp::Client>),
    Pinhole(pinhole::Client),
}

impl Client {
    pub(crate) fn new(method: Protocol, options: &Options, journal: &Journal) -> Self {
        match method {
            Protocol::Pcp | Protocol::PcpV6 => Self::Pcp(pcp::Client::new(method, options, journal)),
            Protocol::NatPmp => Self::NatPmp(natpmp::Client::new(options, journal)),
            Protocol::Upnp => Self::Upnp(Box::new(upnp::Client::new(options, journal))),
            Protocol::Pinhole => Self::Pinhole(pinhole::Client::new(options, journal)),
        }
    }

    /// Requests a mapping, or renews the one there is.
    pub(crate) async fn map(&mut self) -> Result<Grant, MappingError> {
        let mapping = async {
            match self {
                Self::Pcp(client) => client.map().await,
                Self::NatPmp(client) => client.map().await,
                Self::Upnp(client) => client.map().await,
                Self::Pinhole(client) => client.map().await,
            }
        };
        timeout(MAP_TIMEOUT, mapping).await.unwrap_or(Err(MappingError::NoResponse))?.validated()
    }

    /// Checks whether the router still has the mapping.
    pub(crate) async fn check(&mut self) -> Result<MappingStatus, MappingError> {
        let checking = async {
            match self {
                Self::Pcp(client) => client.check().await,
                Self::NatPmp(client) => client.check().await,
                Self::Upnp(client) => client.check().await,
                Self::Pinhole(client) => client.check().await,
            }
        };
        timeout(CHECK_TIMEOUT, checking).await.unwrap_or(Err(MappingError::NoResponse))
    }

    /// Deletes a mapping of this or an earlier run.
    pub(crate) async fn delete(&mut self, record: &MappingRecord) -> Result<(), MappingError> {
        let deleting = async {
            match self {
                Self::Pcp(client) => client.delete(record).await,
                Self::NatPmp(client) => client.delete(record).await,
                Self::Upnp(client) => client.delete(record).await,
                Self::Pinhole(client) => client.delete(record).await,
            }
        };
        timeout(DELETE_TIMEOUT, deleting).await.unwrap_or(Err(MappingError::NoResponse))
    }

    /// Requests that the router keeps the flows to these remotes. Returns those it keeps; none where the protocol has no
    /// such request.
    pub(crate) async fn map_flows(&mut self, remotes: &[SocketAddr]) -> Vec<Flow> {
        match self {
            Self::Pcp(client) => timeout(MAP_TIMEOUT, client.map_flows(remotes)).await.unwrap_or_default(),
            Self::NatPmp(_) | Self::Upnp(_) | Self::Pinhole(_) => Vec::new(),
        }
    }

    /// Returns the record of the current mapping, or of a request that was cut short and may have been granted.
    pub(crate) fn current_record(&self) -> Option<MappingRecord> {
        match self {
            Self::Pcp(client) => client.current_record(),
            Self::NatPmp(client) => client.current_record(),
            Self::Upnp(client) => client.current_record(),
            Self::Pinhole(client) => client.current_record(),
        }
    }
}
