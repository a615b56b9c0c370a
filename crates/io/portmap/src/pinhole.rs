//! Pinholes in a router's IPv6 firewall, by UPnP `WANIPv6FirewallControl:1` and `igd-next`.
//!
//! Nothing is translated: the pinhole lets packets to this computer's address and port pass as they are. It has an id,
//! by which its lease is extended. A router that has restarted does not know the id any more (error 704); then a new
//! pinhole is requested. Routers grant a pinhole only to the address that asks, so the search goes out over IPv6.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use igd_next::{
    PinholeError, PortMappingProtocol,
    aio::{Ipv6FirewallGateway, tokio::Tokio},
};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    Ipv6Endpoint, MappingRecord, Options, Protocol,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
    upnp::{Source, discover},
};

/// Bounds one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest lease that the service allows, in seconds.
const MAX_LEASE_SECONDS: u32 = 86_400;

/// The pinhole client for one port.
pub(crate) struct Client {
    options: Options,
    journal: Journal,
    firewall: Option<Ipv6FirewallGateway<Tokio>>,
    id: Option<u16>,
}

impl Client {
    pub(crate) fn new(options: &Options, journal: &Journal) -> Self {
        Self { options: options.clone(), journal: journal.clone(), firewall: None, id: None }
    }

    /// Extends the pinhole's lease, or requests a new pinhole.
    pub(crate) async fn map(&mut self) -> Result<Grant, MappingError> {
        if let (Some(firewall), Some(id)) = (self.firewall.clone(), self.id) {
            match timeout(REQUEST_TIMEOUT, firewall.update_pinhole(id, self.lease())).await {
                Ok(Ok(())) => return self.grant(),
                Ok(Err(PinholeError::NoSuchEntry)) => self.lost(id).await,
                // Another router, or the same at another port.
                _ => {
                    debug!(id, reason = "the lease was not extended", "searching for the router again");
                    self.firewall = None;
                }
            }
        }
        let (firewall, endpoint) = (self.find().await?, self.endpoint()?);
        let inside = SocketAddrV6::new(endpoint.address, endpoint.port, 0, 0);
        let adding = firewall.add_pinhole(PortMappingProtocol::UDP, inside, self.lease());
        match timeout(REQUEST_TIMEOUT, adding).await {
            Ok(Ok(id)) => {
                if let Some(old) = self.id.replace(id).filter(|old| *old != id) {
                    self.journal.remove(&self.record(old)).await;
                }
                self.journal.insert(&self.record(id)).await;
                self.firewall = Some(firewall);
                self.grant()
            }
            Ok(Err(PinholeError::FirewallDisabled)) => {
                Err(MappingError::refused("its IPv6 firewall is off, so nothing has to be opened"))
            }
            Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    /// Extends the lease: the only request by which a router reveals whether it still has the pinhole.
    pub(crate) async fn check(&mut self) -> Result<MappingStatus, MappingError> {
        let (Some(firewall), Some(id)) = (self.firewall.clone(), self.id) else {
            return Ok(MappingStatus::Changed);
        };
        match timeout(REQUEST_TIMEOUT, firewall.update_pinhole(id, self.lease())).await {
            Ok(Ok(())) => Ok(MappingStatus::Unchanged),
            Ok(Err(PinholeError::NoSuchEntry)) => {
                self.lost(id).await;
                Ok(MappingStatus::Changed)
            }
            Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    /// Deletes a pinhole of this or an earlier run.
    pub(crate) async fn delete(&mut self, record: &MappingRecord) -> Result<(), MappingError> {
        let firewall = self.find().await?;
        match timeout(REQUEST_TIMEOUT, firewall.remove_pinhole(record.number)).await {
            // Not authorised means that the id was assigned again after the lease had ended.
            Ok(Ok(()) | Err(PinholeError::NoSuchEntry | PinholeError::ActionNotAuthorized)) => Ok(()),
            Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    /// Returns the record of the current pinhole.
    pub(crate) fn current_record(&self) -> Option<MappingRecord> {
        self.id.map(|id| self.record(id))
    }

    async fn lost(&mut self, id: u16) {
        debug!(id, code = 704, "the router does not know the pinhole any more");
        self.id = None;
        self.journal.remove(&self.record(id)).await;
    }

    async fn find(&self) -> Result<Ipv6FirewallGateway<Tokio>, MappingError> {
        if let Some(firewall) = self.firewall.clone() {
            return Ok(firewall);
        }
        let endpoint = self.endpoint()?;
        let source = Source::V6 { local: endpoint.address, interface: endpoint.interface };
        let routers = discover(&[source], endpoint.gateway.map(IpAddr::V6), true).await;
        routers.iter().find_map(|router| router.gateway.ipv6_firewall()).ok_or(MappingError::NoResponse)
    }

    fn endpoint(&self) -> Result<Ipv6Endpoint, MappingError> {
        self.options.v6.ok_or(MappingError::NoIpv6Address)
    }

    fn grant(&self) -> Result<Grant, MappingError> {
        let endpoint = self.endpoint()?;
        let lifetime = Some(Duration::from_secs(self.lease().into()));
        Ok(Grant { external: (endpoint.address, endpoint.port).into(), lifetime })
    }

    fn record(&self, id: u16) -> MappingRecord {
        let internal = self.options.v6.map_or_else(
            || SocketAddr::from((self.options.local_ip, self.options.internal_port)),
            |endpoint| (endpoint.address, endpoint.port).into(),
        );
        let network = self.options.network(Protocol::Pinhole);
        MappingRecord { method: Protocol::Pinhole, network, internal, number: id, nonce: [0; 3] }
    }

    fn lease(&self) -> u32 {
        self.options.lease().min(MAX_LEASE_SECONDS)
    }
}
