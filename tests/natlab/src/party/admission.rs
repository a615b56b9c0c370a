//! Who gets into a party, and who stays outside: devices that join by one link, links that have ended, and approval.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use partyline_model::{ErrorCode, JoinWait, PartyPhase};

use super::{
    Member, World,
    traffic_check::exchange_traffic,
    world::{CONNECT_TIMEOUT, connected, gone_from, homes},
};
use crate::{RouterOptions, traffic::Flow, until, wait::that};

/// Lets somebody join with two devices by one link. The owner removes the one device with all that joined by its link, and
/// ends all links; the other device is out as well, and no third one gets in by a link that was open until then.
pub(super) fn kicked_second_device(world: &World) -> Result<()> {
    let server = world.server()?;
    let mut members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let link = members[0].invite_with(&["--uses", "2"])?;
    let other_link = members[0].invite()?;
    for name in ["mallory", "laptop"] {
        let device = newcomer(world, name)?;
        device.join(&link)?;
        members.push(device);
    }
    connected(&members)?;
    let [anna, ben, mallory, laptop] = &members[..] else { anyhow::bail!("four members") };
    let friends = Flow::start(&anna.host, &ben.host, ben.address()?.into())?;
    let addresses = [anna.address()?, ben.address()?];
    anna.partyline(&["kick", "mallory", "--same-link", "--end-links"])?;
    for device in [mallory, laptop] {
        gone_from(anna, device.name())?;
        gone_from(ben, device.name())?;
        reaches_nobody(device, &addresses)?;
        is_told(device, ErrorCode::Removed)?;
    }
    let phone = newcomer(world, "phone")?;
    phone.ask_to_join(&other_link)?;
    // A friend that asks later, by a link that was made since, gets in first.
    let cora = newcomer(world, "cora")?;
    cora.join(&anna.invite()?)?;
    let mut members: Vec<_> = members.drain(..2).collect();
    members.push(cora);
    connected(&members)?;
    is_outside(&phone, &members)?;
    friends.stop()?;
    exchange_traffic(&members[0], &members[1])
}

/// Lets two devices ask to join by a link that is for one. The second one is told so, then tries a link that was revoked,
/// and gets in by a third one.
pub(super) fn used_up_link(world: &World) -> Result<()> {
    let server = world.server()?;
    let mut members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let link = members[0].invite_with(&["--uses", "1"])?;
    let cora = newcomer(world, "cora")?;
    cora.join(&link)?;
    members.push(cora);
    connected(&members)?;
    let dan = newcomer(world, "dan")?;
    is_refused(&dan, &link, "as many have joined by it")?;
    is_told(&dan, ErrorCode::InviteUsedUp)?;
    is_outside(&dan, &members)?;
    let revoked = revoked_link(&members[0])?;
    is_refused(&dan, &revoked, "revoked")?;
    is_told(&dan, ErrorCode::InviteRevoked)?;
    is_outside(&dan, &members)?;
    dan.join(&members[0].invite()?)?;
    members.push(dan);
    connected(&members)
}

/// Lets two devices ask to join a party whose owner approves every joiner. One is let in, the other one is declined.
pub(super) fn approval(world: &World) -> Result<()> {
    let server = world.server()?;
    let mut members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    members[0].partyline(&["approval", "on"])?;
    until("ben to learn that joiners need approval", CONNECT_TIMEOUT, || {
        that(members[1].party()?.approval, || "not yet".to_owned())
    })?;
    let link = members[0].invite()?;
    let [cora, dan] = [newcomer(world, "cora")?, newcomer(world, "dan")?];
    for joiner in [&cora, &dan] {
        joiner.ask_to_join(&link)?;
        waits_for_approval(&members[0], joiner)?;
        is_outside(joiner, &members)?;
    }
    members[0].partyline(&["decline", "dan"])?;
    is_told(&dan, ErrorCode::NotApproved)?;
    let said = dan.partyline(&["status"])?;
    ensure!(said.contains("the owner declined"), "status does not say it: {said}");
    members[0].partyline(&["approve", "cora"])?;
    members.push(cora);
    connected(&members)?;
    is_outside(&dan, &members)?;
    exchange_traffic(&members[1], &members[2])
}

/// Starts a member in a home of its own that is in no party yet.
fn newcomer(world: &World, name: &str) -> Result<Member> {
    world.member(world.lab.home(name, RouterOptions::HOME)?)
}

/// Makes an invite, revokes it, and returns its link.
fn revoked_link(owner: &Member) -> Result<String> {
    let before = owner.party()?.invites;
    let link = owner.invite()?;
    let made = owner.party()?.invites.into_iter().find(|invite| before.iter().all(|old| old.id != invite.id));
    owner.partyline(&["revoke", &made.context("the invite is not listed")?.id.short()])?;
    Ok(link)
}

/// Checks that `partyline join` fails, and says why.
fn is_refused(joiner: &Member, link: &str, reason: &str) -> Result<()> {
    let error = joiner.join(link).err().with_context(|| format!("{} was let in", joiner.name()))?;
    let said = format!("{error:#}");
    ensure!(said.contains(reason), "join does not say {reason:?}: {said}");
    Ok(())
}

/// Waits until the owner is asked to let the joiner in, and the joiner knows what it waits for.
fn waits_for_approval(owner: &Member, joiner: &Member) -> Result<()> {
    let name = joiner.name();
    until(&format!("{name} to wait for approval"), CONNECT_TIMEOUT, || {
        let (asking, waits_for) = (owner.party()?.join_requests, joiner.party()?.waits_for);
        let asked = asking.iter().any(|request| request.name == name && !request.declined);
        that(asked && waits_for == Some(JoinWait::Approval), || format!("{asking:?}, {waits_for:?}"))
    })?;
    let said = owner.partyline(&["status"])?;
    ensure!(said.contains("to join") && said.contains(name), "the owner's status does not say it: {said}");
    Ok(())
}

/// Waits until the problem of the member's party is this one.
fn is_told(member: &Member, code: ErrorCode) -> Result<()> {
    until(&format!("{} to be told {code:?}", member.name()), CONNECT_TIMEOUT, || {
        let problem = member.party()?.problem;
        that(problem.as_ref().is_some_and(|problem| problem.code == code), || format!("{problem:?}"))
    })
}

/// Waits until none of the addresses answers.
fn reaches_nobody(from: &Member, addresses: &[Ipv4Addr]) -> Result<()> {
    addresses.iter().try_for_each(|address| {
        until(&format!("{} to lose access", from.name()), CONNECT_TIMEOUT, || {
            that(from.ping(*address).is_err(), || format!("{address} still answers"))
        })
    })
}

/// Checks that no member lists the joiner, and that the joiner knows no member and reaches no owner.
fn is_outside(joiner: &Member, members: &[Member]) -> Result<()> {
    let party = joiner.party()?;
    ensure!(party.phase != PartyPhase::Up, "{} is in the party", joiner.name());
    ensure!(party.members.iter().all(|member| member.me), "it knows members: {:?}", party.members);
    for member in members {
        let listed = member.party()?.members;
        ensure!(listed.iter().all(|other| other.name != joiner.name()), "{} lists it", member.name());
    }
    let owner = members.first().context("a party without members")?.address()?;
    ensure!(joiner.ping(owner).is_err(), "{} reaches {owner}", joiner.name());
    Ok(())
}
