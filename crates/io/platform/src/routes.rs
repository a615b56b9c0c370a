//! What the networks beside the default route are reached by.
//!
//! A VPN that carries everything is the way to the internet: addresses of the internet are not behind it more than behind
//! any other way. One that carries some networks is an overlay for these.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use partyline_model::{CardKind, RouteTarget, is_public};
use tracing::debug;

use crate::{LocalAddress, OwnDevices, is_own_device};

/// More routes than these are a router's; the longest prefixes count.
const MAX_ROUTES: usize = 512;
/// Routes that together cover this share of all addresses are a default route cut into pieces.
const DEFAULT_SHARE: f64 = 1.0 / 16.0;

/// A route, as far as its target matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    network: IpNet,
    interface: u32,
    metric: u32,
    target: RouteTarget,
}

/// Returns the networks that this computer reaches otherwise than by its default route, with what reaches them; the
/// longest prefix counts. What a party's device reaches by itself is left out.
///
/// # Errors
/// If routes or interfaces cannot be read.
pub async fn card_routes(addresses: &[LocalAddress]) -> io::Result<Vec<(IpNet, RouteTarget)>> {
    let own = OwnDevices::read()?;
    let kind = |index: u32| {
        let card = addresses.iter().find(|address| address.index == Some(index));
        card.map_or(CardKind::Physical, |address| address.card)
    };
    let routes = route_manager::AsyncRouteManager::new()?.list().await?;
    let entries = routes.iter().filter_map(|route| {
        let network = IpNet::new(route.destination(), route.prefix()).ok()?;
        let interface = route.if_index()?;
        let party = own.has_index(interface) || route.if_name().is_some_and(|name| is_own_device(name));
        let target = if party { RouteTarget::Party } else { RouteTarget::Card(kind(interface)) };
        let itself = party && (own.contain(network.addr()) || !is_unicast(network.addr()));
        let metric = metric(route);
        (!itself).then_some(Entry { network, interface, metric, target })
    });
    Ok(beside_default(entries.collect()))
}

#[cfg(any(target_os = "windows", target_os = "linux"))]
fn metric(route: &route_manager::Route) -> u32 {
    route.metric().unwrap_or_default()
}

#[cfg(not(any(target_os = "windows", target_os = "linux")))]
fn metric(_route: &route_manager::Route) -> u32 {
    0
}

/// Returns what is left without default routes, whole or in pieces; of equal networks, the one with the lowest metric.
fn beside_default(mut entries: Vec<Entry>) -> Vec<(IpNet, RouteTarget)> {
    entries.retain(|entry| is_unicast(entry.network.addr()) && entry.network.prefix_len() > 0);
    let shares: Vec<bool> = entries.iter().map(|entry| carries_internet(entry, &entries)).collect();
    let mut kept: Vec<Entry> = entries
        .into_iter()
        .zip(shares)
        .filter(|(entry, carries)| !(*carries && is_internet(&entry.network)))
        .map(|(entry, _)| entry)
        .collect();
    kept.sort_by_key(|entry| (std::cmp::Reverse(entry.network.prefix_len()), entry.network, entry.metric));
    kept.dedup_by_key(|entry| entry.network);
    if kept.len() > MAX_ROUTES {
        debug!(count = kept.len(), max = MAX_ROUTES, "too many routes; the shortest prefixes are ignored");
        kept.truncate(MAX_ROUTES);
    }
    // Where everything is reached by ordinary cards, there is nothing to know.
    let ordinary =
        |entry: &Entry| matches!(entry.target, RouteTarget::Card(CardKind::Physical | CardKind::Internal));
    if kept.iter().all(ordinary) {
        return Vec::new();
    }
    kept.into_iter().map(|entry| (entry.network, entry.target)).collect()
}

/// Returns true if the routes by an entry's interface cover so much of its family that they stand for a default route.
fn carries_internet(entry: &Entry, entries: &[Entry]) -> bool {
    let same = |other: &&Entry| {
        other.interface == entry.interface && other.network.addr().is_ipv4() == entry.network.addr().is_ipv4()
    };
    let share: f64 =
        entries.iter().filter(same).map(|other| 0.5_f64.powi(i32::from(other.network.prefix_len()))).sum();
    share >= DEFAULT_SHARE
}

/// Returns false for private and shared networks and link-local ones. The first half of everything begins with the
/// unspecified address.
fn is_internet(network: &IpNet) -> bool {
    let first = network.addr();
    is_public(first) || first.is_unspecified()
}

fn is_unicast(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !address.is_multicast() && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHYSICAL: RouteTarget = RouteTarget::Card(CardKind::Physical);
    const OVERLAY: RouteTarget = RouteTarget::Card(CardKind::Overlay);

    fn entry(network: &str, interface: u32, target: RouteTarget) -> Entry {
        Entry { network: network.parse().unwrap(), interface, metric: 0, target }
    }

    fn networks(entries: Vec<Entry>) -> Vec<(String, RouteTarget)> {
        beside_default(entries).into_iter().map(|(network, target)| (network.to_string(), target)).collect()
    }

    #[test]
    fn without_other_vpns_there_is_nothing_to_know() {
        let list = vec![entry("0.0.0.0/0", 2, PHYSICAL), entry("192.168.1.0/24", 2, PHYSICAL)];
        assert_eq!(networks(list), []);
    }

    #[test]
    fn networks_of_another_vpn_are_behind_it_but_the_card_inside_is_not() {
        let list = vec![entry("10.0.0.0/8", 3, OVERLAY), entry("10.1.2.0/24", 2, PHYSICAL)];
        let expected = [("10.1.2.0/24".to_owned(), PHYSICAL), ("10.0.0.0/8".to_owned(), OVERLAY)];
        assert_eq!(networks(list), expected);
    }

    #[test]
    fn a_vpn_that_carries_everything_is_the_way_to_the_internet() {
        for pieces in [
            &["0.0.0.0/0"][..],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &[
                "0.0.0.0/5",
                "8.0.0.0/7",
                "11.0.0.0/8",
                "12.0.0.0/6",
                "16.0.0.0/4",
                "32.0.0.0/3",
                "173.0.0.0/8",
            ],
            &["2000::/3"],
        ] {
            let mut list: Vec<Entry> = pieces.iter().map(|network| entry(network, 3, OVERLAY)).collect();
            list.push(entry("10.64.0.0/24", 3, OVERLAY));
            assert_eq!(networks(list), [("10.64.0.0/24".to_owned(), OVERLAY)], "{pieces:?}");
        }
    }

    #[test]
    fn what_is_routed_into_a_party_is_told() {
        let list =
            vec![entry("203.0.113.0/24", 9, RouteTarget::Party), entry("224.0.0.0/4", 9, RouteTarget::Party)];
        assert_eq!(networks(list), [("203.0.113.0/24".to_owned(), RouteTarget::Party)]);
    }

    #[test]
    fn of_two_routes_to_one_network_the_lower_metric_counts() {
        let worse = Entry { metric: 100, ..entry("10.9.0.0/16", 2, PHYSICAL) };
        assert_eq!(
            networks(vec![worse, entry("10.9.0.0/16", 3, OVERLAY)]),
            [("10.9.0.0/16".to_owned(), OVERLAY)]
        );
    }
}
