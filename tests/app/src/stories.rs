//! What people do with the app.

use std::path::Path;

use crate::desktop::App;
use anyhow::{Context as _, Result, ensure};
use natlab::{
    RouterOptions,
    party::{Member, Server, World},
};

mod desk;
mod engine;
mod evening;
mod links;

/// One story with its end.
#[derive(Debug)]
pub struct Story {
    /// Short, for the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// In a lab, with the programs in a directory.
    pub tell: fn(&World, &Path) -> Result<()>,
}

/// All stories.
#[must_use]
pub const fn stories() -> &'static [Story] {
    &[
        Story {
            name: "first-evening",
            about: "first start, create, invite, two friends join, one is removed",
            tell: evening::first_evening,
        },
        Story {
            name: "path-change",
            about: "a direct connection falls back to the relay; roster, chart and panel say so",
            tell: evening::path_change,
        },
        Story {
            name: "links",
            about: "links that are wrong, ended or taken back, and links opened while the app runs",
            tell: links::links,
        },
        Story {
            name: "settings",
            about: "settings count at once and survive a restart; another name reaches friends; servers and relays are tried",
            tell: engine::settings,
        },
        Story {
            name: "service",
            about: "the service stops and comes back; the window says so each time",
            tell: engine::service,
        },
        Story {
            name: "embedded",
            about: "without a service the app carries the parties itself, and leaves nothing behind",
            tell: engine::embedded,
        },
        Story {
            name: "tray",
            about: "the window closes into the tray, whose menu works; notifications; a second start",
            tell: desk::tray,
        },
        Story {
            name: "autostart",
            about: "starts with the session, without a window",
            tell: desk::autostart,
        },
        Story {
            name: "no-display",
            about: "without a display the app says so and ends",
            tell: desk::no_display,
        },
    ]
}

/// A member whose service knows the party's server.
pub fn player(world: &World, server: &Server, name: &str) -> Result<Member> {
    let member = world.member(world.lab.home(name, RouterOptions::HOME)?)?;
    member.partyline(&["config", "set", "servers", &server.url()])?;
    Ok(member)
}

/// Goes through the first start.
pub fn welcome(app: &App, name: &str) -> Result<()> {
    app.fill("What do friends call you?", name)?;
    app.click("button", "Let’s go")?;
    app.reads(&format!("Hello, {name}"))
}

/// Creates a party and gives the invite that the window shows.
pub fn create(app: &App, name: &str) -> Result<String> {
    app.click("button", "Create a party")?;
    app.fill("Name of the party", name)?;
    app.click("button", "Create party")?;
    app.reads("The link is on your clipboard.")?;
    let link = app.value("Invite link")?;
    ensure!(link.contains("/join"), "the invite is {link:?}");
    app.click("button", "Close")?;
    Ok(link)
}

/// The link as the page behind an invite hands it to the app.
pub fn deep(link: &str) -> Result<String> {
    let (_, code) = link.split_once("join#").or_else(|| link.split_once("join/")).context("no invite")?;
    Ok(format!("partyline://join/{code}"))
}
