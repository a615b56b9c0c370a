//! A server in a member's home, behind the same router, which forwards its ports.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, ensure};
use partyline_model::{Badge, ErrorCode, PathKind};

use super::{
    Server, World, connected,
    world::{CONNECT_TIMEOUT, Environment},
};
use crate::{RouterOptions, Site, until, wait::that};

const NAME: &str = "home.party.test";
/// A fixed port outside those that the router forwards to the relay.
const ENVIRONMENT: Environment = &[("PARTYLINE_PORT", "41641")];

/// The router turns packets to its own address around (NAT loopback).
pub(super) fn with_hairpin(world: &World) -> Result<()> {
    play(world, true)
}

/// It does not, and the member at home knows the server's address on the LAN by its name.
pub(super) fn without_hairpin(world: &World) -> Result<()> {
    play(world, false)
}

/// It does not, and the member at home uses the server's public address until she is told why that is not answered.
pub(super) fn unreached(world: &World) -> Result<()> {
    let home = world.lab.site("home", RouterOptions::HOME)?;
    let (server, inside) = start_server(world, &home, false)?;
    let anna = world.member_with(home.host("anna")?, ENVIRONMENT)?;
    anna.create(Some(&server))?;
    let problem = until("anna to be told where the server is", CONNECT_TIMEOUT, || {
        let problem = anna.party()?.servers.first().and_then(|server| server.problem.clone());
        let problem = problem.context("no problem")?;
        that(problem.code == ErrorCode::ServerNoHairpin, || problem.message.clone())?;
        Ok(problem)
    })?;
    ensure!(problem.message.contains(NAME) && problem.hint.contains("split DNS"), "{problem:?}");
    let doctor = anna.partyline(&["doctor"]).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(doctor.contains("own public one"), "doctor does not say it: {doctor}");
    anna.host.namespace().know_names(&BTreeMap::from([(NAME.to_owned(), vec![inside])]))?;
    until("anna to be connected by the address on the LAN", CONNECT_TIMEOUT, || {
        let servers = anna.party()?.servers;
        that(servers.iter().all(|server| server.connected), || format!("{servers:?}"))
    })
}

/// Starts a server in a home whose router forwards its ports. Returns it and its address on the LAN.
fn start_server(world: &World, home: &Site<'_>, hairpin: bool) -> Result<(Server, IpAddr)> {
    let public: IpAddr = home.public_v4().context("no internet")?.into();
    let host = home.host("server")?;
    let inside: IpAddr = host.v4().into();
    forward(home, inside, hairpin)?;
    world.lab.name(NAME, &[public])?;
    let relay = ["--relay-listen", &inside.to_string(), "--relay-external", &public.to_string()];
    let relay = relay.map(str::to_owned).to_vec();
    let server = Server::start_as(NAME.to_owned(), host, world.program("partyline-server"), relay)?;
    Ok((server, inside))
}

fn play(world: &World, hairpin: bool) -> Result<()> {
    let home = world.lab.site("home", RouterOptions::HOME)?;
    let (server, inside) = start_server(world, &home, hairpin)?;
    let anna = home.host("anna")?;
    if !hairpin {
        anna.namespace().know_names(&BTreeMap::from([(NAME.to_owned(), vec![inside])]))?;
    }
    let homes = ["ben", "cora"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let mut members = vec![world.member_with(anna, ENVIRONMENT)?];
    let link = members[0].create(Some(&server))?;
    for host in homes {
        let member = world.member_with(host?, ENVIRONMENT)?;
        member.join(&link)?;
        members.push(member);
    }
    connected(&members)?;
    for (from, to) in [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0)] {
        members[from].wait_for_path(&members[to], PathKind::Direct)?;
    }
    let network = members[0].status()?.network;
    ensure!(network.badge != Some(Badge::Open), "a home behind a router is called open: {network:?}");
    Ok(())
}

/// Forwards the server's ports, from outside alone or from the LAN, too.
fn forward(home: &Site<'_>, server: IpAddr, hairpin: bool) -> Result<()> {
    let public = home.public_v4().context("no internet")?;
    let from = if hairpin { "" } else { r#"iifname "wan0""# };
    let turned = if hairpin {
        format!(r#"iifname "lan0" oifname "lan0" ip daddr {server} masquerade"#)
    } else {
        String::new()
    };
    home.router().nft(&format!(
        r#"table ip forwards {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                {from} ip daddr {public} tcp dport {{ 443, 3478 }} dnat to {server}
                {from} ip daddr {public} udp dport {{ 3478, 3479, 49152-65535 }} dnat to {server}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat - 1;
                {turned}
            }}
        }}
        add rule inet router forward ct status dnat accept"#
    ))
}
