//! From a search to routers that can be asked.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use igd_next::aio::{Gateway, tokio::Tokio};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    description::{Service, fetch},
    ssdp::{Answer, SEARCH, Source, search},
};

/// After the first router, others may still answer, and the default gateway is worth waiting for.
const GRACE: Duration = Duration::from_secs(1);
const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
/// Routers that are tried.
const ROUTERS: usize = 4;

/// A router that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) gateway: Gateway<Tokio>,
    /// Our address on its network.
    pub(crate) local: IpAddr,
}

impl Router {
    /// Whether it chooses a free port itself when asked.
    pub(crate) fn chooses_ports(&self) -> bool {
        self.gateway.control_schema.contains_key("AddAnyPortMapping")
    }

    fn new(answer: &Answer, service: &Service) -> Self {
        let control_url = service.control.to_string();
        let firewall = (service.kind == FIREWALL).then(|| control_url.clone());
        let gateway = Gateway {
            addr: answer.address,
            root_url: answer.location.path().to_owned(),
            control_url,
            control_schema_url: String::new(),
            control_schema: arguments(&service.kind),
            service_type: service.kind.clone(),
            ipv6_firewall_control_url: firewall,
            provider: Tokio,
        };
        Self { gateway, local: answer.local }
    }
}

/// Searches everywhere at once. Gives the routers that describe a service we use, the preferred one first. Ends early
/// once that one is found; a router that dribbles its description out delays no other.
pub(crate) async fn discover(sources: &[Source], preferred: Option<IpAddr>, firewall: bool) -> Vec<Router> {
    let (answers, mut heard) = mpsc::channel(16);
    let mut searches = JoinSet::new();
    sources.iter().for_each(|source| drop(searches.spawn(search(*source, answers.clone()))));
    drop(answers);
    let mut fetches = JoinSet::new();
    let mut routers: Vec<Router> = Vec::new();
    let mut end = Instant::now() + SEARCH;
    loop {
        tokio::select! {
            Some(answer) = heard.recv() => {
                fetches.spawn(async move {
                    let services = fetch(answer.address, &answer.location).await;
                    (answer, services)
                });
            }
            Some(Ok((answer, services))) = fetches.join_next() => {
                let Ok(services) = services.inspect_err(|problem| tracing::debug!(%problem, from = %answer.address, "no router"))
                else { continue };
                let fit = services.iter().filter(|service| (service.kind == FIREWALL) == firewall);
                routers.extend(fit.map(|service| Router::new(&answer, service)));
                if !routers.is_empty() {
                    end = end.min(Instant::now() + GRACE);
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
    routers.truncate(ROUTERS);
    routers
}

/// The arguments of the actions, in the standard's order.
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
