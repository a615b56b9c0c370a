//! Screenshots of every screen, in the light and dark theme and in three sizes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use natlab::{
    Line, RouterOptions,
    party::{Member, Server, World},
    until,
};
use partyline_model::PathKind;

use crate::{
    desktop::{App, Desktop, VIEW_TIMEOUT},
    steps::{create, deep, player, welcome},
};

/// Page sizes without the window's frame: the minimum, a laptop's, and a large screen's.
const SIZES: [(u32, u32); 3] = [(720, 480), (1280, 800), (2560, 1440)];

/// The server's line.
const SERVER: Line = Line { latency: Duration::from_millis(7), jitter: Duration::from_millis(1), loss: 0 };
/// The other members: name, one-way latency in milliseconds, and router.
const FRIENDS: [(&str, u64, RouterOptions); 5] = [
    ("Ben", 9, RouterOptions::HOME),
    ("Cleo", 14, RouterOptions::HOME),
    ("Dimitri", 27, RouterOptions::SYMMETRIC),
    ("Eva", 21, RouterOptions::HOME),
    ("Farid", 6, RouterOptions::HOME),
];
/// The member without direct packets to and from Anna.
const FAR_FROM: &str = "Eva";

/// Goes through all screens and writes the screenshots to `directory`.
pub fn take(world: &World, programs: &Path, directory: &Path) -> Result<()> {
    let album = Album { directory: directory.to_owned() };
    fs::create_dir_all(directory)?;
    let server = world.far_server("server", SERVER)?;
    let mut anna = player(world, &server, "anna")?;
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    let app = desktop.app(&[])?;
    app.reads("What do friends call you?")?;
    album.add(&app, "welcome")?;
    welcome(&app, "Anna")?;
    album.add(&app, "home-first")?;
    app.click("button", "Join with a link")?;
    album.add(&app, "join-paste")?;
    app.click("button", "Cancel")?;
    app.click("button", "Create a party")?;
    album.add(&app, "create")?;
    app.click("button", "Cancel")?;
    let link = create(&app, "Friday night")?;
    album.add(&app, "alone")?;
    let friends = gather(world, &server, &anna, &link)?;
    party(&album, &app, &anna)?;
    invites(&album, &app)?;
    let other = friends.first().context("no friends")?.create(Some(&server))?;
    desktop.start_again(Some(&deep(&other)?))?;
    app.reads("Join Friday night as Anna?")?;
    album.add(&app, "join")?;
    app.click("button", "Not now")?;
    pages(&album, &app)?;
    anna.stop()?;
    app.reads("Start the service")?;
    app.click("button", "Home")?;
    album.add(&app, "service-stopped")?;
    app.close()
}

/// Lets the members join one after another, each with a line of its own.
fn gather(world: &World, server: &Server, anna: &Member, link: &str) -> Result<Vec<Member>> {
    FRIENDS
        .iter()
        .map(|(name, far, router)| {
            let latency = Duration::from_millis(*far);
            let line = Line { latency, jitter: latency / 12, loss: u16::from(*name == "Dimitri") * 12 };
            let options = RouterOptions { line: Some(line), ..*router };
            let friend = world.member(world.lab.home(&name.to_lowercase(), options)?)?;
            friend.partyline(&["config", "set", "servers", &server.url()])?;
            if *name == FAR_FROM {
                world.lab.block_udp(&anna.host, &friend.host)?;
            }
            friend.partyline(&["join", link, "--name", name])?;
            until("a path", VIEW_TIMEOUT, || anna.sees(name)?.path.map(drop).context("no path yet"))?;
            Ok(friend)
        })
        .collect()
}

fn party(album: &Album, app: &App, anna: &Member) -> Result<()> {
    let settled = |name: &str| {
        let path = anna.sees(name)?.path.context("no path")?.kind;
        let relayed = path >= PathKind::MemberRelay;
        // Behind a strict router the upgrade to a direct path may take longer than the screenshots should.
        ensure!(relayed == (name == FAR_FROM) || name == "Dimitri", "{name} by {path:?}");
        Ok(())
    };
    let everybody = || FRIENDS.iter().try_for_each(|(name, ..)| settled(name));
    until("paths as they come to rest", VIEW_TIMEOUT, everybody)?;
    // The chart should show some samples and a change of path.
    let lines = "return Number(document.querySelector('[data-drawn]')?.dataset.drawn ?? 0)";
    let drawn = app.run(lines)?.as_u64().unwrap_or_default();
    until("the chart to fill", VIEW_TIMEOUT, || {
        ensure!(app.run(lines)?.as_u64() >= Some(drawn + 40), "too few samples");
        Ok(())
    })?;
    album.add(app, "party")?;
    open_row(app, FAR_FROM)?;
    app.reads("Why this connection?")?;
    album.add(app, "member")?;
    app.click("button", "Remove")?;
    app.reads("Remove Eva?")?;
    album.add(app, "remove")?;
    app.click("button", "Cancel")?;
    open_row(app, FAR_FROM)
}

fn open_row(app: &App, name: &str) -> Result<()> {
    let script = format!(
        "[...document.querySelectorAll('[data-row]')].find((one) => one.innerText.includes({name:?}))?.click()"
    );
    app.run(&script).map(drop)
}

fn invites(album: &Album, app: &App) -> Result<()> {
    app.click("button", "Invite")?;
    app.reads("The link is on your clipboard.")?;
    album.add(app, "invite")?;
    app.click("button", "Close")?;
    app.click("button", "Home")?;
    app.reads("Pick a party")?;
    album.add(app, "home")
}

fn pages(album: &Album, app: &App) -> Result<()> {
    app.click("button", "Your network")?;
    app.reads("Measured")?;
    album.add(app, "network")?;
    app.click("button", "Settings")?;
    for tab in ["General", "Connection", "Servers", "Data and help", "About"] {
        app.click("tab", tab)?;
        if tab == "Servers" {
            app.click("button", "Test ")?;
            app.reads("Works.")?;
        }
        let name = tab.split(' ').next().unwrap_or(tab).to_lowercase();
        album.add(app, &format!("settings-{name}"))?;
    }
    Ok(())
}

struct Album {
    directory: PathBuf,
}

impl Album {
    /// Takes a screen in both themes and all sizes. The size changes last, since the canvas is redrawn then.
    fn add(&self, app: &App, name: &str) -> Result<()> {
        for shade in ["dark", "light"] {
            app.run(&format!("document.documentElement.dataset.theme = {shade:?}"))?;
            for (width, height) in SIZES {
                resize(app, (width, height))?;
                app.run(PAINTED)?;
                let path = self.directory.join(format!("{name}-{shade}-{width}x{height}.png"));
                fs::write(&path, app.screenshot()?)?;
                shrink(&path)?;
            }
        }
        println!("{name}");
        Ok(())
    }
}

/// Waits until changes have been painted.
const PAINTED: &str = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => \
                       setTimeout(() => requestAnimationFrame(() => done(true)), 250))))";

/// Resizes the window until its page has the given size.
fn resize(app: &App, size: (u32, u32)) -> Result<()> {
    let (mut outer_width, mut outer_height) = size;
    until("the window's size", VIEW_TIMEOUT, || {
        app.resize(outer_width, outer_height)?;
        let inner = app.run("return [innerWidth, innerHeight]")?;
        let side = |index: usize| inner[index].as_u64().and_then(|side| u32::try_from(side).ok());
        let (has_width, has_height) = (side(0).context("no width")?, side(1).context("no height")?);
        outer_width = (outer_width + size.0).saturating_sub(has_width);
        outer_height = (outer_height + size.1).saturating_sub(has_height);
        ensure!((has_width, has_height) == size, "its page is {has_width} x {has_height}");
        Ok(())
    })
}

/// Reduces the number of colors, which flat surfaces do not need, to make the files small.
fn shrink(path: &Path) -> Result<()> {
    let status = Command::new("convert")
        .arg(path)
        .args(["-strip", "-dither", "None", "-colors", "96", "-define", "png:compression-level=9"])
        .arg(format!("PNG8:{}", path.display()))
        .status()
        .context("start convert")?;
    ensure!(status.success(), "convert ended with {status}");
    Ok(())
}
