//! The lab of network namespaces, with the programs that play in it.

use anyhow::Result;

use crate::cargo;

/// Arguments of `cargo build` that make the real programs.
pub const PROGRAMS: [&str; 6] = ["-p", "partyline-cli", "-p", "partyline-service", "-p", "partyline-server"];

/// Builds what the lab's command needs, and runs it.
pub fn run(arguments: &[String]) -> Result<()> {
    let plays = arguments.first().is_some_and(|command| {
        matches!(command.as_str(), "run" | "party" | "portmap" | "classify" | "matrix" | "roam" | "shell")
    });
    if plays {
        cargo::run(cargo::command(["build"]).args(PROGRAMS))?;
    }
    cargo::run(
        cargo::command(["run", "-q", "-p", "partyline-natlab", "--bin", "natlab", "--"]).args(arguments),
    )
}
