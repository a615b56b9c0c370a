//! Members that are gone for a moment: they leave and join again at once, or their service is killed at any moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use super::{
    Member, World,
    world::{CONNECT_TIMEOUT, pairs},
};
use crate::{Line, RouterOptions, until, wait::that};

/// Half of a round trip between a home and the internet, so that messages of different members overtake each other.
const DISTANCE: Line = Line { latency: Duration::from_millis(5), jitter: Duration::from_millis(2), loss: 0 };
const HOME: RouterOptions = RouterOptions { line: Some(DISTANCE), ..RouterOptions::HOME };
/// How often a member leaves and comes back.
const REJOINS: usize = 6;
/// How often a service is killed, unless `PARTYLINE_KILLS` says otherwise.
const KILLS: usize = 20;
/// A service is killed at a random moment within this span after it was started.
const MOMENTS: Duration = Duration::from_secs(3);

/// A member that leaves and joins again by a new invite at once meets everybody, each time.
pub(super) fn rejoin(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = four_homes(world, &server)?;
    let mut longest = Duration::ZERO;
    for round in 0..REJOINS {
        let who = &members[1 + round % (members.len() - 1)];
        who.partyline(&["leave"])?;
        // With a pause and without: the others have received the leave, or not yet.
        std::thread::sleep(Duration::from_millis(300 * (round as u64 % 3)));
        let invite = members[0].invite()?;
        who.join(&invite)?;
        let since = Instant::now();
        for (from, to) in pairs(&members) {
            meets(from, to).with_context(|| format!("after rejoin {round} of {}", who.name()))?;
        }
        longest = longest.max(since.elapsed());
    }
    world.note("rejoins", REJOINS);
    world.note("longest_ms", u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
    Ok(())
}

/// A service that is killed at random moments is back with everybody each time.
pub(super) fn hard_kills(world: &World) -> Result<()> {
    let kills = std::env::var("PARTYLINE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let server = world.server()?;
    let mut members = four_homes(world, &server)?;
    let addresses: Vec<_> = members.iter().map(Member::address).collect::<Result<_>>()?;
    let mut dice = ChaCha8Rng::seed_from_u64(22);
    let mut waits = Vec::new();
    for kill in 0..kills {
        let who = kill % members.len();
        // The moment of the kill is the thing that is varied.
        let moment = MOMENTS.mul_f64(f64::from(dice.next_u32()) / f64::from(u32::MAX));
        std::thread::sleep(moment);
        members[who].crash()?;
        members[who].start()?;
        let since = Instant::now();
        for (index, other) in members.iter().enumerate().filter(|(index, _)| *index != who) {
            let back = || members[who].ping(addresses[index]).and_then(|()| other.ping(addresses[who]));
            until(&format!("{} to be back after kill {kill}", members[who].name()), CONNECT_TIMEOUT, back)?;
        }
        waits.push(since.elapsed());
        ensure!(members[who].address()? == addresses[who], "kill {kill} changed the address");
    }
    waits.sort();
    let milliseconds = |wait: Option<&Duration>| wait.map_or(0, Duration::as_millis) as u64;
    world.note("kills", kills);
    world.note("back_p50_ms", milliseconds(waits.get(waits.len() / 2)));
    world.note("back_max_ms", milliseconds(waits.last()));
    Ok(())
}

fn four_homes(world: &World, server: &super::Server) -> Result<Vec<Member>> {
    let names = ["anna", "ben", "cora", "dan"];
    let hosts = names.iter().map(|name| world.lab.home(name, HOME)).collect::<Result<_>>()?;
    world.party(Some(server), hosts)
}

/// Waits until one lists the other with an address and has an answer from there.
fn meets(from: &Member, to: &Member) -> Result<()> {
    until(&format!("{} to meet {}", from.name(), to.name()), CONNECT_TIMEOUT, || {
        let seen = from.sees(to.name())?;
        that(seen.path.is_some(), || "no path".to_owned())?;
        from.ping(seen.address.context("no address")?)
    })
}
