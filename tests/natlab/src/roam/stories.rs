//! The fault scenarios of `natlab roam`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use partyline_model::PathKind;

use super::game::{Game, LINE, Measured, pass};
use crate::{
    Host, RouterOptions,
    party::{Member, World},
};

/// One fault scenario.
pub struct Story {
    /// Name on the command line.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    /// Upper bound for the outage, in seconds.
    pub bar: f64,
    pub run: fn(&World, Duration) -> Result<Measured>,
}

/// Returns all scenarios.
pub const fn stories() -> &'static [Story] {
    &[
        Story { name: "upgrade", about: "a relayed path becomes direct", bar: 0.1, run: upgrade },
        Story { name: "cut", about: "the direct path dies, the relay remains", bar: 1.0, run: cut },
        Story {
            name: "relay-death",
            about: "the relay in use is killed, another server remains",
            bar: 1.0,
            run: relay_death,
        },
        Story { name: "switch", about: "a laptop moves to another network", bar: 2.0, run: switch },
        Story {
            name: "reboot",
            about: "a router comes back with another address and an empty table",
            bar: 2.0,
            run: reboot,
        },
        Story { name: "sleep", about: "a laptop wakes from sleep", bar: 2.0, run: sleep },
        Story {
            name: "forgotten",
            about: "a laptop wakes, and its router has another address and an empty table",
            bar: 2.0,
            run: forgotten,
        },
    ]
}

const HOME: RouterOptions = RouterOptions { line: Some(LINE), ..RouterOptions::HOME };

fn homes(world: &World) -> Result<[Host; 2]> {
    Ok([world.lab.home("anna", HOME)?, world.lab.home("ben", HOME)?])
}

fn upgrade(world: &World, _: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let hosts = homes(world)?;
    world.lab.block_udp(&hosts[0], &hosts[1])?;
    let members = Game::party(world, &[&server], hosts)?;
    let game = Game::start(members)?;
    game.relay()?;
    let trouble = Instant::now();
    world.lab.unblock()?;
    let [anna, ben] = &game.members;
    anna.wait_for_path(ben, PathKind::Direct)?;
    ben.wait_for_path(anna, PathKind::Direct)?;
    game.end(trouble)
}

fn cut(world: &World, _: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let game = direct(Game::party(world, &[&server], homes(world)?)?)?;
    let [anna, ben] = &game.members;
    let trouble = Instant::now();
    world.lab.block_udp(&anna.host, &ben.host)?;
    game.end(trouble)
}

fn relay_death(world: &World, _: Duration) -> Result<Measured> {
    let mut servers = [world.far_server("first", LINE)?, world.far_server("second", LINE)?];
    let hosts = homes(world)?;
    world.lab.block_udp(&hosts[0], &hosts[1])?;
    let members = Game::party(world, &servers.each_ref(), hosts)?;
    let game = Game::start(members)?;
    let relay = game.relay()?;
    let used = servers.iter_mut().find(|server| server.name() == relay);
    let used = used.with_context(|| format!("{relay} is no server"))?;
    let trouble = Instant::now();
    used.kill()?;
    game.end(trouble)
}

fn switch(world: &World, _: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let elsewhere = world.lab.site("cafe", HOME)?;
    let game = direct(Game::party(world, &[&server], homes(world)?)?)?;
    let trouble = Instant::now();
    elsewhere.adopt(&game.members[0].host)?;
    game.end(trouble)
}

fn reboot(world: &World, _: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let home = world.lab.site("anna", HOME)?;
    let hosts = [home.host("anna")?, world.lab.home("ben", HOME)?];
    let game = direct(Game::party(world, &[&server], hosts)?)?;
    home.go_down()?;
    pass(Duration::from_secs(5));
    home.come_up_elsewhere()?;
    game.end(Instant::now())
}

fn sleep(world: &World, time: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let game = direct(Game::party(world, &[&server], homes(world)?)?)?;
    game.members[0].sleep()?;
    pass(time);
    let trouble = Instant::now();
    game.members[0].wake()?;
    game.end(trouble)
}

fn forgotten(world: &World, time: Duration) -> Result<Measured> {
    let server = world.far_server("server", LINE)?;
    let home = world.lab.site("anna", HOME)?;
    let hosts = [home.host("anna")?, world.lab.home("ben", HOME)?];
    let game = direct(Game::party(world, &[&server], hosts)?)?;
    game.members[0].sleep()?;
    home.go_down()?;
    pass(time);
    home.come_up_elsewhere()?;
    let trouble = Instant::now();
    game.members[0].wake()?;
    game.end(trouble)
}

/// Starts the game once both members have a direct path.
fn direct(members: [Member; 2]) -> Result<Game> {
    let [anna, ben] = &members;
    anna.wait_for_path(ben, PathKind::Direct)?;
    ben.wait_for_path(anna, PathKind::Direct)?;
    Game::start(members)
}
