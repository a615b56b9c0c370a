//! Looks the locked crates up in the RustSec advisory database, with cargo-audit.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Result, ensure};
use clap::Args;

use crate::cargo;

/// Lock files: of the workspace, and of the fuzz targets, which are a workspace of their own.
const LOCKS: [&str; 2] = ["Cargo.lock", "tests/fuzz/Cargo.lock"];

/// Where the advisories come from.
#[derive(Args)]
pub struct Options {
    /// A directory with a copy of the database; by default the current one is fetched.
    #[arg(long, value_name = "DIRECTORY")]
    database: Option<PathBuf>,
}

/// Fails if a vulnerability is known in a locked crate. What is unmaintained or was withdrawn is shown.
pub fn run(options: &Options) -> Result<()> {
    if !is_installed() {
        ensure!(
            cargo::command(["install", "--locked", "cargo-audit"]).status()?.success(),
            "cargo-audit could not be installed"
        );
    }
    for lock in LOCKS {
        let mut audit = cargo::command(["audit", "--file", lock]);
        if let Some(database) = &options.database {
            audit.arg("--no-fetch").arg("--db").arg(database);
        }
        ensure!(audit.status()?.success(), "there are advisories against {lock}");
    }
    Ok(())
}

fn is_installed() -> bool {
    let version = cargo::command(["audit", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}
