//! Networks without IPv4 whose NAT64 reaches IPv4 addresses.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use partyline_model::{Mapping, Method, PathKind};

use super::{Member, Server, World, traffic_check::exchange_traffic, world::CONNECT_TIMEOUT};
use crate::{RouterOptions, Site, nat64, until, wait::that};

/// The host name of a server.
const NAME: &str = "server.party.test";

/// A member behind a NAT64 joins by a server that is an IPv4 literal, its network is measured through the NAT64, and it
/// reaches a member that has IPv4 alone directly.
pub(super) fn direct(world: &World) -> Result<()> {
    let server = server(world)?;
    let (site, members) = pair(world, &server, false)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    is_measured(anna, &site)?;
    for (from, to) in [(anna, ben), (ben, anna)] {
        from.wait_for_path(to, PathKind::Direct)?;
    }
    let public = site.public_v4().context("no internet")?;
    let remote = ben.sees("anna")?.path.context("no path")?.remote.ip();
    ensure!(remote == IpAddr::from(public), "ben reaches anna at {remote}, not at her NAT64's {public}");
    exchange_traffic(anna, ben)
}

/// A member that moves from a network with IPv4 to one with a NAT64 is reached directly there, too.
pub(super) fn appears(world: &World) -> Result<()> {
    let server = server(world)?;
    let hosts = ["anna", "ben"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let members = world.party(Some(&server), hosts.into_iter().collect::<Result<_>>()?)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    ben.wait_for_path(anna, PathKind::Direct)?;
    let site = world.lab.site("mobile", RouterOptions::NAT64)?;
    site.adopt(&anna.host)?;
    let public: IpAddr = site.public_v4().context("no internet")?.into();
    until("ben to reach anna at her NAT64", CONNECT_TIMEOUT, || {
        let path = ben.sees("anna")?.path.context("no path")?;
        that(path.kind == PathKind::Direct && path.remote.ip() == public, || format!("{path:?}"))
    })?;
    is_measured(anna, &site)?;
    exchange_traffic(anna, ben)
}

/// Where UDP between the two is blocked, the relay is reached through the NAT64, at its IPv4 address though the name has
/// one that a DNS64 made up as well.
pub(super) fn relayed(world: &World) -> Result<()> {
    let host = world.lab.server("server")?;
    world.lab.name(NAME, &[host.v4().into(), nat64::synthesize(host.v4()).into()])?;
    let server = world.server_at_name(NAME, host)?;
    let (_site, members) = pair(world, &server, true)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    anna.wait_for_path(ben, PathKind::Relay)?;
    anna.wait_for_method(ben, Method::RelayUdp)?;
    let asked = anna.status()?.network.report.servers;
    ensure!(asked.iter().all(|server| server.address.is_ipv4()), "a made-up address is asked: {asked:?}");
    exchange_traffic(anna, ben)
}

/// A server with IPv4 addresses alone: two, so that it can test filtering.
fn server(world: &World) -> Result<Server> {
    let host = world.lab.server("server")?;
    let (second, _) = world.lab.second_addresses(&host)?;
    let listen = [host.v4(), second].map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
    world.server_on(host, listen.concat())
}

/// Connects anna, who has IPv6 and a NAT64, and ben, who has IPv4 alone.
fn pair<'lab>(world: &'lab World, server: &Server, block: bool) -> Result<(Site<'lab>, Vec<Member>)> {
    let site = world.lab.site("anna", RouterOptions::NAT64)?;
    let hosts = [site.host("anna")?, world.lab.home("ben", RouterOptions::HOME)?];
    if block {
        world.lab.block_udp(&hosts[0], &hosts[1])?;
    }
    Ok((site, world.party(Some(server), hosts.into())?))
}

/// Waits until the network check has seen the NAT64 from the outside.
fn is_measured(member: &Member, site: &Site<'_>) -> Result<()> {
    let public: IpAddr = site.public_v4().context("no internet")?.into();
    until("the network to be measured through the NAT64", CONNECT_TIMEOUT, || {
        let network = member.status()?.network;
        let known = network.nat.public.contains(&public)
            && network.nat.mapping == Some(Mapping::EndpointIndependent)
            && network.nat.filtering.is_some()
            && network.nat.udp_blocked == Some(false);
        that(known, || format!("{:?} {:?}", network.nat, network.report))
    })
}
