//! The process that hosts the engine, and its settings.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use natlab::{
    checked,
    party::{Server, World},
    until,
};
use partyline_model::PathKind;

use crate::{
    desktop::{App, Desktop, ENTER, VIEW_TIMEOUT},
    steps::{player, welcome},
};

pub fn service(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let mut anna = player(world, &server, "anna")?;
    anna.create(Some(&server))?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    app.reads("Friday night")?;
    anna.stop()?;
    until("an offer to start it", VIEW_TIMEOUT, || {
        ensure!(app.has("button", "Start the service")?, "the window says:\n{}", app.text()?);
        Ok(())
    })?;
    anna.start()?;
    until("the offer to go", VIEW_TIMEOUT, || {
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
    until("Ben to hear the new name", VIEW_TIMEOUT, || ben.sees("Annika").map(drop))?;
    app.click("radio", "Light")?;
    app.click("switch", "Somebody joins a party")?;
    app.click("tab", "Servers")?;
    try_servers(&app, &server)?;
    try_relays(&app, world)?;
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
    again.reads("turn:")?;
    again.close()
}

fn try_servers(app: &App, server: &Server) -> Result<()> {
    app.click("button", &format!("Test {}", server.url()))?;
    app.reads("Works. The round trip takes")?;
    app.fill("Address of the server", &format!("wss://nowhere.example{ENTER}"))?;
    app.click("button", "Test wss://nowhere.example")?;
    until("what is wrong with it", VIEW_TIMEOUT, || {
        app.look(|text| text.contains("cannot be used") || text.contains("did not answer"))
    })
}

/// Tests a third-party relay with a wrong and with the right password.
fn try_relays(app: &App, world: &World) -> Result<()> {
    let host = world.lab.server("coturn")?;
    let url = format!("turn:{}:3478", host.v4());
    let mut coturn = host.command("turnserver");
    coturn.args([
        "-n",
        "--lt-cred-mech",
        "--user=anna:secret",
        "--realm=example",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
    ]);
    coturn.arg(format!("--listening-ip={}", host.v4())).arg("--log-file=stdout");
    coturn.arg(format!("--pidfile={}", host.directory().join("coturn.pid").display()));
    let _running = host.spawn("coturn", coturn)?;
    until("coturn", VIEW_TIMEOUT, || {
        ensure!(checked(host.command("ss").arg("-lun"))?.contains(":3478"), "it does not listen");
        Ok(())
    })?;
    for (password, said) in
        [("wrong", "does not accept the user name"), ("secret", "Works. The round trip takes")]
    {
        app.fill("Address of the relay", &url)?;
        app.fill("User name", "anna")?;
        app.fill("Password", &format!("{password}{ENTER}"))?;
        app.click("button", &format!("Test {url}"))?;
        until("the relay's verdict", VIEW_TIMEOUT, || app.look(|text| relays(text).contains(said)))?;
        app.click("button", &format!("Remove {url}"))?;
        app.no_longer_reads(&url)?;
    }
    app.fill("Address of the relay", &format!("{url}{ENTER}"))?;
    app.reads(&url)
}

/// Returns the window's text below the heading of the TURN servers.
fn relays(text: &str) -> &str {
    text.rsplit_once("TURN servers").map_or(text, |(_, below)| below)
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
    until("Ben to be shown as direct", VIEW_TIMEOUT, || {
        app.look(|text| text.contains("Direct") && text.contains("2 of 2 online"))
    })?;
    app.click("button", "Settings")?;
    app.click("tab", "About")?;
    app.reads("Runs inside this app.")?;
    ensure!(devices(&anna)?.contains("partyline"), "no network device");
    app.run("void window.__TAURI_INTERNALS__.invoke('quit')")?;
    until("the network to be as before", VIEW_TIMEOUT, || {
        let left = devices(&anna)?;
        if left.contains("partyline") { bail!("there is still {left}") } else { Ok(()) }
    })
}

/// Returns the network devices of a member's computer, as `ip` lists them.
fn devices(member: &natlab::party::Member) -> Result<String> {
    checked(member.host.command("ip").args(["-brief", "link"]))
}
