//! Who carries the parties, and with which settings.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use natlab::{checked, party::World, until};
use partyline_model::PathKind;

use super::{player, welcome};
use crate::desktop::{Desktop, ENTER, PATIENCE};

pub fn service(world: &World, programs: &Path) -> Result<()> {
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

pub fn settings(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let ben = player(world, &server, "ben")?;
    let link = ben.create(Some(&server))?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    welcome(&app, "Anna")?;
    anna.join(&link)?;
    anna.wait_for_path(&ben, PathKind::Direct)?;
    app.click("button", "Settings")?;
    app.replace("Name", &format!("Annika{ENTER}"))?;
    until("Ben to hear the new name", PATIENCE, || ben.sees("Annika").map(drop))?;
    app.click("radio", "Light")?;
    app.click("switch", "Somebody joins a party")?;
    app.click("tab", "Servers")?;
    app.click("button", &format!("Test {}", server.url()))?;
    app.reads("Works. The round trip takes")?;
    app.fill("Address of the server", &format!("wss://nowhere.example{ENTER}"))?;
    app.click("button", "Test wss://nowhere.example")?;
    until("what is wrong with it", PATIENCE, || {
        app.look(|text| text.contains("cannot be used") || text.contains("did not answer"))
    })?;
    app.close()?;

    let again = desktop.app(&[])?;
    again.reads("Hello, Annika")?;
    ensure!(again.run("return document.documentElement.dataset.theme")? == "light", "it is dark again");
    again.click("button", "Settings")?;
    let muted = "return [...document.querySelectorAll('[role=switch]')].find((one) => \
                 one.getAttribute('aria-label') === 'Somebody joins a party')?.getAttribute('aria-checked')";
    ensure!(again.run(muted)? == "false", "joins are announced again");
    again.click("tab", "Servers")?;
    again.reads("wss://nowhere.example")?;
    again.close()
}

pub fn embedded(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let mut anna = player(world, &server, "anna")?;
    let ben = player(world, &server, "ben")?;
    let link = ben.create(Some(&server))?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    anna.join(&link)?;
    anna.stop()?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    desktop.grant();
    let app = desktop.app(&[])?;
    app.click("button", "Friday night")?;
    until("Ben to be shown as direct", PATIENCE, || {
        app.look(|text| text.contains("Direct") && text.contains("2 of 2 online"))
    })?;
    app.click("button", "Settings")?;
    app.click("tab", "About")?;
    app.reads("Runs inside this app.")?;
    ensure!(devices(&anna)?.contains("partyline"), "no network device");
    app.run("void window.__TAURI_INTERNALS__.invoke('quit')")?;
    until("the network to be as before", PATIENCE, || {
        let left = devices(&anna)?;
        if left.contains("partyline") { bail!("there is still {left}") } else { Ok(()) }
    })
}

/// The network devices of a member's computer.
fn devices(member: &natlab::party::Member) -> Result<String> {
    checked(member.host.command("ip").args(["-brief", "link"]))
}
