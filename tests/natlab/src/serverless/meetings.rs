//! Scenarios of meetings, and how long they take.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::Result;
use partyline_wire::invite::Invite;

use super::{
    figures::Times,
    internet::{CARRIER, FAR_HOME, HOME, Internet, set},
    meeting::{GAME_PORT, invite, meet, ready_link},
};
use crate::{
    RouterOptions,
    dht::Makeup,
    party::{Member, World},
};

const NAMES: [&str; 8] = ["ben", "cora", "dan", "eve", "fay", "gus", "hal", "ida"];

/// Bars of two homes that find each other by the DHT.
const TWO_HOMES: [(usize, Duration); 2] = [(50, Duration::from_secs(3)), (95, Duration::from_secs(6))];

pub(super) fn two_homes(world: &World, runs: usize) -> Result<()> {
    meet_often(&Internet::new(world)?, runs)?.check(world, &TWO_HOMES)
}

pub(super) fn half_dead(world: &World, runs: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let dead: Vec<Ipv4Addr> = internet.dht.nodes().skip(1).step_by(2).collect();
    internet.dht.silence(&dead)?;
    meet_often(&internet, runs)?.check(world, &[(95, Duration::from_secs(10))])
}

pub(super) fn other_nodes(world: &World, runs: usize) -> Result<()> {
    meet_often(&Internet::of(world, Makeup::USUAL)?, runs)?.check(world, &TWO_HOMES)
}

/// The inviter has a public address, and both have the DHT switched off.
pub(super) fn reachable_inviter(world: &World, runs: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let mut times = Times::default();
    for run in 0..runs {
        let inviter = internet.open_member(&format!("anna{run}"))?;
        let joiner = internet.member(&format!("ben{run}"), FAR_HOME)?;
        for member in [&inviter, &joiner] {
            set(member, "dht", &["off"])?;
        }
        let link = invite(&inviter)?;
        times.add(meet(&inviter, &joiner, &link, GAME_PORT));
    }
    times.check(world, &[(50, Duration::from_millis(300)), (95, Duration::from_millis(300))])
}

pub(super) fn eight_joiners(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let inviter = internet.member("anna", HOME)?;
    all_meet(&internet, &inviter)
}

pub(super) fn eight_at_address(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let inviter = internet.open_member("anna")?;
    all_meet(&internet, &inviter)
}

/// Lets eight homes join at the same moment.
fn all_meet(internet: &Internet<'_>, inviter: &Member) -> Result<()> {
    let joiners: Vec<Member> = NAMES.iter().map(|name| internet.member(name, HOME)).collect::<Result<_>>()?;
    let link = invite(inviter)?;
    let mut times = Times::default();
    thread::scope(|scope| {
        let meetings: Vec<_> = (GAME_PORT..)
            .zip(&joiners)
            .map(|(port, joiner)| (inviter, joiner, &link, port))
            .map(|(inviter, joiner, link, port)| scope.spawn(move || meet(inviter, joiner, link, port)))
            .collect();
        for meeting in meetings {
            let panicked = |_| Err(anyhow::anyhow!("a meeting panicked"));
            times.add(meeting.join().unwrap_or_else(panicked));
        }
    });
    times.check(internet.world, &[(100, Duration::from_secs(12))])
}

/// The routers die once the inviter knows the DHT: first a newcomer has but the nodes in the link, then the inviter
/// itself comes back with nothing but the nodes that it remembers.
pub(super) fn routers_dead(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let mut inviter = internet.member("anna", HOME)?;
    inviter.create(None)?;
    let complete = |invite: &Invite| !invite.addresses.is_empty() && !invite.nodes.is_empty();
    let link = ready_link(&inviter, complete)?;
    internet.dht.silence(internet.dht.router_addresses())?;
    let mut times = Times::default();
    let ben = internet.member("ben", HOME)?;
    times.add(meet(&inviter, &ben, &link, GAME_PORT));
    drop(ben);
    inviter.stop()?;
    inviter.start()?;
    let link = ready_link(&inviter, complete)?;
    times.add(meet(&inviter, &internet.member("cora", HOME)?, &link, GAME_PORT));
    times.check(world, &[(95, Duration::from_secs(10))])
}

pub(super) fn hostile_nodes(world: &World, runs: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let hostile = internet.dht.add_hostile(Makeup::USUAL.libtorrent / 2)?;
    meet_often(&internet, runs)?.check(world, &[(95, Duration::from_secs(10))])?;
    hostile.all_asked()
}

/// Each home has a router behind the NAT of a carrier.
pub(super) fn carrier(world: &World, runs: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let below = |name: String| -> Result<Member> {
        let carrier = world.lab.site(&format!("{name}-carrier"), CARRIER)?;
        internet.member_at(&carrier.site(&format!("{name}-home"), RouterOptions::HOME)?, &name)
    };
    let mut times = Times::default();
    for run in 0..runs {
        let (inviter, joiner) = (below(format!("anna{run}"))?, below(format!("ben{run}"))?);
        let link = invite(&inviter)?;
        times.add(meet(&inviter, &joiner, &link, GAME_PORT));
    }
    times.check(world, &[(95, Duration::from_secs(10))])
}

/// Lets new pairs of homes meet, one after the other. No member knows the DHT before.
fn meet_often(internet: &Internet<'_>, runs: usize) -> Result<Times> {
    let mut times = Times::default();
    for run in 0..runs {
        let inviter = internet.member(&format!("anna{run}"), HOME)?;
        let joiner = internet.member(&format!("ben{run}"), HOME)?;
        let link = invite(&inviter)?;
        times.add(meet(&inviter, &joiner, &link, GAME_PORT));
    }
    Ok(times)
}
