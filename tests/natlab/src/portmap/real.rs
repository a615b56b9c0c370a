//! Tests against a real miniupnpd.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use partyline_portmap::Protocol;

use super::{
    client::Client,
    home::{Daemon, Home},
};
use crate::{Lab, RouterOptions};

const PORT: u16 = 41_641;
const OTHER: u16 = 41_777;
/// Lifetime in seconds. Three renewals take longer than one lease.
const SHORT: u64 = 4;
const LONG: u64 = 600;

pub(super) fn igd1(lab: &Lab) -> Result<String> {
    whole_life(&Home::with(lab, RouterOptions::HOME, Daemon::Igd1)?, Protocol::Upnp)
}

pub(super) fn igd2(lab: &Lab) -> Result<String> {
    whole_life(&Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?, Protocol::Upnp)
}

pub(super) fn pcp(lab: &Lab) -> Result<String> {
    whole_life(&Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?, Protocol::Pcp)
}

/// The router is known by its link-local address only. miniupnpd adds a pinhole at each renewal, and a request to
/// delete removes one of them. The others expire.
pub(super) fn pcp_v6(lab: &Lab) -> Result<String> {
    let home = Home::with(lab, RouterOptions::DUAL_STACK, Daemon::Igd2)?;
    let external = life(&home, Protocol::PcpV6)?;
    home.wait_until_unmapped(PORT)?;
    Ok(format!("{external} obtained, packet arrives, renewed, deleted at stop or run out"))
}

pub(super) fn nat_pmp(lab: &Lab) -> Result<String> {
    whole_life(&Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?, Protocol::NatPmp)
}

pub(super) fn pinhole(lab: &Lab) -> Result<String> {
    whole_life(&Home::with(lab, RouterOptions::DUAL_STACK, Daemon::Igd2)?, Protocol::Pinhole)
}

/// Tests the life of a mapping: obtained, reached, renewed beyond its lease, reached, and deleted at stop.
fn whole_life(home: &Home<'_>, method: Protocol) -> Result<String> {
    let external = life(home, method)?;
    ensure!(!home.maps(PORT)?, "the mapping outlived the stop");
    Ok(format!("{external} obtained, packet arrives, renewed, deleted at stop"))
}

fn life(home: &Home<'_>, method: Protocol) -> Result<SocketAddr> {
    let mut client = Client::start(&home.player, PORT, &[method], SHORT, &home.notes())?;
    let external = client.mapping(method)?.external;
    home.arrives(&home.player, PORT, external)?;
    client.renewals()?;
    home.arrives(&home.player, PORT, external)?;
    client.stop()?;
    Ok(external)
}

pub(super) fn conflict_igd1(lab: &Lab) -> Result<String> {
    conflict(&Home::with(lab, RouterOptions::HOME, Daemon::Igd1)?, Protocol::Upnp)
}

pub(super) fn conflict_igd2(lab: &Lab) -> Result<String> {
    conflict(&Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?, Protocol::Upnp)
}

pub(super) fn conflict_pcp(lab: &Lab) -> Result<String> {
    conflict(&Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?, Protocol::Pcp)
}

/// Tests two clients that want the same port: both are reached on ports of their own.
fn conflict(home: &Home<'_>, method: Protocol) -> Result<String> {
    let neighbour = home.site.host("neighbour")?;
    let mut first = Client::start(&neighbour, PORT, &[method], LONG, &lab_file(home, "neighbour"))?;
    let theirs = first.mapping(method)?.external;
    let mut second = Client::start(&home.player, PORT, &[method], LONG, &home.notes())?;
    let ours = second.mapping(method)?.external;
    ensure!(ours != theirs, "both were given {ours}");
    home.arrives(&neighbour, PORT, theirs)?;
    home.arrives(&home.player, PORT, ours)?;
    second.stop()?;
    home.wait_until_unmapped(ours.port())?;
    home.arrives(&neighbour, PORT, theirs)?;
    first.stop()?;
    ensure!(!home.maps(PORT)?, "a mapping outlived the stop");
    Ok(format!("{theirs} was taken, {ours} obtained, packets arrive at both, deleted"))
}

fn lab_file(home: &Home<'_>, name: &str) -> std::path::PathBuf {
    home.player.directory().join(format!("{name}.json"))
}

/// Tests that a client on another port deletes the mapping of a killed one.
pub(super) fn crash(lab: &Lab) -> Result<String> {
    let home = Home::with(lab, RouterOptions::DUAL_STACK, Daemon::Igd2)?;
    let mut port = PORT;
    for method in [Protocol::Pcp, Protocol::PcpV6, Protocol::NatPmp, Protocol::Upnp, Protocol::Pinhole] {
        let mut client = Client::start(&home.player, port, &[method], LONG, &home.notes())?;
        client.mapping(method)?;
        client.kill()?;
        ensure!(home.maps(port)?, "{method}: no mapping was left by the killed client");
        let successor = port + 1;
        let mut client = Client::start(&home.player, successor, &[method], LONG, &home.notes())?;
        let external = client.mapping(method)?.external;
        home.wait_until_unmapped(port)?;
        home.arrives(&home.player, successor, external)?;
        client.stop()?;
        ensure!(!home.maps(successor)?, "{method}: the mapping outlived the stop");
        port += 10;
    }
    Ok("5 methods: left by kill -9, deleted at the next start".into())
}

/// Tests that every method notices when the router loses its mappings, and restores them.
pub(super) fn reboot(lab: &Lab) -> Result<String> {
    let mut home = Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?;
    let methods = [(Protocol::Upnp, PORT), (Protocol::Pcp, OTHER), (Protocol::NatPmp, OTHER + 1)];
    let mut clients = Vec::new();
    for (method, port) in methods {
        let notes = lab_file(&home, &port.to_string());
        let mut client = Client::start(&home.player, port, &[method], LONG, &notes)?;
        client.mapping(method)?;
        clients.push(client);
    }
    home.power_off()?;
    ensure!(!home.maps(PORT)? && !home.maps(OTHER)?, "the router did not forget");
    home.start(Daemon::Igd2)?;
    for ((method, port), client) in methods.iter().zip(&mut clients) {
        let external = client.mapping(*method)?.external;
        home.arrives(&home.player, *port, external)?;
    }
    clients.into_iter().try_for_each(Client::stop)?;
    Ok("UPnP, PCP and NAT-PMP noticed and have their mappings back".into())
}

/// Tests that a change of the router's external address, which it does not announce, is noticed.
pub(super) fn new_address(lab: &Lab) -> Result<String> {
    let home = Home::with(lab, RouterOptions::HOME, Daemon::Igd2)?;
    let old = home.site.public_v4().map(|ip| ip.to_string()).unwrap_or_default();
    for (port, method) in [(PORT, Protocol::Upnp), (OTHER, Protocol::NatPmp)] {
        let mut client =
            Client::start(&home.player, port, &[method], LONG, &lab_file(&home, &port.to_string()))?;
        client.mapping(method)?;
        home.router().ip(&format!("addr add 11.0.77.7/32 dev wan0\naddr del {old}/32 dev wan0"))?;
        client.wait(&format!("{method} to report the new address"), |said| {
            let reported =
                said.mappings.iter().any(|mapping| mapping.external.ip().to_string() == "11.0.77.7");
            crate::wait::that(reported, || format!("{said:?}"))
        })?;
        client.stop()?;
        home.router().ip(&format!("addr add {old}/32 dev wan0\naddr del 11.0.77.7/32 dev wan0"))?;
    }
    Ok("UPnP and NAT-PMP reported the new address".into())
}
