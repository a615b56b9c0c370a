//! Scenarios in which a third member makes the difference.

use std::time::Duration;

use anyhow::Result;
use partyline_model::PathKind;

use super::{
    figures::Times,
    internet::{HOME, Internet, SYMMETRIC},
    meeting::{GAME_PORT, invite, meet},
};
use crate::{
    party::{World, connected},
    traffic::Flow,
};

/// The inviter's computer is switched off. Tunnels between the others stay, and they let a newcomer in.
pub(super) fn inviter_leaves(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let mut anna = internet.member("anna", HOME)?;
    let (ben, cora) = (internet.member("ben", HOME)?, internet.member("cora", HOME)?);
    let link = invite(&anna)?;
    for (joiner, port) in [(&ben, GAME_PORT), (&cora, GAME_PORT + 1)] {
        meet(&anna, joiner, &link, port)?;
    }
    let others = [ben, cora];
    let flow = Flow::start(&others[0].host, &others[1].host, others[1].address()?.into())?;
    anna.stop()?;
    let mut times = Times::default();
    times.add(meet(&others[0], &internet.member("dan", HOME)?, &link, GAME_PORT + 2));
    times.check(world, &[(95, Duration::from_secs(15))])?;
    flow.stop().map(drop)
}

/// Two symmetric NATs, and a third member that both reach.
pub(super) fn hard_with_third(world: &World, _: usize) -> Result<()> {
    let internet = Internet::new(world)?;
    let (third, anna) = (internet.open_member("carl")?, internet.member("anna", SYMMETRIC)?);
    let link = invite(&third)?;
    meet(&third, &anna, &link, GAME_PORT)?;
    let ben = internet.member("ben", SYMMETRIC)?;
    let mut times = Times::default();
    times.add(meet(&anna, &ben, &link, GAME_PORT + 1));
    times.check(world, &[(95, Duration::from_secs(15))])?;
    anna.wait_for_path(&ben, PathKind::MemberRelay)?;
    connected(&[third, anna, ben])
}
