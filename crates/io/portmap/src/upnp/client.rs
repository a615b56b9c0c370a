//! One mapping by UPnP.

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
use tokio::time::timeout;

use super::{Router, Source, discover, soap};
use crate::{
    MappingRecord, Options, Protocol,
    backoff::Backoff,
    keeper::network,
    notebook::Notebook,
    problem::{Grant, Look, Problem},
};

const DESCRIPTION: &str = "Partyline";
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(4);
/// The longest lease that version 2 knows.
const WEEK: u32 = 604_800;
/// Ports tried after the wanted one, where the router does not choose.
const OTHER_PORTS: usize = 4;

pub(crate) struct Client {
    options: Options,
    notebook: Notebook,
    router: Option<Router>,
    ports: Backoff,
    port: u16,
    /// The router knows no leases.
    permanent: bool,
    standing: Option<MappingRecord>,
    external: Option<IpAddr>,
}

/// What came of asking for one port.
enum Asked {
    Granted(Option<Duration>),
    Taken(String),
}

impl Client {
    pub(crate) fn new(options: &Options, notebook: &Notebook) -> Self {
        Self {
            options: options.clone(),
            notebook: notebook.clone(),
            router: None,
            ports: Backoff::new(options.seed),
            port: options.internal_port,
            permanent: false,
            standing: None,
            external: None,
        }
    }

    /// Asks the router known from before, else searches; of several, the first that grants.
    pub(crate) async fn map(&mut self) -> Result<Grant, Problem> {
        if let Some(router) = self.router.take()
            && let Ok(grant) = self.map_on(router).await
        {
            return Ok(grant);
        }
        let mut last = Problem::Silent;
        for router in self.search().await {
            match self.map_on(router).await {
                Ok(grant) => return Ok(grant),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// Whether the router's address is the same and it still leads the port to us. Many routers cannot tell the
    /// latter; then the former has to do.
    pub(crate) async fn look(&mut self) -> Result<Look, Problem> {
        let Some(router) = self.router.clone() else { return Ok(Look::Changed) };
        if self.external != Some(external_ip(&router).await?) {
            return Ok(Look::Changed);
        }
        match self.leads_to(&router, self.standing.as_ref().map_or(self.port, |record| record.number)).await {
            Ok(Some(ip)) if IpAddr::V4(ip) == router.local => Ok(Look::Stands),
            Ok(Some(_)) => {
                // Somebody else has taken it.
                self.port = self.ports.next_port();
                Ok(Look::Changed)
            }
            Ok(None) => Ok(Look::Changed),
            Err(soap::Failure::Code(_)) => Ok(Look::Stands),
            Err(soap::Failure::Other(what)) => Err(Problem::Nonsense(what)),
        }
    }

    pub(crate) async fn forget(&mut self, record: &MappingRecord) -> Result<(), Problem> {
        if self.router.is_none() {
            self.router = self.search().await.into_iter().next();
        }
        let router = self.router.clone().ok_or(Problem::Silent)?;
        if self.standing.as_ref() != Some(record) && self.is_anothers(&router, record).await {
            return Ok(());
        }
        let deleting = router.gateway.remove_port(PortMappingProtocol::UDP, record.number);
        match timeout(REQUEST, deleting).await {
            Ok(Ok(()) | Err(RemovePortError::NoSuchPortMapping)) => Ok(()),
            Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
            Err(_) => Err(Problem::Silent),
        }
    }

    pub(crate) fn standing(&self) -> Option<MappingRecord> {
        self.standing.clone()
    }

    async fn search(&self) -> Vec<Router> {
        let Options { local_ip, gateway, other_ips, .. } = &self.options;
        let others = other_ips.iter().map(|local| Source::V4 { local: *local, gateway: None });
        let sources: Vec<_> =
            [Source::V4 { local: *local_ip, gateway: *gateway }].into_iter().chain(others).collect();
        discover(&sources, gateway.map(IpAddr::V4), false).await
    }

    async fn map_on(&mut self, router: Router) -> Result<Grant, Problem> {
        let ip = external_ip(&router).await?;
        let mut ports: VecDeque<u16> = [self.port].into();
        if !router.chooses_ports() {
            ports.extend((0..OTHER_PORTS).map(|_| self.ports.next_port()));
        }
        // Kept now, so that an attempt that is cut short can be undone.
        self.router = Some(router.clone());
        let mut why = String::new();
        while let Some(port) = ports.pop_front() {
            match self.ask(&router, port).await? {
                Asked::Granted(lifetime) => return Ok(self.granted(ip, port, lifetime)),
                Asked::Taken(reason) => why = reason,
            }
        }
        if router.chooses_ports() {
            return self.ask_any(&router, ip).await;
        }
        Err(Problem::Refused(why))
    }

    fn granted(&mut self, ip: IpAddr, port: u16, lifetime: Option<Duration>) -> Grant {
        (self.port, self.external) = (port, Some(ip));
        Grant { external: SocketAddr::new(ip, port), lifetime }
    }

    /// Asks for one port, in the ways that its refusals suggest.
    async fn ask(&mut self, router: &Router, port: u16) -> Result<Asked, Problem> {
        self.note(router, port).await;
        let mut outcome = self.add(router, port).await;
        if !self.permanent && outcome.as_ref().is_err_and(wants_permanent) {
            self.permanent = true;
            outcome = self.add(router, port).await;
            // If leases were not the trouble, they are still the better choice.
            self.permanent = outcome.is_ok();
        }
        if let Err(AddPortError::RequestError(RequestError::ErrorCode(code @ (726 | 727), _))) = outcome {
            return self.ask_wildcard(router, port, code).await;
        }
        match outcome {
            Ok(()) => Ok(Asked::Granted(self.lifetime())),
            Err(error) => {
                self.give_up_note().await;
                if is_conflict(&error) { Ok(Asked::Taken(explain(&error))) } else { Err(problem(&error)) }
            }
        }
    }

    async fn add(&self, router: &Router, port: u16) -> Result<(), AddPortError> {
        let inside = self.inside(router);
        let adding =
            router.gateway.add_port(PortMappingProtocol::UDP, port, inside, self.lease(), DESCRIPTION);
        timeout(REQUEST, adding).await.unwrap_or_else(|_| {
            Err(AddPortError::RequestError(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        })
    }

    /// The router wants every remote host (726: spelled out, since we always mean that) or every outside port (727);
    /// then each packet to a port that leads nowhere else comes to us under its own number.
    async fn ask_wildcard(&mut self, router: &Router, port: u16, code: u16) -> Result<Asked, Problem> {
        let (host, number) = if code == 726 { ("0.0.0.0", port) } else { ("", 0) };
        self.note(router, number).await;
        let inside = self.inside(router);
        let arguments = [
            ("NewRemoteHost", host.to_owned()),
            ("NewExternalPort", number.to_string()),
            ("NewProtocol", "UDP".to_owned()),
            ("NewInternalPort", inside.port().to_string()),
            ("NewInternalClient", inside.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", DESCRIPTION.to_owned()),
            ("NewLeaseDuration", self.lease().to_string()),
        ];
        match timeout(REQUEST, soap::call(&router.gateway, "AddPortMapping", &arguments)).await {
            Ok(Ok(_)) => Ok(Asked::Granted(self.lifetime())),
            Ok(Err(soap::Failure::Code(code))) => {
                self.give_up_note().await;
                Err(Problem::Refused(format!("error {code} with wildcards")))
            }
            Ok(Err(soap::Failure::Other(what))) => Err(Problem::Nonsense(what)),
            Err(_) => Err(Problem::Silent),
        }
    }

    async fn ask_any(&mut self, router: &Router, ip: IpAddr) -> Result<Grant, Problem> {
        let inside = self.inside(router);
        let adding = router.gateway.add_any_port(PortMappingProtocol::UDP, inside, self.lease(), DESCRIPTION);
        match timeout(REQUEST, adding).await {
            Ok(Ok(port)) => {
                self.note(router, port).await;
                Ok(self.granted(ip, port, self.lifetime()))
            }
            Ok(Err(AddAnyPortError::RequestError(error))) => Err(failed(&error)),
            Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
            Err(_) => Err(Problem::Silent),
        }
    }

    /// Notes what is about to be asked for instead of what was asked for before.
    async fn note(&mut self, router: &Router, number: u16) {
        let record = MappingRecord {
            method: Protocol::Upnp,
            network: network(Protocol::Upnp, &self.options),
            internal: self.inside(router),
            number,
            nonce: [0; 3],
        };
        if self.standing.as_ref() != Some(&record) {
            self.notebook.add(&record).await;
            self.give_up_note().await;
            self.standing = Some(record);
        }
    }

    async fn give_up_note(&mut self) {
        if let Some(record) = self.standing.take() {
            self.notebook.strike(&record).await;
        }
    }

    /// Whom the router leads a port to; `None`: nobody.
    async fn leads_to(&self, router: &Router, port: u16) -> Result<Option<Ipv4Addr>, soap::Failure> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", port.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        let asking = soap::call(&router.gateway, "GetSpecificPortMappingEntry", &arguments);
        match timeout(REQUEST, asking).await {
            Ok(Ok(values)) => values
                .get("NewInternalClient")
                .and_then(|text| text.trim().parse().ok())
                .map(Some)
                .ok_or_else(|| soap::Failure::Other("a mapping to nowhere".into())),
            Ok(Err(soap::Failure::Code(714))) => Ok(None),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(soap::Failure::Other("no answer".into())),
        }
    }

    /// Whether a port that an earlier run had leads to somebody else by now.
    async fn is_anothers(&self, router: &Router, record: &MappingRecord) -> bool {
        let leads_to = self.leads_to(router, record.number).await;
        leads_to.is_ok_and(|ip| ip.is_none_or(|ip| IpAddr::V4(ip) != record.internal.ip()))
    }

    fn lease(&self) -> u32 {
        if self.permanent { 0 } else { self.options.lease().min(WEEK) }
    }

    fn lifetime(&self) -> Option<Duration> {
        (!self.permanent).then(|| Duration::from_secs(self.lease().into()))
    }

    fn inside(&self, router: &Router) -> SocketAddr {
        SocketAddr::new(router.local, self.options.internal_port)
    }
}

async fn external_ip(router: &Router) -> Result<IpAddr, Problem> {
    match timeout(REQUEST, router.gateway.get_external_ip()).await {
        Ok(Ok(ip)) => Ok(ip),
        Ok(Err(GetExternalIpError::RequestError(error))) => Err(failed(&error)),
        Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
        Err(_) => Err(Problem::Silent),
    }
}

/// A request that came to nothing.
fn failed(error: &RequestError) -> Problem {
    match (error, system_error(error)) {
        (_, Some(cause)) => Problem::Network(cause.kind().into()),
        (RequestError::InvalidResponse(_) | RequestError::Utf8Error(_), _) => {
            Problem::Nonsense(error.to_string())
        }
        (RequestError::HyperError(_) | RequestError::HyperClientError(_), _) => {
            Problem::Nonsense("its web server failed".into())
        }
        _ => Problem::Refused(error.to_string()),
    }
}

/// The system's word, below those of the layers above it.
fn system_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

/// 725 says it; routers older than that code call the lease an invalid argument (402) or just fail (501).
const fn wants_permanent(error: &AddPortError) -> bool {
    matches!(
        error,
        AddPortError::OnlyPermanentLeasesSupported
            | AddPortError::RequestError(RequestError::ErrorCode(402 | 501, _))
    )
}

/// 718 is a conflict with another's mapping, 729 with another mechanism of the router; 501 may be either.
const fn is_conflict(error: &AddPortError) -> bool {
    matches!(
        error,
        AddPortError::PortInUse | AddPortError::RequestError(RequestError::ErrorCode(501 | 729, _))
    )
}

fn problem(error: &AddPortError) -> Problem {
    match error {
        AddPortError::RequestError(RequestError::ErrorCode(..)) => Problem::Refused(explain(error)),
        AddPortError::RequestError(error) => failed(error),
        _ => Problem::Refused(explain(error)),
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
