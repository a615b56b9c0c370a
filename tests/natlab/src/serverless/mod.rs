//! Parties of the real programs without any server: the members find each other by addresses in the link and by the DHT.
//!
//! Homes are 40 ms apart, and nodes of the DHT answer within about 110 ms ([`crate::dht`]). Times count from the moment a
//! joiner is given the link to the first packets through the tunnel in both directions.

mod figures;
mod groups;
mod internet;
mod meeting;
mod meetings;
mod quiet;
mod refusals;
mod scenarios;
mod watch;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use self::scenarios::{Scenario, scenarios};
use crate::{
    party::{Play, World, play_all},
    sweep::sweep,
};

/// Options of `natlab serverless`.
#[derive(Debug, Args)]
pub struct Options {
    /// Runs only scenarios whose names contain one of these; by default those that CI runs.
    names: Vec<String>,
    /// Number of meetings in scenarios that measure the time of one.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Runs all scenarios.
    #[arg(long)]
    all: bool,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// Prints one JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// Runs the chosen scenarios. Exits with a failure if one fails.
///
/// # Errors
/// Returns an error if no scenario matches, or leftovers of earlier runs cannot be removed.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        scenarios().iter().for_each(|scenario| println!("{:20} {}", scenario.name, scenario.about));
        return Ok(ExitCode::SUCCESS);
    }
    sweep()?;
    let chosen: Vec<_> = scenarios().iter().filter(|scenario| options.choose(scenario)).collect();
    ensure!(!chosen.is_empty(), "no scenario of that name; --list shows them");
    let plays = chosen.into_iter().map(|scenario| Play {
        name: scenario.name,
        run: Box::new(move |world: &World| (scenario.run)(world, options.runs)),
    });
    play_all(plays, options.json)
}

impl Options {
    fn choose(&self, scenario: &Scenario) -> bool {
        if self.names.is_empty() {
            return self.all || scenario.in_ci;
        }
        self.names.iter().any(|name| scenario.name.contains(name.as_str()))
    }
}
