//! A joiner meets the inviter.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use partyline_model::{Command, Snapshot};
use partyline_wire::invite::Invite;

use crate::{
    party::{Member, Remote},
    stream::Stream,
    until,
};

/// Time limit for a meeting. Bars are shorter.
const LIMIT: Duration = Duration::from_secs(45);
/// Time limit until a link has everything that it can have.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval between two datagrams of the game.
const PACE: Duration = Duration::from_millis(10);
/// The port of the game in meetings that do not share a computer with others.
pub(super) const GAME_PORT: u16 = 27_015;

/// Creates a party without a server, and returns its link once it has the inviter's address.
pub(super) fn invite(inviter: &Member) -> Result<String> {
    inviter.create(None)?;
    ready_link(inviter, |invite| !invite.addresses.is_empty())
}

/// Returns a link that is as wanted, as soon as the inviter can make one. People take longer to send it.
pub(super) fn ready_link(inviter: &Member, wanted: impl Fn(&Invite) -> bool) -> Result<String> {
    until("the link to be complete", READY_TIMEOUT, || {
        let link = inviter.invite()?;
        let invite = Invite::find(&link).map_err(|error| anyhow!("{error}"))?;
        if wanted(&invite) {
            return Ok(link);
        }
        for open in inviter.party()?.invites {
            inviter.partyline(&["revoke", &open.id.to_string()])?;
        }
        bail!("addresses {:?}, nodes {:?}", invite.addresses, invite.nodes)
    })
}

/// Lets the joiner use the link, and returns the time until the first packets have arrived in both directions.
pub(super) fn meet(inviter: &Member, joiner: &Member, link: &str, port: u16) -> Result<Duration> {
    let (remote, there) = (joiner.remote()?, inviter.address()?);
    let begun = Instant::now();
    remote.request(Command::Join { link: link.to_owned(), display_name: joiner.name().to_owned() })?;
    let out = Stream::start(&joiner.host, &inviter.host, (there, port).into(), PACE)?;
    let what = format!("{} to reach {}", joiner.name(), inviter.name());
    let own = until(&what, LIMIT, || own_address(&remote))?;
    let back = Stream::start(&inviter.host, &joiner.host, (own, port).into(), PACE)?;
    let arrived = until(&what, LIMIT, || match (out.first(), back.first()) {
        (Some(first), Some(second)) => Ok(first.max(second)),
        (first, second) => bail!("there {}, back {}", first.is_some(), second.is_some()),
    });
    let arrived = arrived.with_context(|| {
        let seen = inviter.sees(joiner.name()).map(|seen| (seen.online, seen.path));
        format!("{} sees {seen:?}", inviter.name())
    })?;
    Ok(arrived - begun)
}

fn own_address(remote: &Remote) -> Result<Ipv4Addr> {
    let snapshot: &Snapshot = &*remote.snapshot()?;
    let party = snapshot.parties.first().context("in no party")?;
    let me = party.members.iter().find(|member| member.me);
    me.and_then(|me| me.address)
        .with_context(|| format!("no address: {:?}, {:?}", party.phase, party.problem))
}
