//! The lab of network namespaces, with the programs that play in it.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, libtorrent};

/// Arguments of `cargo build` that make the real programs.
pub const PROGRAMS: [&str; 6] = ["-p", "partyline-cli", "-p", "partyline-service", "-p", "partyline-server"];

/// The lab's own program and those that play in it.
pub const LAB: [&str; 8] =
    ["--bin", "natlab", "--bin", "partyline", "--bin", "partyline-service", "--bin", "partyline-server"];

/// Builds what the lab needs, and runs it.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments.first().is_some_and(|job| job == "serverless") {
        libtorrent::install()?;
    }
    cargo::run(cargo::command(["build"]).args(cargo::ALIKE).args(LAB))?;
    cargo::run(Command::new(cargo::target().join("debug/natlab")).args(arguments))
}
