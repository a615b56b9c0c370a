//! What people do with the app.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use natlab::{
    RouterOptions,
    party::{Member, Server, World},
    until,
};
use partyline_model::PathKind;

use crate::desktop::{App, Desktop, PATIENCE};

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
            tell: first_evening,
        },
        Story {
            name: "path-change",
            about: "a direct connection falls back to the relay, and the window says so",
            tell: path_change,
        },
        Story {
            name: "links",
            about: "links that are wrong, and links opened while the app runs",
            tell: links,
        },
        Story {
            name: "service",
            about: "the service stops and comes back; the window says so each time",
            tell: service,
        },
        Story { name: "no-display", about: "without a display the app says so and ends", tell: no_display },
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

fn first_evening(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    welcome(&app, "Anna")?;
    let link = create(&app, "Friday night")?;
    app.reads("It is quiet in here")?;

    // One friend comes by a link that starts the app, the other by the command line.
    let ben = player(world, &server, "ben")?;
    let mut bens = Desktop::start(&ben, programs, 2)?;
    let his = bens.app(&[&deep(&link)?])?;
    welcome(&his, "Ben")?;
    his.reads("Join Friday night as Ben?")?;
    his.click("button", "Join")?;
    his.reads("Anna")?;
    let cleo = player(world, &server, "cleo")?;
    cleo.join(&link)?;

    for name in ["Ben", "cleo"] {
        app.reads(name)?;
    }
    anna.wait_for_path(&cleo, PathKind::Direct)?;
    until("both to be shown as direct", PATIENCE, || {
        app.look(|text| text.matches("Direct").count() >= 2 && text.contains("ms"))
    })?;
    app.no_longer_reads("It is quiet in here")?;
    moves(&app)?;
    network(&app)?;

    kick(&app, "cleo")?;
    until("cleo to be out", PATIENCE, || match cleo.party() {
        Ok(party) if party.problem.is_none() => bail!("cleo is still in"),
        _ => Ok(()),
    })?;
    his.close()?;
    app.close()
}

/// The link as the page behind an invite hands it to the app.
fn deep(link: &str) -> Result<String> {
    let (_, code) = link.split_once("join#").or_else(|| link.split_once("join/")).context("no invite")?;
    Ok(format!("partyline://join/{code}"))
}

/// The chart draws what is measured: its picture changes.
fn moves(app: &App) -> Result<()> {
    let picture = || app.run("return document.querySelector('canvas')?.toDataURL() ?? ''");
    let before = until("the chart", PATIENCE, || {
        let picture = picture()?;
        ensure!(picture.as_str().is_some_and(|data| data.len() > 100), "there is none");
        Ok(picture)
    })?;
    until("the chart to move", PATIENCE, || {
        ensure!(picture()? != before, "it is as before");
        Ok(())
    })
}

fn network(app: &App) -> Result<()> {
    app.click("button", "Your network")?;
    app.click("button", "Check again")?;
    app.reads("Port ")?;
    app.click("button", "Friday night")
}

fn kick(app: &App, name: &str) -> Result<()> {
    let row = format!(
        "const row = [...document.querySelectorAll('[data-row]')].find((one) => one.innerText.includes({name:?})); \
         row?.click(); return row != null"
    );
    until("the member's row", PATIENCE, || {
        ensure!(app.run(&row)? == true, "there is none");
        Ok(())
    })?;
    app.click("button", "Remove")?;
    app.reads(&format!("Remove {name}?"))?;
    let confirm = "const all = [...document.querySelectorAll('[role=dialog] button,[role=alertdialog] button')]; \
                   const one = all.find((button) => button.innerText.trim() === 'Remove'); one?.click(); return one != null";
    ensure!(app.run(confirm)? == true, "nothing asks whether to remove");
    app.no_longer_reads(name)
}

fn path_change(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let ben = player(world, &server, "ben")?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    let link = anna.create(Some(&server))?;
    ben.join(&link)?;
    anna.wait_for_path(&ben, PathKind::Direct)?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    app.click("button", "Friday night")?;
    app.reads("Direct")?;
    world.lab.block_udp(&anna.host, &ben.host)?;
    anna.wait_for_path(&ben, PathKind::Relay)?;
    app.reads("Relay")?;
    world.lab.unblock()?;
    anna.wait_for_path(&ben, PathKind::Direct)?;
    app.reads("Direct")?;
    app.close()
}

fn links(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let ben = player(world, &server, "ben")?;
    let good = anna.create(Some(&server))?;
    ben.partyline(&["config", "set", "display_name", "Ben"])?;
    let mut desktop = Desktop::start(&ben, programs, 1)?;
    let app = desktop.app(&["partyline://join/AAAA"])?;
    app.reads("This invite link is damaged.")?;
    desktop.open_link(&deep(&good)?)?;
    app.reads("Join Friday night as Ben?")?;
    app.click("button", "Join")?;
    app.reads("anna")?;
    app.close()
}

fn service(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let mut anna = player(world, &server, "anna")?;
    anna.create(Some(&server))?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    app.reads("Friday night")?;
    anna.stop()?;
    until("an offer to start it", PATIENCE, || {
        ensure!(app.has("button", "Start the service")?, "the window says:\n{}", app.text()?);
        Ok(())
    })?;
    anna.start()?;
    until("the offer to go", PATIENCE, || {
        ensure!(!app.has("button", "Start the service")?, "the window says:\n{}", app.text()?);
        Ok(())
    })?;
    app.reads("Friday night")?;
    app.close()
}

fn no_display(world: &World, programs: &Path) -> Result<()> {
    let host = world.lab.server("nobody")?;
    for display in ["", ":77"] {
        let mut command = host.command(&programs.join("partyline-app").to_string_lossy());
        command.env("DISPLAY", display).env_remove("WAYLAND_DISPLAY").env("HOME", host.directory());
        let output = command.output()?;
        ensure!(output.status.code() == Some(8), "it ended with {}", output.status);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("no display") && said.contains("`partyline`"), "it said {said}");
    }
    Ok(())
}
