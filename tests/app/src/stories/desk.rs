//! The app on the desktop: tray, notifications, autostart, and a missing display.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use natlab::{party::World, until};

use crate::{
    desktop::{Desktop, VIEW_TIMEOUT},
    panel::Panel,
    steps::{player, welcome},
};

pub fn tray(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let link = anna.create(Some(&server))?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let panel = desktop.panel()?;
    let app = desktop.app(&[])?;
    app.reads("Friday night")?;
    says(&panel, "Friday night")?;

    desktop.close_window()?;
    shows(&desktop, false)?;
    let ben = player(world, &server, "ben")?;
    ben.join(&link)?;
    until("a notification that ben joined", VIEW_TIMEOUT, || {
        let shown = panel.notifications();
        let wanted = ("Friday night".to_owned(), "ben joined".to_owned());
        ensure!(shown.contains(&wanted), "shown were {shown:?}");
        Ok(())
    })?;
    until("ben's ping in the menu", VIEW_TIMEOUT, || {
        let entries = panel.entries()?;
        let line = entries.iter().find(|entry| entry.label.contains("ben"));
        ensure!(line.is_some_and(|entry| entry.label.ends_with(" ms")), "the menu says {entries:?}");
        Ok(())
    })?;

    // Menu entries are addressed by their labels.
    panel.click("Disconnect")?;
    says(&panel, "Not connected")?;
    panel.click("Connect")?;
    says(&panel, "Disconnect")?;
    panel.click("Open Partyline")?;
    shows(&desktop, true)?;
    app.reads("Friday night")?;
    // A second start of the app shows the window again.
    desktop.close_window()?;
    shows(&desktop, false)?;
    desktop.start_again(None)?;
    shows(&desktop, true)?;
    panel.click("Quit")?;
    until("the tray icon to go", VIEW_TIMEOUT, || {
        ensure!(panel.entries().is_err(), "it is still there");
        Ok(())
    })?;
    ensure!(anna.party()?.problem.is_none(), "the service ended with the app");
    Ok(())
}

/// Waits until an entry of the tray's menu begins with a text.
fn says(panel: &Panel, wanted: &str) -> Result<()> {
    until(&format!("the menu to say {wanted:?}"), VIEW_TIMEOUT, || {
        let entries = panel.entries()?;
        let found = entries.iter().any(|entry| entry.label.trim_start().starts_with(wanted));
        ensure!(found, "the menu says {entries:?}");
        Ok(())
    })
}

fn shows(desktop: &Desktop, wanted: bool) -> Result<()> {
    until(if wanted { "the window" } else { "the window to go" }, VIEW_TIMEOUT, || {
        ensure!(desktop.shows_window()? == wanted, "it is {}", if wanted { "hidden" } else { "shown" });
        Ok(())
    })
}

pub fn autostart(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let panel = desktop.panel()?;
    let app = desktop.app(&[])?;
    welcome(&app, "Anna")?;
    app.click("button", "Settings")?;
    app.click("switch", "Start when you log in")?;
    let entry = desktop.config("autostart/Partyline.desktop");
    let text = until("the entry of the session", VIEW_TIMEOUT, || {
        fs::read_to_string(&entry).with_context(|| format!("there is no {}", entry.display()))
    })?;
    let command = text.lines().find_map(|line| line.strip_prefix("Exec=")).context("it starts nothing")?;
    ensure!(command.ends_with("--minimised"), "it starts {command:?}");
    ensure!(command.contains("partyline-app"), "it starts {command:?}");
    app.click("switch", "Start without a window")?;
    app.close()?;

    let hidden = desktop.app(&["--minimised"])?;
    says(&panel, "No party yet")?;
    ensure!(!desktop.shows_window()?, "it has opened a window");
    panel.click("Open Partyline")?;
    shows(&desktop, true)?;
    hidden.click("button", "Settings")?;
    hidden.click("switch", "Start when you log in")?;
    until("the entry to go", VIEW_TIMEOUT, || {
        ensure!(!entry.exists(), "it is still there");
        Ok(())
    })?;
    hidden.close()
}

pub fn no_display(world: &World, programs: &Path) -> Result<()> {
    let host = world.lab.server("nobody")?;
    for display in ["", ":59999"] {
        let mut command = host.command(&programs.join("partyline-app").to_string_lossy());
        command.env("DISPLAY", display).env_remove("WAYLAND_DISPLAY").env("HOME", host.directory());
        let output = command.output()?;
        ensure!(output.status.code() == Some(8), "it ended with {}", output.status);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("no display") && said.contains("`partyline`"), "it said {said}");
    }
    Ok(())
}
