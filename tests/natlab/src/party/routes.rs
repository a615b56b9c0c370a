//! Other VPNs' routes and networks with the party's addresses.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use partyline_model::{ErrorCode, PartyView};

use super::{
    Member, World,
    traffic_check::exchange_traffic,
    world::{CONNECT_TIMEOUT, connected},
};
use crate::{Host, RouterOptions, until, wait::that};

/// What VPN products set instead of a default route.
const SPLIT_ROUTES: [(&str, &[&str]); 5] = [
    ("OpenVPN with redirect-gateway def1", &["0.0.0.0/1", "128.0.0.0/1"]),
    ("quarters", &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"]),
    (
        "eighths",
        &["0.0.0.0/3", "32.0.0.0/3", "64.0.0.0/3", "96.0.0.0/3", "128.0.0.0/3", "160.0.0.0/3", "192.0.0.0/3"],
    ),
    (
        "WireGuard without 192.168.0.0/16",
        &[
            "0.0.0.0/1",
            "128.0.0.0/2",
            "192.0.0.0/9",
            "192.128.0.0/11",
            "192.160.0.0/13",
            "192.169.0.0/16",
            "192.170.0.0/15",
            "192.172.0.0/14",
            "192.176.0.0/12",
            "192.192.0.0/10",
            "193.0.0.0/8",
            "194.0.0.0/7",
            "196.0.0.0/6",
            "200.0.0.0/5",
            "208.0.0.0/4",
        ],
    ),
    ("a company network", &["10.0.0.0/8", "172.16.0.0/12"]),
];

/// Routes of VPNs that are wider than the party's range are no clash, at the start and when they appear.
pub(super) fn vpn_routes(world: &World) -> Result<()> {
    let server = world.server()?;
    let names = ["anna", "ben"];
    let hosts: Vec<Host> =
        names.iter().map(|name| world.lab.home(name, RouterOptions::HOME)).collect::<Result<_>>()?;
    // The creator has all of them before there is a party: a free range is found nevertheless.
    for (_, routes) in SPLIT_ROUTES {
        change_routes(&hosts[0], "replace", routes)?;
    }
    let members = world.party(Some(&server), hosts)?;
    let ben = &members[1];
    for (product, routes) in SPLIT_ROUTES {
        let log = ben.log()?.len();
        change_routes(&ben.host, "replace", routes)?;
        until(&format!("ben to notice the routes of {product}"), CONNECT_TIMEOUT, || {
            that(ben.log()?[log..].contains("the network changed"), || "not noticed".to_owned())
        })?;
        for member in &members {
            let problem = member.party()?.problem;
            ensure!(problem.is_none(), "{} beside {product}: {problem:?}", member.name());
        }
        exchange_traffic(&members[0], ben)?;
        change_routes(&ben.host, "del", routes)?;
    }
    world.note("products", SPLIT_ROUTES.len());
    Ok(())
}

/// A network with the party's range appears while the party is on: its member is told, asks the owner, and all reach each
/// other once the owner has moved the party. The message goes with the network.
pub(super) fn clash_appears(world: &World) -> Result<()> {
    let server = world.server()?;
    let hosts = ["anna", "ben", "cora"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let members = world.party(Some(&server), hosts.into_iter().collect::<Result<_>>()?)?;
    let [anna, ben, _] = &members[..] else { unreachable!("three were asked for") };
    let before = range_of(&anna.party()?)?;
    refused(ben.partyline(&["range", "--ask"]), "nothing to ask for")?;

    enter_network(&ben.host, before)?;
    clashes(ben, before)?;
    ben.partyline(&["range", "--ask"])?;
    until("anna to see what ben asks for", CONNECT_TIMEOUT, || {
        let clash = anna.sees("ben")?.notices.range_clash;
        that(clash.is_some_and(|clash| clash.contains(&before)), || format!("{clash:?}"))
    })?;
    let said = anna.partyline(&["status"])?;
    ensure!(said.contains("ben asks for another address range"), "status does not say it: {said}");

    anna.partyline(&["range"])?;
    let after = range_of(&anna.party()?)?;
    ensure!(!after.contains(&before) && !before.contains(&after), "{after} is no other range than {before}");
    is_well(ben)?;
    connected(&members)?;
    until("ben's request to be over", CONNECT_TIMEOUT, || {
        let clash = anna.sees("ben")?.notices.range_clash;
        that(clash.is_none() && !ben.party()?.range_requested, || format!("{clash:?}"))
    })?;

    enter_network(&ben.host, after)?;
    clashes(ben, after)?;
    ben.host.run("ip", &["link", "del", "other0"])?;
    is_well(ben)?;
    connected(&members)
}

/// Lets the computer reach these networks through its router, as if that were a VPN's.
fn change_routes(host: &Host, verb: &str, routes: &[&str]) -> Result<()> {
    let said = host.run("ip", &["-4", "route", "show", "default"])?;
    let router = said.split_whitespace().nth(2).context("no default route")?;
    let device = said.split_whitespace().nth(4).context("no default route")?;
    for route in routes {
        host.run("ip", &["route", verb, route, "via", router, "dev", device])?;
    }
    Ok(())
}

/// Puts the computer into another network, with a range's last address.
fn enter_network(host: &Host, network: Ipv4Net) -> Result<()> {
    let mine = Ipv4Addr::from_bits(network.broadcast().to_bits() - 1);
    let _ = host.run("ip", &["link", "del", "other0"]);
    host.run("ip", &["link", "add", "other0", "type", "veth", "peer", "name", "other1"])?;
    host.run("ip", &["link", "set", "other1", "up"])?;
    host.run("ip", &["link", "set", "other0", "up"])?;
    host.run("ip", &["addr", "add", &format!("{mine}/{}", network.prefix_len()), "dev", "other0"]).map(drop)
}

fn clashes(member: &Member, range: Ipv4Net) -> Result<()> {
    until(&format!("{} to be told of the clash", member.name()), CONNECT_TIMEOUT, || {
        let problem = member.party()?.problem;
        let told = problem.as_ref().is_some_and(|problem| {
            problem.code == ErrorCode::RangeConflict && problem.message.contains(&range.trunc().to_string())
        });
        that(told, || format!("{problem:?}"))
    })
}

fn is_well(member: &Member) -> Result<()> {
    until(&format!("{} to have no problem", member.name()), CONNECT_TIMEOUT, || {
        let problem = member.party()?.problem;
        that(problem.is_none(), || format!("{problem:?}"))
    })
}

fn range_of(party: &PartyView) -> Result<Ipv4Net> {
    party.range.context("the party has no range")
}

fn refused(result: Result<String>, because: &str) -> Result<()> {
    let said = format!("{:#}", result.err().context("it was not refused")?);
    ensure!(said.to_lowercase().contains(because), "it was refused otherwise: {said}");
    Ok(())
}
