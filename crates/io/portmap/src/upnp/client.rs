//! The UPnP client.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use igd_next::{
    AddAnyPortError, AddPortError, GetExternalIpError, PortMappingProtocol, RemovePortError, RequestError,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::time::timeout;
use tracing::debug;

use super::{
    discovery::{Router, discover},
    soap,
    ssdp::Source,
};
use crate::{
    MappingRecord, Options, Protocol,
    error::MappingError,
    grant::{Grant, MappingStatus},
    journal::Journal,
};

const DESCRIPTION: &str = "Partyline";
/// Bounds one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest lease that version 2 allows, in seconds.
const MAX_LEASE_SECONDS: u32 = 604_800;
/// The most ports tried after the first one, where the router does not choose.
const MAX_ALTERNATIVE_PORTS: usize = 4;
/// The range from which they are drawn.
const FIRST_ALTERNATIVE_PORT: u16 = 10_000;
const ALTERNATIVE_PORTS: u16 = 50_000;

/// The UPnP client for one port.
pub(crate) struct Client {
    options: Options,
    journal: Journal,
    router: Option<Router>,
    /// Chooses alternative ports.
    rng: ChaCha8Rng,
    /// The external port to request first.
    port: u16,
    /// True if the router supports permanent mappings only.
    permanent: bool,
    /// What is mapped, or may be by a request that was cut short.
    record: Option<MappingRecord>,
    external: Option<IpAddr>,
}

/// The router's answer to a request for one port.
enum PortAnswer {
    /// The port is mapped, with a lease or permanently.
    Granted(Option<Duration>),
    /// The port conflicts with another mapping; another one may do.
    Conflict(MappingError),
}

impl Client {
    pub(crate) fn new(options: &Options, journal: &Journal) -> Self {
        Self {
            options: options.clone(),
            journal: journal.clone(),
            router: None,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            port: options.internal_port,
            permanent: false,
            record: None,
            external: None,
        }
    }

    /// Asks the known router, else searches for routers and asks one after the other until one grants.
    pub(crate) async fn map(&mut self) -> Result<Grant, MappingError> {
        if let Some(router) = self.router.take()
            && let Ok(grant) = self.map_on(router).await
        {
            return Ok(grant);
        }
        let mut last = MappingError::NoResponse;
        for router in self.search().await {
            let address = router.gateway.addr;
            match self.map_on(router).await {
                Ok(grant) => return Ok(grant),
                Err(error) => {
                    debug!(router = %address, reason = %error.summary(), code = error.code(), "router refused");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Checks whether the router's external address is the same and it still forwards the port to this computer. Many
    /// routers cannot answer the latter; then the former has to suffice.
    pub(crate) async fn check(&mut self) -> Result<MappingStatus, MappingError> {
        let Some(router) = self.router.clone() else { return Ok(MappingStatus::Changed) };
        if self.external != Some(external_ip(&router).await?) {
            debug!(reason = "the router's external address changed", "port mapping changed");
            return Ok(MappingStatus::Changed);
        }
        match self
            .internal_client(&router, self.record.as_ref().map_or(self.port, |record| record.number))
            .await
        {
            Ok(Some(ip)) if IpAddr::V4(ip) == router.local => Ok(MappingStatus::Unchanged),
            Ok(Some(_)) => {
                debug!(port = self.port, reason = "another computer has taken it", "external port lost");
                self.port = self.random_port();
                Ok(MappingStatus::Changed)
            }
            Ok(None) => {
                debug!(port = self.port, code = 714, "the router does not have the mapping any more");
                Ok(MappingStatus::Changed)
            }
            Err(soap::ActionError::Code(_)) => Ok(MappingStatus::Unchanged),
            Err(soap::ActionError::Other(reason)) => Err(MappingError::InvalidResponse(reason)),
        }
    }

    /// Deletes a mapping of this or an earlier run.
    pub(crate) async fn delete(&mut self, record: &MappingRecord) -> Result<(), MappingError> {
        if self.router.is_none() {
            self.router = self.search().await.into_iter().next();
        }
        let router = self.router.clone().ok_or(MappingError::NoResponse)?;
        if self.record.as_ref() != Some(record) && self.belongs_to_another(&router, record).await {
            debug!(port = record.number, reason = "forwarded to another computer", "mapping is not deleted");
            return Ok(());
        }
        let deleting = router.gateway.remove_port(PortMappingProtocol::UDP, record.number);
        match timeout(REQUEST_TIMEOUT, deleting).await {
            Ok(Ok(()) | Err(RemovePortError::NoSuchPortMapping)) => Ok(()),
            Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    /// Returns the record of what is mapped, or may be by a request that was cut short.
    pub(crate) fn current_record(&self) -> Option<MappingRecord> {
        self.record.clone()
    }

    async fn search(&self) -> Vec<Router> {
        let Options { local_ip, gateway, other_ips, .. } = &self.options;
        let others = other_ips.iter().map(|local| Source::V4 { local: *local, gateway: None });
        let sources: Vec<_> =
            [Source::V4 { local: *local_ip, gateway: *gateway }].into_iter().chain(others).collect();
        discover(&sources, gateway.map(IpAddr::V4), false).await
    }

    async fn map_on(&mut self, router: Router) -> Result<Grant, MappingError> {
        let ip = external_ip(&router).await?;
        let mut ports: VecDeque<u16> = [self.port].into();
        if !router.chooses_ports() {
            ports.extend((0..MAX_ALTERNATIVE_PORTS).map(|_| self.random_port()));
        }
        // Kept now, so that a request that is cut short can be undone.
        self.router = Some(router.clone());
        let mut last = MappingError::NoResponse;
        while let Some(port) = ports.pop_front() {
            match self.request_port(&router, port).await? {
                PortAnswer::Granted(lifetime) => return Ok(self.granted(ip, port, lifetime)),
                PortAnswer::Conflict(error) => {
                    debug!(port, reason = %error.summary(), code = error.code(), "external port is taken");
                    last = error;
                }
            }
        }
        if router.chooses_ports() {
            return self.request_any_port(&router, ip).await;
        }
        Err(last)
    }

    fn granted(&mut self, ip: IpAddr, port: u16, lifetime: Option<Duration>) -> Grant {
        (self.port, self.external) = (port, Some(ip));
        Grant { external: SocketAddr::new(ip, port), lifetime }
    }

    /// Requests one port, and again in another way where the refusal suggests one.
    async fn request_port(&mut self, router: &Router, port: u16) -> Result<PortAnswer, MappingError> {
        self.set_record(router, port).await;
        let mut outcome = self.add(router, port).await;
        if !self.permanent && outcome.as_ref().is_err_and(wants_permanent) {
            debug!(port, reason = "the router grants no leases", "requesting a permanent mapping");
            self.permanent = true;
            outcome = self.add(router, port).await;
            // If leases were not the reason, they are still the better choice.
            self.permanent = outcome.is_ok();
        }
        if let Err(AddPortError::RequestError(RequestError::ErrorCode(code @ (726 | 727), _))) = outcome {
            return self.request_wildcard(router, port, code).await;
        }
        match outcome {
            Ok(()) => Ok(PortAnswer::Granted(self.lifetime())),
            Err(error) => {
                self.clear_record().await;
                let conflict = is_conflict(&error);
                let error = add_port_error(&error);
                if conflict { Ok(PortAnswer::Conflict(error)) } else { Err(error) }
            }
        }
    }

    async fn add(&self, router: &Router, port: u16) -> Result<(), AddPortError> {
        let internal = self.internal(router);
        let adding =
            router.gateway.add_port(PortMappingProtocol::UDP, port, internal, self.lease(), DESCRIPTION);
        timeout(REQUEST_TIMEOUT, adding).await.unwrap_or_else(|_| {
            Err(AddPortError::RequestError(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        })
    }

    /// Requests a mapping with wildcards: for every remote host (726), spelled out, as that is what every request means,
    /// or for every external port (727). In the latter case each packet to a port without a mapping of its own reaches this
    /// computer at the same port.
    async fn request_wildcard(
        &mut self,
        router: &Router,
        port: u16,
        code: u16,
    ) -> Result<PortAnswer, MappingError> {
        debug!(port, code, "requesting a mapping with wildcards");
        let (host, number) = if code == 726 { ("0.0.0.0", port) } else { ("", 0) };
        self.set_record(router, number).await;
        let internal = self.internal(router);
        let arguments = [
            ("NewRemoteHost", host.to_owned()),
            ("NewExternalPort", number.to_string()),
            ("NewProtocol", "UDP".to_owned()),
            ("NewInternalPort", internal.port().to_string()),
            ("NewInternalClient", internal.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", DESCRIPTION.to_owned()),
            ("NewLeaseDuration", self.lease().to_string()),
        ];
        match timeout(REQUEST_TIMEOUT, soap::call(&router.gateway, "AddPortMapping", &arguments)).await {
            Ok(Ok(_)) => Ok(PortAnswer::Granted(self.lifetime())),
            Ok(Err(soap::ActionError::Code(code))) => {
                self.clear_record().await;
                Err(MappingError::refused_with(code, format!("error {code} with wildcards")))
            }
            Ok(Err(soap::ActionError::Other(reason))) => Err(MappingError::InvalidResponse(reason)),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    async fn request_any_port(&mut self, router: &Router, ip: IpAddr) -> Result<Grant, MappingError> {
        let internal = self.internal(router);
        debug!("letting the router choose an external port");
        let adding =
            router.gateway.add_any_port(PortMappingProtocol::UDP, internal, self.lease(), DESCRIPTION);
        match timeout(REQUEST_TIMEOUT, adding).await {
            Ok(Ok(port)) => {
                self.set_record(router, port).await;
                Ok(self.granted(ip, port, self.lifetime()))
            }
            Ok(Err(AddAnyPortError::RequestError(error))) => Err(request_error(&error)),
            Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
            Err(_) => Err(MappingError::NoResponse),
        }
    }

    /// Records what is about to be requested instead of what was requested before.
    async fn set_record(&mut self, router: &Router, number: u16) {
        let record = MappingRecord {
            method: Protocol::Upnp,
            network: self.options.network(Protocol::Upnp),
            internal: self.internal(router),
            number,
            nonce: [0; 3],
        };
        if self.record.as_ref() != Some(&record) {
            self.journal.insert(&record).await;
            self.clear_record().await;
            self.record = Some(record);
        }
    }

    async fn clear_record(&mut self) {
        if let Some(record) = self.record.take() {
            self.journal.remove(&record).await;
        }
    }

    /// Returns the computer that the router forwards a port to, if any.
    async fn internal_client(
        &self,
        router: &Router,
        port: u16,
    ) -> Result<Option<Ipv4Addr>, soap::ActionError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", port.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        let asking = soap::call(&router.gateway, "GetSpecificPortMappingEntry", &arguments);
        match timeout(REQUEST_TIMEOUT, asking).await {
            Ok(Ok(values)) => values
                .get("NewInternalClient")
                .and_then(|text| text.trim().parse().ok())
                .map(Some)
                .ok_or_else(|| soap::ActionError::Other("a mapping to nowhere".into())),
            Ok(Err(soap::ActionError::Code(714))) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(soap::ActionError::Other("no answer".into())),
        }
    }

    /// Returns true if the port of an earlier run is forwarded to another computer by now.
    async fn belongs_to_another(&self, router: &Router, record: &MappingRecord) -> bool {
        let client = self.internal_client(router, record.number).await;
        client.is_ok_and(|ip| ip.is_none_or(|ip| IpAddr::V4(ip) != record.internal.ip()))
    }

    fn random_port(&mut self) -> u16 {
        FIRST_ALTERNATIVE_PORT + (self.rng.next_u32() % u32::from(ALTERNATIVE_PORTS)) as u16
    }

    fn lease(&self) -> u32 {
        if self.permanent { 0 } else { self.options.lease().min(MAX_LEASE_SECONDS) }
    }

    fn lifetime(&self) -> Option<Duration> {
        (!self.permanent).then(|| Duration::from_secs(self.lease().into()))
    }

    fn internal(&self, router: &Router) -> SocketAddr {
        SocketAddr::new(router.local, self.options.internal_port)
    }
}

async fn external_ip(router: &Router) -> Result<IpAddr, MappingError> {
    match timeout(REQUEST_TIMEOUT, router.gateway.get_external_ip()).await {
        Ok(Ok(ip)) => Ok(ip),
        Ok(Err(GetExternalIpError::RequestError(error))) => Err(request_error(&error)),
        Ok(Err(error)) => Err(MappingError::refused(error.to_string())),
        Err(_) => Err(MappingError::NoResponse),
    }
}

/// Maps the error of a request.
fn request_error(error: &RequestError) -> MappingError {
    match (error, system_error(error)) {
        (_, Some(cause)) => MappingError::Network(cause.kind().into()),
        (RequestError::InvalidResponse(_) | RequestError::Utf8Error(_), _) => {
            MappingError::InvalidResponse(error.to_string())
        }
        (RequestError::HyperError(_) | RequestError::HyperClientError(_), _) => {
            MappingError::InvalidResponse("its web server failed".into())
        }
        (RequestError::ErrorCode(code, _), _) => MappingError::refused_with(*code, error.to_string()),
        _ => MappingError::refused(error.to_string()),
    }
}

/// Returns the system error at the bottom of a chain of errors, if any.
fn system_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

/// Returns true if the router may grant permanent mappings only: error 725, or of routers older than that code an invalid
/// argument (402) or just a failure (501).
const fn wants_permanent(error: &AddPortError) -> bool {
    matches!(
        error,
        AddPortError::OnlyPermanentLeasesSupported
            | AddPortError::RequestError(RequestError::ErrorCode(402 | 501, _))
    )
}

/// Returns true for a conflict with another mapping (718) or another mechanism of the router (729); 501 may be either.
const fn is_conflict(error: &AddPortError) -> bool {
    matches!(
        error,
        AddPortError::PortInUse | AddPortError::RequestError(RequestError::ErrorCode(501 | 729, _))
    )
}

/// Maps the error of a request for one port.
fn add_port_error(error: &AddPortError) -> MappingError {
    match (error, error_code(error)) {
        (_, Some(code)) => MappingError::refused_with(code, explain(error)),
        (AddPortError::RequestError(error), None) => request_error(error),
        _ => MappingError::refused(explain(error)),
    }
}

/// Returns UPnP's error code, if the router sent one.
const fn error_code(error: &AddPortError) -> Option<u16> {
    match error {
        AddPortError::ActionNotAuthorized => Some(606),
        AddPortError::PortInUse => Some(718),
        AddPortError::SamePortValuesRequired => Some(724),
        AddPortError::OnlyPermanentLeasesSupported => Some(725),
        AddPortError::RequestError(RequestError::ErrorCode(code, _)) => Some(*code),
        _ => None,
    }
}

fn explain(error: &AddPortError) -> String {
    match error {
        AddPortError::ActionNotAuthorized => {
            "this computer may not open ports (606); allow it in the router's settings".into()
        }
        AddPortError::RequestError(RequestError::ErrorCode(728, _)) => {
            "its table of mappings is full (728); restart it or delete old ones".into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: u16) -> AddPortError {
        AddPortError::RequestError(RequestError::ErrorCode(code, "text".into()))
    }

    fn client() -> Client {
        let options = Options::new(41_641, [192, 168, 1, 2].into(), None, 7);
        Client::new(&options, &Journal::new(&options))
    }

    #[test]
    fn refusal_carries_the_routers_error_code() {
        for (error, expected) in [
            (AddPortError::ActionNotAuthorized, Some(606)),
            (AddPortError::PortInUse, Some(718)),
            (code(728), Some(728)),
            (AddPortError::InternalPortZeroInvalid, None),
        ] {
            assert_eq!(add_port_error(&error).code(), expected, "{error}");
        }
        assert!(add_port_error(&code(728)).summary().contains("table of mappings is full"));
    }

    #[test]
    fn only_some_refusals_lead_to_a_permanent_mapping_or_another_port() {
        assert!(
            [AddPortError::OnlyPermanentLeasesSupported, code(402), code(501)].iter().all(wants_permanent)
        );
        assert!(![AddPortError::PortInUse, code(606)].iter().any(wants_permanent));
        assert!([AddPortError::PortInUse, code(729), code(501)].iter().all(is_conflict));
        assert!(![AddPortError::ActionNotAuthorized, code(728)].iter().any(is_conflict));
    }

    #[test]
    fn alternative_ports_are_unprivileged_and_differ() {
        let mut client = client();
        let ports: Vec<_> = (0..50).map(|_| client.random_port()).collect();
        assert!(ports.iter().all(|port| (10_000..60_000).contains(port)), "{ports:?}");
        assert!(ports.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn permanent_mapping_is_requested_with_lease_zero() {
        let mut client = client();
        assert_eq!((client.lease(), client.lifetime()), (1200, Some(Duration::from_secs(1200))));
        client.permanent = true;
        assert_eq!((client.lease(), client.lifetime()), (0, None));
    }
}
