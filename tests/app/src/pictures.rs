//! Pictures of every screen, in light and dark.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use natlab::{party::World, until};
use partyline_model::PathKind;

use crate::{
    desktop::{App, Desktop, PATIENCE},
    stories::{create, player, welcome},
};

/// Of the page, without the window's frame.
const SIZE: (u32, u32) = (1280, 800);

/// Plays an evening and takes the pictures into `directory`.
pub fn take(world: &World, programs: &Path, directory: &Path) -> Result<()> {
    let album = Album { directory: directory.to_owned() };
    fs::create_dir_all(directory)?;
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    app.reads("What do friends call you?")?;
    resize(&app)?;
    album.add(&app, "welcome")?;
    welcome(&app, "Anna")?;
    album.add(&app, "home")?;
    let link = create(&app, "Friday night")?;
    album.add(&app, "alone")?;
    let mut friends = Vec::new();
    for name in ["ben", "cleo", "dimitri"] {
        let friend = player(world, &server, name)?;
        friend.join(&link)?;
        anna.wait_for_path(&friend, PathKind::Direct)?;
        friends.push(friend);
    }
    app.reads("dimitri")?;
    album.add(&app, "party")?;
    app.click("button", "Invite")?;
    app.reads("The link is on your clipboard.")?;
    album.add(&app, "invite")?;
    app.click("button", "Close")?;
    app.click("button", "Your network")?;
    app.reads("Measured")?;
    album.add(&app, "network")?;
    app.click("button", "Settings")?;
    album.add(&app, "settings")?;
    app.close()
}

struct Album {
    directory: PathBuf,
}

impl Album {
    /// One screen in both shades.
    fn add(&self, app: &App, name: &str) -> Result<()> {
        let (width, height) = SIZE;
        for shade in ["dark", "light"] {
            app.run(&format!("document.documentElement.dataset.theme = {shade:?}"))?;
            let path = self.directory.join(format!("{name}-{shade}-{width}x{height}.png"));
            fs::write(&path, app.screenshot()?)?;
            shrink(&path)?;
        }
        println!("{name}");
        Ok(())
    }
}

/// Makes the window so large that its page is as large as wanted.
fn resize(app: &App) -> Result<()> {
    let (width, height) = SIZE;
    let (mut outer_width, mut outer_height) = SIZE;
    until("the window's size", PATIENCE, || {
        app.resize(outer_width, outer_height)?;
        let inner = app.run("return [innerWidth, innerHeight]")?;
        let side = |index: usize| inner[index].as_u64().and_then(|side| u32::try_from(side).ok());
        let (has_width, has_height) = (side(0).context("no width")?, side(1).context("no height")?);
        outer_width = (outer_width + width).saturating_sub(has_width);
        outer_height = (outer_height + height).saturating_sub(has_height);
        ensure!((has_width, has_height) == SIZE, "its page is {has_width} x {has_height}");
        Ok(())
    })
}

/// Few colours are enough for flat surfaces, and make small files.
fn shrink(path: &Path) -> Result<()> {
    let status = Command::new("convert")
        .arg(path)
        .args(["-strip", "-dither", "None", "-colors", "128", "-define", "png:compression-level=9"])
        .arg(format!("PNG8:{}", path.display()))
        .status()
        .context("start convert")?;
    ensure!(status.success(), "convert ended with {status}");
    Ok(())
}
