//! Random parties in virtual time.

use anyhow::Result;

use crate::cargo;

/// What CI plays; the same every time.
pub const IN_CI: [&str; 4] = ["--parties", "3000", "--members", "2..8"];

/// Builds the simulation with a profile of its own, and plays.
pub fn run<A: AsRef<str>>(arguments: &[A]) -> Result<()> {
    let simulation =
        ["run", "-q", "--profile", "sim", "-p", "partyline-tests-sim", "--bin", "partyline-sim", "--"];
    cargo::run(cargo::command(simulation).args(arguments.iter().map(AsRef::as_ref)))
}
