//! Steps that several scenarios share.

use anyhow::{Context as _, Result, ensure};
use natlab::{
    RouterOptions,
    party::{Member, Server, World},
};

use crate::desktop::App;

/// Adds a member whose service has the server in its settings.
pub fn player(world: &World, server: &Server, name: &str) -> Result<Member> {
    let member = world.member(world.lab.home(name, RouterOptions::HOME)?)?;
    member.partyline(&["config", "set", "servers", &server.url()])?;
    Ok(member)
}

/// Completes the first start.
pub fn welcome(app: &App, name: &str) -> Result<()> {
    app.fill("What do friends call you?", name)?;
    app.click("button", "Let’s go")?;
    app.reads(&format!("Hello, {name}"))
}

/// Creates a party in the window, and returns the invite shown.
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

/// Returns the link as the invite's web page passes it to the app.
pub fn deep(link: &str) -> Result<String> {
    let (_, code) = link.split_once("join#").or_else(|| link.split_once("join/")).context("no invite")?;
    Ok(format!("partyline://join/{code}"))
}
