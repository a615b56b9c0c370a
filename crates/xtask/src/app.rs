//! The desktop app and its user interface.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{cargo, natlab};

/// Arguments of `cargo build` that make the app.
pub const PROGRAM: [&str; 2] = ["-p", "partyline-app"];

fn ui() -> PathBuf {
    cargo::root().join("ui")
}

fn npm(arguments: &[&str]) -> Result<()> {
    cargo::run(Command::new("npm").args(arguments).current_dir(ui()))
}

/// Fetches what the user interface is built with, unless the very same is there.
fn fetch() -> Result<()> {
    let mark = ui().join("node_modules/.partyline-lock");
    let wanted = fs::read(ui().join("package-lock.json"))?;
    if fs::read(&mark).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    npm(&["ci", "--no-audit", "--no-fund"])?;
    Ok(fs::write(mark, wanted)?)
}

/// Builds the user interface into ui/dist.
pub fn build_ui() -> Result<()> {
    fetch()?;
    npm(&["run", "build"])
}

/// Checks its types, and runs its tests.
pub fn check_ui() -> Result<()> {
    fetch()?;
    npm(&["run", "check"])?;
    npm(&["test"])
}

/// Plays stories in the app. The user interface has to be built before. All is built in one go, so that the programs share
/// what they are built from.
pub fn tell(arguments: &[String]) -> Result<()> {
    let mut build = cargo::command(["build", "--bin", "app-test", "--bin", "partyline-app"]);
    cargo::run(build.args(cargo::ALIKE).args(natlab::LAB))?;
    cargo::run(Command::new(cargo::target().join("debug/app-test")).args(arguments))
}

/// Writes ui/src/bindings.ts.
pub fn write_bindings() -> Result<()> {
    let mut command = cargo::command(["test", "-q"]);
    cargo::run(command.args(PROGRAM).args(["--lib", "bindings"]).env("PARTYLINE_WRITE_BINDINGS", "1"))
}
