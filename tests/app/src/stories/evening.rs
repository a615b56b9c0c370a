//! Parties with friends, from the first start to a removed member.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use natlab::{party::World, until};
use partyline_model::PathKind;

use crate::{
    desktop::{App, Desktop, VIEW_TIMEOUT},
    steps::{create, deep, player, welcome},
};

pub fn first_evening(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    welcome(&app, "Anna")?;
    let link = create(&app, "Friday night")?;
    app.reads("It is quiet in here")?;

    // One member joins by a link that starts the app, the other by the command line.
    let ben = player(world, &server, "ben")?;
    let mut bens = Desktop::start(&ben, programs, 2)?;
    let his = bens.app(&[&deep(&link)?])?;
    welcome(&his, "Ben")?;
    his.reads("Join Friday night as Ben?")?;
    his.reads("Anna invites you, and is alone in there so far.")?;
    his.click("button", "Join")?;
    his.reads("Anna")?;
    let cleo = player(world, &server, "cleo")?;
    cleo.join(&link)?;

    for name in ["Ben", "cleo"] {
        app.reads(name)?;
    }
    anna.wait_for_path(&cleo, PathKind::Direct)?;
    until("both to be shown as direct", VIEW_TIMEOUT, || {
        app.look(|text| text.matches("Direct").count() >= 2 && text.contains("ms"))
    })?;
    app.no_longer_reads("It is quiet in here")?;
    moves(&app)?;
    network(&app)?;

    kick(&app, "Ben")?;
    his.reads("is no longer in Friday night")?;
    his.click("button", "Leave party")?;
    app.reads("cleo")?;
    his.close()?;
    app.close()
}

/// Checks that the chart changes with the measurements.
fn moves(app: &App) -> Result<()> {
    let picture = || app.run("return document.querySelector('canvas')?.toDataURL() ?? ''");
    let before = until("the chart", VIEW_TIMEOUT, || {
        let picture = picture()?;
        ensure!(picture.as_str().is_some_and(|data| data.len() > 100), "there is none");
        Ok(picture)
    })?;
    until("the chart to move", VIEW_TIMEOUT, || {
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

fn open_member(app: &App, name: &str) -> Result<()> {
    let row = format!(
        "const row = [...document.querySelectorAll('[data-row]')].find((one) => one.innerText.includes({name:?})); \
         row?.click(); return row != null"
    );
    until("the member's row", VIEW_TIMEOUT, || {
        ensure!(app.run(&row)? == true, "there is none");
        Ok(())
    })
}

fn kick(app: &App, name: &str) -> Result<()> {
    open_member(app, name)?;
    app.click("button", "Remove")?;
    app.reads(&format!("Remove {name}?"))?;
    let confirm = "const all = [...document.querySelectorAll('[role=dialog] button,[role=alertdialog] button')]; \
                   const one = all.find((button) => button.innerText.trim() === 'Remove'); one?.click(); return one != null";
    ensure!(app.run(confirm)? == true, "nothing asks whether to remove");
    app.no_longer_reads(name)
}

pub fn path_change(world: &World, programs: &Path) -> Result<()> {
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
    app.click("radio", "10 min")?;
    let before = changes(&app)?;
    world.lab.block_udp(&anna.host, &ben.host)?;
    anna.wait_for_path(&ben, PathKind::Relay)?;
    app.reads("Relay")?;
    let marked = |more: u64| {
        until("the chart to mark the change", VIEW_TIMEOUT, || {
            let changes = changes(&app)?;
            ensure!(changes >= before + more, "it marked {before} before, and {changes} now");
            Ok(())
        })
    };
    marked(1)?;
    world.lab.unblock()?;
    anna.wait_for_path(&ben, PathKind::Direct)?;
    app.reads("Direct")?;
    marked(2)?;
    open_member(&app, "ben")?;
    app.reads("Earlier connections")?;
    app.reads("Straight from your computer to theirs")?;
    app.close()
}

/// Returns the number of path changes that the chart marks.
fn changes(app: &App) -> Result<u64> {
    let script = "return Number(document.querySelector('[data-changes]')?.dataset.changes ?? 0)";
    app.run(script)?.as_u64().context("no number")
}
