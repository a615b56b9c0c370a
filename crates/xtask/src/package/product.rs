//! What a package is called and made of, whatever its format.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::cargo;

/// One package, in either format.
pub struct Product {
    pub name: &'static str,
    /// The package it conflicts with: the same programs with or without the app.
    pub other: &'static str,
    pub summary: &'static str,
    pub app: bool,
    pub revision: u32,
    /// Compressed quickly rather than well.
    pub quick: bool,
    /// Seconds since 1970, the modification time of every file, so that the same sources give the same bytes.
    pub epoch: String,
}

/// The project's page.
pub const HOMEPAGE: &str = env!("CARGO_PKG_REPOSITORY");

/// The maintainer, as Debian's control files name it.
pub const MAINTAINER: &str = "Partyline contributors <partyline@users.noreply.github.com>";

impl Product {
    /// Describes the package with the app or without it.
    pub fn new(app: bool, revision: u32, quick: bool) -> Result<Self> {
        let (name, other, summary) = if app {
            ("partyline", "partyline-cli", "LAN over the internet for games with friends")
        } else {
            ("partyline-cli", "partyline", "LAN over the internet for games with friends (without the app)")
        };
        Ok(Self { name, other, summary, app, revision, quick, epoch: epoch()? })
    }

    /// Returns the version as packages order it: 1.0.0~rc.1 comes before 1.0.0.
    pub fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").replacen('-', "~", 1)
    }

    /// Returns the date of the sources, formatted by `date`.
    pub fn date(&self, format: &str) -> Result<String> {
        let moment = format!("@{}", self.epoch);
        cargo::output(Command::new("date").args(["--utc", "--date", &moment, format]).env("LC_ALL", "C"))
    }
}

/// Returns the directory that packages are written to.
pub fn output_directory() -> Result<PathBuf> {
    let path = cargo::target().join("package");
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Returns when the sources were last changed, in seconds since 1970.
fn epoch() -> Result<String> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    cargo::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(cargo::root()))
        .context("without git, SOURCE_DATE_EPOCH has to be set to the date of the sources")
}
