//! Servers at the public address of this computer's own network.
//!
//! A server in a home has the home's public address. From inside, that address leads to the router, which most routers
//! keep for themselves (no hairpinning, RFC 4787, section 6): the server is there, and yet does not answer.

use std::{collections::BTreeSet, net::IpAddr};

use partyline_model::{AppError, ErrorCode, is_public};

use crate::{
    connectivity::Connectivity,
    problem::{relay_at_private_address, server_without_hairpin},
    signaling::Signaling,
};

/// Returns whether a server is connected, and what is wrong with it as people should read it.
pub(super) fn server_status(
    signaling: &Signaling,
    connectivity: &Connectivity,
    url: &str,
) -> (bool, Option<AppError>) {
    let (connected, problem) = signaling.server_status(url);
    let named = |problem| {
        name_own_address(problem, url, &signaling.server_addresses(url), &own_addresses(connectivity))
    };
    let private_relay = || {
        let (host, address) = connectivity.private_relay(signaling.server_id(url)?)?;
        Some(relay_at_private_address(url, &host, address))
    };
    (connected, problem.map(named).or_else(private_relay))
}

/// Returns the public IPv4 addresses of this computer's network, except those of the computer itself.
fn own_addresses(connectivity: &Connectivity) -> BTreeSet<IpAddr> {
    let seen = connectivity.nat().public.iter().copied();
    let hosts: BTreeSet<IpAddr> = connectivity.host_addresses().map(|address| address.ip()).collect();
    let all = seen.chain(connectivity.router_address());
    all.filter(|ip| ip.is_ipv4() && is_public(*ip) && !hosts.contains(ip)).collect()
}

/// Replaces the problem of a server that cannot be reached, if that is because of where it is.
fn name_own_address(problem: AppError, url: &str, server: &[IpAddr], own: &BTreeSet<IpAddr>) -> AppError {
    let unreachable = problem.code == ErrorCode::ServerUnreachable;
    if unreachable && server.iter().any(|ip| own.contains(ip)) {
        server_without_hairpin(url)
    } else {
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "wss://party.example";

    fn problem(code: ErrorCode) -> AppError {
        AppError::new(code, "It did not answer.", "Wait.")
    }

    fn named(code: ErrorCode, server: [u8; 4]) -> AppError {
        let own = BTreeSet::from([IpAddr::from([198, 51, 100, 1])]);
        name_own_address(problem(code), URL, &[server.into()], &own)
    }

    #[test]
    fn silent_server_at_the_own_public_address_is_said_to_lack_hairpinning() {
        let said = named(ErrorCode::ServerUnreachable, [198, 51, 100, 1]);
        assert_eq!(said.code, ErrorCode::ServerNoHairpin);
        assert!(said.message.contains(URL) && said.hint.contains("LAN"), "{said:?}");
    }

    #[test]
    fn other_problems_and_other_addresses_stay_as_they_are() {
        let elsewhere = named(ErrorCode::ServerUnreachable, [198, 51, 100, 2]);
        assert_eq!(elsewhere, problem(ErrorCode::ServerUnreachable));
        let portal = named(ErrorCode::CaptivePortal, [198, 51, 100, 1]);
        assert_eq!(portal, problem(ErrorCode::CaptivePortal));
    }
}
