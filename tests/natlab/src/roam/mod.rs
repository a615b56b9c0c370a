//! Measures how paths survive faults: each scenario breaks something under a UDP stream in both directions and a TCP
//! connection, and measures the outage, the datagrams lost, and whether the TCP connection survives.

mod game;
mod report;
mod stories;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;

use self::{
    game::Measured,
    report::Outcome,
    stories::{Story, stories},
};
use crate::{parallel::run_parallel, party::World, sweep::sweep};

/// Options of `natlab roam`.
#[derive(Debug, Args)]
pub struct Options {
    /// Runs only scenarios whose names contain one of these.
    names: Vec<String>,
    /// Time that a computer sleeps, in seconds.
    #[arg(long, default_value_t = 60)]
    sleep: u64,
    /// Number of scenarios that run in parallel.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints one JSON object after the table.
    #[arg(long)]
    json: bool,
}

/// Runs the chosen scenarios. Exits with a failure if members do not recover, or a TCP connection breaks.
///
/// # Errors
/// Returns an error if no scenario matches.
pub fn run(options: &Options) -> Result<ExitCode> {
    sweep()?;
    let named = |story: &&Story| {
        options.names.is_empty() || options.names.iter().any(|name| story.name.contains(name.as_str()))
    };
    let chosen: Vec<_> = stories().iter().filter(named).collect();
    ensure!(!chosen.is_empty(), "no story of that name");
    let sleep = Duration::from_secs(options.sleep);
    let outcomes = run_parallel(options.jobs, &chosen, |_, story| one(story, sleep));
    report::print(&outcomes, options.json)?;
    Ok(if outcomes.iter().all(|outcome| outcome.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(story: &Story, sleep: Duration) -> Outcome {
    let blank = Outcome {
        name: story.name,
        about: story.about,
        bar_s: story.bar,
        outage_s: None,
        lost: 0,
        twice: 0,
        tcp_gap_s: None,
        passed: false,
        error: None,
    };
    let failed = |error: anyhow::Error| Outcome { error: Some(format!("{error:#}")), ..blank };
    let world = match World::new() {
        Ok(world) => world,
        Err(error) => return failed(error),
    };
    let played = (story.run)(&world, sleep);
    let limit = Duration::from_secs_f64(story.bar);
    if played.as_ref().map_or(true, |measured| measured.outage > limit) {
        // The logs of a slow scenario are kept too.
        let _ = world.last_words(&format!("roam-{}", story.name));
    }
    let outcome = match played {
        Ok(Measured { outage, lost, twice, tcp }) => Outcome {
            outage_s: Some(outage.as_secs_f64()),
            lost,
            twice,
            tcp_gap_s: Some(tcp.as_secs_f64()),
            passed: true,
            ..blank
        },
        Err(error) => failed(error),
    };
    eprintln!("{}", report::line(&outcome));
    outcome
}
