//! Scenarios that cannot connect, and what the members are told.

use std::time::Duration;

use anyhow::Result;

use super::{
    internet::{HOME, Internet, SYMMETRIC},
    meeting::invite,
    watch,
};
use crate::{
    party::{Member, World},
    until,
    wait::that,
};

/// Time limit until the reason is shown.
const TEXT_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn hard_alone(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let (anna, ben) = (internet.member("anna", SYMMETRIC)?, internet.member("ben", SYMMETRIC)?);
    let link = invite(&anna)?;
    ben.ask_to_join(&link)?;
    is_told(&ben, "accept no direct connections")
}

pub(super) fn udp_blocked(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let (anna, home) = (internet.member("anna", HOME)?, world.lab.site("ben", HOME)?);
    watch::block_udp(&home)?;
    let ben = internet.member_at(&home, "ben")?;
    ben.ask_to_join(&invite(&anna)?)?;
    is_told(&ben, "This network blocks UDP")
}

pub(super) fn dht_blocked(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let (anna, home) = (internet.member("anna", HOME)?, world.lab.site("ben", HOME)?);
    watch::block_dht(&home)?;
    let ben = internet.member_at(&home, "ben")?;
    ben.ask_to_join(&invite(&anna)?)?;
    is_told(&ben, "This network blocks the way Partyline finds friends")
}

/// Waits until the status of a member has that text.
fn is_told(member: &Member, text: &str) -> Result<()> {
    until(&format!("{} to be told: {text}", member.name()), TEXT_TIMEOUT, || {
        let said = member.partyline(&["status"])?;
        that(said.contains(text), || said.clone())
    })
}
