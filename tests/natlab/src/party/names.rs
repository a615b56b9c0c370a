//! Servers that move behind their names, and names that cannot be resolved for a while.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use partyline_model::PathKind;

use super::{Member, World, world::CONNECT_TIMEOUT};
use crate::{RouterOptions, until, wait::that};

/// The server's host name.
const NAME: &str = "server.party.test";

/// A relayed pair goes on after the server has moved to another address, and everything that is at its name follows: the
/// connection with the server, the relay, the STUN server.
pub(super) fn server_moves(world: &World) -> Result<()> {
    let host = world.lab.server("server")?;
    let first: IpAddr = host.v4().into();
    world.lab.name(NAME, &[first])?;
    let mut server = world.server_at_name(NAME, host.clone())?;
    let members = relayed_pair(world, &server)?;
    let (second, _) = world.lab.second_addresses(&host)?;
    server.kill()?;
    host.run("ip", &["addr", "del", &format!("{first}/32"), "dev", "wan0"])?;
    server.move_to(second)?;
    world.lab.name(NAME, &[second.into()])?;
    let since = Instant::now();
    all_at(world, &members, second.into(), since)?;
    world.note("moved_back_ms", milliseconds(since));
    // And once more without a notice: the server's connections are dead, and the members have to find out.
    world.lab.name(NAME, &[first])?;
    host.run("ip", &["addr", "add", &format!("{first}/32"), "dev", "wan0"])?;
    host.run("ip", &["addr", "del", &format!("{second}/32"), "dev", "wan0"])?;
    let since = Instant::now();
    server.kill()?;
    server.move_to(host.v4())?;
    all_at(world, &members, first, since)?;
    world.note("silently_moved_back_ms", milliseconds(since));
    Ok(())
}

/// A name that cannot be resolved while the server moves and a member sleeps: everything is back soon after the name is.
pub(super) fn names_come_back(world: &World) -> Result<()> {
    let host = world.lab.server("server")?;
    world.lab.name(NAME, &[host.v4().into()])?;
    let mut server = world.server_at_name(NAME, host.clone())?;
    let (elsewhere, _) = world.lab.second_addresses(&host)?;
    let members = relayed_pair(world, &server)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    world.lab.name(NAME, &[])?;
    ben.sleep()?;
    server.kill()?;
    until("anna to miss the server", CONNECT_TIMEOUT, || {
        that(!is_connected(anna)?, || "connected".to_owned())
    })?;
    ben.wake()?;
    host.run("ip", &["addr", "del", &format!("{}/32", host.v4()), "dev", "wan0"])?;
    server.move_to(elsewhere)?;
    until("anna to say that the name has no address", CONNECT_TIMEOUT, || {
        let party = anna.party()?;
        let problem =
            party.servers.first().and_then(|server| server.problem.as_ref()).context("no problem")?;
        that(problem.message.contains(NAME), || problem.message.clone())
    })?;
    world.lab.name(NAME, &[elsewhere.into()])?;
    let since = Instant::now();
    all_at(world, &members, elsewhere.into(), since)?;
    world.note("names_back_ms", milliseconds(since));
    Ok(())
}

/// Two members in homes of their own that are connected by the server's relay alone.
fn relayed_pair(world: &World, server: &super::Server) -> Result<Vec<Member>> {
    let homes = ["anna", "ben"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let members = world.party(Some(server), homes.into_iter().collect::<Result<_>>()?)?;
    for member in &members {
        member.partyline(&["config", "set", "direct", "off"])?;
    }
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    members[1].wait_for_path(&members[0], PathKind::Relay)?;
    Ok(members)
}

/// Waits until the members reach each other again, and the server and its STUN server at this address. Notes how long
/// each took.
fn all_at(world: &World, members: &[Member], address: IpAddr, since: Instant) -> Result<()> {
    let [anna, ben] = members else { unreachable!("two were asked for") };
    let (a, b) = (anna.address()?, ben.address()?);
    until("the members to reach each other again", CONNECT_TIMEOUT, || {
        anna.ping(b).and_then(|()| ben.ping(a))
    })?;
    world.note("last_ping_ms", milliseconds(since));
    for member in members {
        until(&format!("{} to be back at the server", member.name()), CONNECT_TIMEOUT, || {
            that(is_connected(member)?, || format!("{:?}", member.party().map(|party| party.servers)))
        })?;
        until(&format!("the STUN server to answer {}", member.name()), CONNECT_TIMEOUT, || {
            let servers = member.status()?.network.report.servers;
            let answers = |at: &IpAddr| {
                servers
                    .iter()
                    .any(|server| server.address.ip() == *at && server.reflexive.is_some() && !server.silent)
            };
            ensure!(answers(&address), "{servers:?}");
            Ok(())
        })?;
        member.partyline(&["doctor"])?;
    }
    Ok(())
}

fn is_connected(member: &Member) -> Result<bool> {
    Ok(member.party()?.servers.iter().all(|server| server.connected))
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
