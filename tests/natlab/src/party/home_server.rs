//! A server in a member's home, behind the same router, which forwards its ports.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, ensure};
use partyline_model::{Badge, PathKind};

use super::{Server, World, connected, world::Environment};
use crate::{RouterOptions, Site};

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

fn play(world: &World, hairpin: bool) -> Result<()> {
    let home = world.lab.site("home", RouterOptions::HOME)?;
    let public: IpAddr = home.public_v4().context("no internet")?.into();
    let host = home.host("server")?;
    let inside: IpAddr = host.v4().into();
    forward(&home, inside, hairpin)?;
    world.lab.name(NAME, &[public])?;
    let relay = ["--relay-listen", &inside.to_string(), "--relay-external", &public.to_string()];
    let relay = relay.map(str::to_owned).to_vec();
    let server = Server::start_as(NAME.to_owned(), host, world.program("partyline-server"), relay)?;
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
