//! The Python that has libtorrent.

use std::{env, path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::checked;

/// The virtual environment that `cargo xtask` makes, beside the programs or in a directory above them.
const ENVIRONMENT: &str = "lab-python/bin/python";

/// Returns the path of a Python that can import libtorrent: that of the virtual environment, or else the system's.
pub fn interpreter() -> Result<String> {
    let program = env::current_exe()?;
    let own = program.ancestors().map(|directory| directory.join(ENVIRONMENT)).find(|path| path.exists());
    let python = own.unwrap_or_else(|| Path::new("python3").to_owned()).to_string_lossy().into_owned();
    let imported = checked(Command::new(&python).args(["-c", "import libtorrent"]));
    ensure!(imported.is_ok(), "{python} has no libtorrent; `cargo xtask setup` installs it");
    Ok(python)
}
