//! Turns the responses to a search into routers that can be asked.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use igd_next::aio::{Gateway, tokio::Tokio};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    description::{Service, fetch},
    ssdp::{SEARCH_TIME, SearchResponse, Source, search},
};

/// The time to wait for further routers after the first one, as the default gateway is preferred.
const GRACE_PERIOD: Duration = Duration::from_secs(1);
const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
/// The most routers that are tried.
const MAX_ROUTERS: usize = 4;

/// A router that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) gateway: Gateway<Tokio>,
    /// This computer's address on the router's network.
    pub(crate) local: IpAddr,
}

impl Router {
    /// Returns true if the router can choose a free port itself.
    pub(crate) fn chooses_ports(&self) -> bool {
        self.gateway.control_schema.contains_key("AddAnyPortMapping")
    }

    fn new(response: &SearchResponse, service: &Service) -> Self {
        let control_url = service.control.to_string();
        let firewall = (service.kind == FIREWALL).then(|| control_url.clone());
        let gateway = Gateway {
            addr: response.address,
            root_url: response.location.path().to_owned(),
            control_url,
            control_schema_url: String::new(),
            control_schema: arguments(&service.kind),
            service_type: service.kind.clone(),
            ipv6_firewall_control_url: firewall,
            provider: Tokio,
        };
        Self { gateway, local: response.local }
    }
}

/// Searches from all sources at once. Returns the routers that describe a suitable service, the preferred one first.
/// Returns early once that one is found; a router that sends its description slowly delays no other.
pub(crate) async fn discover(sources: &[Source], preferred: Option<IpAddr>, firewall: bool) -> Vec<Router> {
    let (sender, mut responses) = mpsc::channel(16);
    let mut searches = JoinSet::new();
    sources.iter().for_each(|source| drop(searches.spawn(search(*source, sender.clone()))));
    drop(sender);
    let mut fetches = JoinSet::new();
    let mut routers: Vec<Router> = Vec::new();
    let mut end = Instant::now() + SEARCH_TIME;
    loop {
        tokio::select! {
            Some(response) = responses.recv() => {
                fetches.spawn(async move {
                    let services = fetch(response.address, &response.location).await;
                    (response, services)
                });
            }
            Some(Ok((response, services))) = fetches.join_next() => {
                let Ok(services) = services.inspect_err(|error| {
                    debug!(router = %response.address, reason = %error.summary(), "router ignored");
                }) else { continue };
                let suitable = services.iter().filter(|service| (service.kind == FIREWALL) == firewall);
                routers.extend(suitable.map(|service| Router::new(&response, service)));
                if !routers.is_empty() {
                    end = end.min(Instant::now() + GRACE_PERIOD);
                }
                if routers.iter().any(|router| Some(router.gateway.addr.ip()) == preferred) {
                    break;
                }
            }
            () = sleep_until(end) => break,
            else => break,
        }
    }
    routers.sort_by_key(|router| Some(router.gateway.addr.ip()) != preferred);
    routers.truncate(MAX_ROUTERS);
    debug!(count = routers.len(), firewall, "search for routers ended");
    routers
}

/// Returns the arguments of the actions, in the standard's order.
fn arguments(service: &str) -> HashMap<String, Vec<String>> {
    let mapping = [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut actions = HashMap::from([
        ("AddPortMapping".to_owned(), owned(&mapping)),
        ("DeletePortMapping".to_owned(), owned(&mapping[..3])),
    ]);
    if service.ends_with("WANIPConnection:2") {
        actions.insert("AddAnyPortMapping".to_owned(), owned(&mapping));
    }
    actions
}
