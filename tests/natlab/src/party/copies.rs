//! A member whose state was copied to another computer: one identity, one place.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use partyline_model::ErrorCode;

use super::{
    Member, World,
    traffic_check::exchange_traffic,
    world::{CONNECT_TIMEOUT, connected},
};
use crate::{Host, RouterOptions, traffic::Flow, until, wait::that};

/// A copy in another home stands back, says so, and becomes a member of its own.
pub(super) fn copied_state(world: &World) -> Result<()> {
    let server = world.server()?;
    let hosts = ["anna", "ben"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let mut members = world.party(Some(&server), hosts.into_iter().collect::<Result<_>>()?)?;
    let flow = Flow::start(&members[0].host, &members[1].host, members[1].address()?.into())?;
    let mut twin = copy(world, &members[1], world.lab.home("twin", RouterOptions::HOME)?)?;
    stands_back(&twin, &members[1])?;
    until("anna to learn of the copy", CONNECT_TIMEOUT, || {
        that(members[0].sees("ben")?.notices.copied, || "no notice".to_owned())
    })?;
    let report = flow.stop()?;
    world.note("longest_gap_ms", u64::try_from(report.longest.as_millis()).unwrap_or(u64::MAX));

    // A restart of the first is none of a copy.
    members[1].crash()?;
    members[1].start()?;
    connected(&members)?;
    ensure!(members[1].party()?.problem.is_none(), "ben takes itself for a copy");

    let [anna, ben] = &mut members[..] else { unreachable!("two were asked for") };
    takes_the_place(anna, ben, &mut twin)?;
    connected(&members)?;
    becomes_a_member(&mut members, twin)
}

/// Once the first is gone, the copy may take its place; whichever returns then is the second.
fn takes_the_place(friend: &Member, first: &mut Member, copy: &mut Member) -> Result<()> {
    let address = first.address()?;
    first.stop()?;
    copy.partyline(&["up"])?;
    until("the copy to answer in the first one's place", CONNECT_TIMEOUT, || friend.ping(address))?;
    first.start()?;
    is_duplicate(first)?;
    copy.stop()?;
    first.partyline(&["up"])?;
    until("the first to answer again", CONNECT_TIMEOUT, || friend.ping(address))?;
    copy.start()?;
    is_duplicate(copy)
}

/// The same on one LAN without a server, where only beacons tell.
pub(super) fn copied_state_on_a_lan(world: &World) -> Result<()> {
    let cabin = world.lab.lonely_lan("cabin")?;
    let mut members = world.party(None, vec![cabin.host("anna")?, cabin.host("ben")?])?;
    let flow = Flow::start(&members[0].host, &members[1].host, members[1].address()?.into())?;
    let twin = copy(world, &members[1], cabin.host("twin")?)?;
    stands_back(&twin, &members[1])?;
    let report = flow.stop()?;
    world.note("longest_gap_ms", u64::try_from(report.longest.as_millis()).unwrap_or(u64::MAX));
    members[1].crash()?;
    members[1].start()?;
    connected(&members)?;
    becomes_a_member(&mut members, twin)
}

/// Starts a member on another computer with a copy of a running member's state.
fn copy(world: &World, of: &Member, host: Host) -> Result<Member> {
    let state = |name: &str| world.lab.directory().join(name).join("state");
    copy_files(&state(of.name()), &state(host.name()))?;
    world.member(host)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Waits until the copy says what it is, and the first that there is one; the first stays as it is.
fn stands_back(copy: &Member, first: &Member) -> Result<()> {
    is_duplicate(copy)?;
    let said = copy.partyline(&["status"])?;
    ensure!(said.contains("partyline identity new"), "status does not say what to do: {said}");
    until(&format!("{} to learn of the copy", first.name()), CONNECT_TIMEOUT, || {
        that(first.sees("ben")?.notices.copied, || "no notice".to_owned())
    })?;
    ensure!(first.party()?.problem.is_none(), "the first has a problem: {:?}", first.party()?.problem);
    let checked = first.partyline(&["doctor"]).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(checked.contains("has a copy of this computer's keys"), "doctor does not say it: {checked}");
    Ok(())
}

fn is_duplicate(member: &Member) -> Result<()> {
    until(&format!("{} to stand back", member.name()), CONNECT_TIMEOUT, || {
        let problem = member.party()?.problem;
        that(problem.as_ref().is_some_and(|problem| problem.code == ErrorCode::DuplicateIdentity), || {
            format!("{problem:?}")
        })
    })
}

/// The copy gets keys of its own, and comes back by an invite.
fn becomes_a_member(members: &mut Vec<Member>, twin: Member) -> Result<()> {
    let said = twin.partyline(&["identity", "new"])?;
    ensure!(said.contains("Friday night"), "it does not say where to ask: {said}");
    let former = twin.status()?.former_parties;
    ensure!(former.len() == 1 && former[0].display_name == "ben", "it remembers {former:?}");
    twin.join(&members[0].invite()?)?;
    ensure!(twin.status()?.former_parties.is_empty(), "the party is still among the former ones");
    members.push(twin);
    connected(members)?;
    let [_, ben, twin] = &members[..] else { return Err(anyhow::anyhow!("three were expected")) };
    ensure!(ben.address().context("ben")? != twin.address().context("twin")?, "both have one address");
    exchange_traffic(ben, twin)
}
