//! Holes in a router's IPv6 firewall, by UPnP's `WANIPv6FirewallControl:1` and `igd-next`.
//!
//! There is nothing to translate: the hole lets the world reach our address and port as they are. It has an id, by
//! which its lease is prolonged. A router that has restarted does not know the id any more (704); then it is asked
//! anew. Routers grant a hole only to the address that asks, so the search goes out over IPv6.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use igd_next::{
    PinholeError, PortMappingProtocol,
    aio::{Ipv6FirewallGateway, tokio::Tokio},
};
use tokio::time::timeout;

use crate::{
    Ipv6Endpoint, MappingRecord, Options, Protocol,
    keeper::network,
    notebook::Notebook,
    problem::{Grant, Look, Problem},
    upnp::{Source, discover},
};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(4);
/// The longest lease the service knows.
const DAY: u32 = 86_400;

pub(crate) struct Client {
    options: Options,
    notebook: Notebook,
    firewall: Option<Ipv6FirewallGateway<Tokio>>,
    id: Option<u16>,
}

impl Client {
    pub(crate) fn new(options: &Options, notebook: &Notebook) -> Self {
        Self { options: options.clone(), notebook: notebook.clone(), firewall: None, id: None }
    }

    pub(crate) async fn map(&mut self) -> Result<Grant, Problem> {
        if let (Some(firewall), Some(id)) = (self.firewall.clone(), self.id) {
            match timeout(REQUEST, firewall.update_pinhole(id, self.lease())).await {
                Ok(Ok(())) => return self.grant(),
                Ok(Err(PinholeError::NoSuchEntry)) => self.lost(id).await,
                // Another router, or the same at another port.
                _ => self.firewall = None,
            }
        }
        let (firewall, place) = (self.find().await?, self.place()?);
        let inside = SocketAddrV6::new(place.address, place.port, 0, 0);
        let adding = firewall.add_pinhole(PortMappingProtocol::UDP, inside, self.lease());
        match timeout(REQUEST, adding).await {
            Ok(Ok(id)) => {
                if let Some(old) = self.id.replace(id).filter(|old| *old != id) {
                    self.notebook.strike(&self.record(old)).await;
                }
                self.notebook.add(&self.record(id)).await;
                self.firewall = Some(firewall);
                self.grant()
            }
            Ok(Err(PinholeError::FirewallDisabled)) => {
                Err(Problem::Refused("its IPv6 firewall is off, so nothing has to be opened".into()))
            }
            Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
            Err(_) => Err(Problem::Silent),
        }
    }

    /// Prolongs the lease: the one question by which a router tells whether it still knows the hole.
    pub(crate) async fn look(&mut self) -> Result<Look, Problem> {
        let (Some(firewall), Some(id)) = (self.firewall.clone(), self.id) else { return Ok(Look::Changed) };
        match timeout(REQUEST, firewall.update_pinhole(id, self.lease())).await {
            Ok(Ok(())) => Ok(Look::Stands),
            Ok(Err(PinholeError::NoSuchEntry)) => {
                self.lost(id).await;
                Ok(Look::Changed)
            }
            Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
            Err(_) => Err(Problem::Silent),
        }
    }

    pub(crate) async fn forget(&mut self, record: &MappingRecord) -> Result<(), Problem> {
        let firewall = self.find().await?;
        match timeout(REQUEST, firewall.remove_pinhole(record.number)).await {
            // Not ours means that the id was given away after ours had ended.
            Ok(Ok(()) | Err(PinholeError::NoSuchEntry | PinholeError::ActionNotAuthorized)) => Ok(()),
            Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
            Err(_) => Err(Problem::Silent),
        }
    }

    pub(crate) fn standing(&self) -> Option<MappingRecord> {
        self.id.map(|id| self.record(id))
    }

    async fn lost(&mut self, id: u16) {
        self.id = None;
        self.notebook.strike(&self.record(id)).await;
    }

    async fn find(&self) -> Result<Ipv6FirewallGateway<Tokio>, Problem> {
        if let Some(firewall) = self.firewall.clone() {
            return Ok(firewall);
        }
        let place = self.place()?;
        let source = Source::V6 { local: place.address, interface: place.interface };
        let routers = discover(&[source], place.gateway.map(IpAddr::V6), true).await;
        routers.iter().find_map(|router| router.gateway.ipv6_firewall()).ok_or(Problem::Silent)
    }

    fn place(&self) -> Result<Ipv6Endpoint, Problem> {
        self.options.v6.ok_or(Problem::NoIpv6)
    }

    fn grant(&self) -> Result<Grant, Problem> {
        let place = self.place()?;
        let lifetime = Some(Duration::from_secs(self.lease().into()));
        Ok(Grant { external: (place.address, place.port).into(), lifetime })
    }

    fn record(&self, id: u16) -> MappingRecord {
        let internal = self.options.v6.map_or_else(
            || SocketAddr::from((self.options.local_ip, self.options.internal_port)),
            |place| (place.address, place.port).into(),
        );
        let network = network(Protocol::Pinhole, &self.options);
        MappingRecord { method: Protocol::Pinhole, network, internal, number: id, nonce: [0; 3] }
    }

    fn lease(&self) -> u32 {
        self.options.lease().min(DAY)
    }
}
