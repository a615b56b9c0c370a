//! Scenarios that count what members send to the DHT.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    internet::{HOME, Internet, set},
    meeting::{GAME_PORT, invite, meet},
    watch,
};
use crate::{party::World, until, wait::that};

/// The number of packets to the DHT in a minute that a member at rest may send.
const MAX_PER_MINUTE: u64 = 12;
/// Time for which members at rest are observed.
const OBSERVATION: Duration = Duration::from_secs(60);
/// Time in which a member that is alone would have asked the DHT many times.
const SEARCH: Duration = Duration::from_secs(5);
/// Time limit for a member to come to rest after it has met somebody.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

/// With the DHT off, a member sends nothing to it, and with it on again, it does.
pub(super) fn dht_off(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let (open, home) = (internet.open_member("anna")?, world.lab.site("ben", HOME)?);
    watch::count_dht(&home)?;
    let ben = internet.member_at(&home, "ben")?;
    set(&ben, "dht", &["off"])?;
    meet(&open, &ben, &invite(&open)?, GAME_PORT)?;
    ben.partyline(&["leave"])?;
    ben.create(None)?;
    thread::sleep(SEARCH);
    let sent = watch::counted(&home)?;
    world.note("sent_while_off", sent);
    ensure!(sent == 0, "{sent} packets to the DHT while it is off");
    set(&ben, "dht", &["on"])?;
    until("packets to the DHT once it is on", Duration::from_secs(10), || {
        that(watch::counted(&home)? > 0, || "none".into())
    })
}

/// Two connected homes whose link is used up.
pub(super) fn at_rest(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let sites = [world.lab.site("anna", HOME)?, world.lab.site("ben", HOME)?];
    sites.iter().try_for_each(watch::count_dht)?;
    let (anna, ben) = (internet.member_at(&sites[0], "anna")?, internet.member_at(&sites[1], "ben")?);
    meet(&anna, &ben, &invite(&anna)?, GAME_PORT)?;
    let begun = Instant::now();
    loop {
        let before = [watch::counted(&sites[0])?, watch::counted(&sites[1])?];
        thread::sleep(OBSERVATION);
        let most = sites.iter().zip(before).map(|(site, before)| Ok(watch::counted(site)? - before));
        let most = most.collect::<Result<Vec<u64>>>()?.into_iter().max().context("no homes")?;
        world.note("sent_in_a_minute", most);
        if most <= MAX_PER_MINUTE {
            return Ok(());
        }
        ensure!(begun.elapsed() < REST_TIMEOUT, "{most} packets to the DHT in a minute");
    }
}
