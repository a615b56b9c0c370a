//! A Python with libtorrent, whose DHT nodes run in the lab. It stays in the target directory; the system's Python is left
//! alone.

use std::process::Command;

use anyhow::Result;

use crate::cargo;

/// The version in use, which has wheels for the Pythons of Debian 12 and 13.
const VERSION: &str = "2.1.1.0";
const REQUIREMENT: &str = "libtorrent==2.1.1";

/// Makes the virtual environment, if there is none with that version.
///
/// # Errors
/// Python has no module `venv`, or pip failed.
pub fn install() -> Result<()> {
    let directory = cargo::target().join("lab-python");
    let python = directory.join("bin/python");
    let check = format!("import libtorrent; assert libtorrent.version == '{VERSION}'");
    if cargo::succeeds(Command::new(&python).args(["-c", &check])) {
        return Ok(());
    }
    cargo::run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT];
    cargo::run(Command::new(&python).args(install))
}
