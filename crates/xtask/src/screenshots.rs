//! Redraws the pictures of docs/screenshots.

use std::{fs, process::Command};

use anyhow::Result;

use crate::{
    app, cargo,
    packages::{self, FOR_APP, FOR_SCREENSHOTS, FOR_UI_TESTS},
};

/// Screens that show what the app is, by their names in `ui/tests/views.ts`.
const VIEWS: [&str; 14] = [
    "welcome",
    "home",
    "create",
    "join-preview",
    "party8",
    "party-member",
    "party-relayed",
    "party250",
    "alone",
    "invite",
    "network",
    "network-strict",
    "settings-general",
    "settings-servers",
];
/// Colours in a picture, few enough to keep it small and many enough for its curves.
const COLOURS: &str = "96";

/// Redraws all of them.
pub fn run(yes: bool) -> Result<()> {
    packages::install(&[&FOR_APP[..], &FOR_UI_TESTS, &FOR_SCREENSHOTS].concat(), yes)?;
    let drawn = app::draw(&VIEWS)?;
    let kept = cargo::root().join("docs/screenshots");
    fs::create_dir_all(&kept)?;
    for view in VIEWS {
        for theme in ["dark", "light"] {
            for width in ["720", "1280", "2560"] {
                let name = format!("{view}-{theme}-{width}.png");
                let mut convert = Command::new("convert");
                convert.arg(drawn.join(&name)).args(["-strip", "+dither", "-colors", COLOURS]);
                convert.args(["-define", "png:compression-level=9"]).arg(kept.join(&name));
                cargo::run(&mut convert)?;
            }
        }
    }
    Ok(())
}
