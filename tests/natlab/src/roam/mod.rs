//! What happens to paths while people run: each trouble comes under a game's stream both ways and a TCP connection,
//! and what counts is how long nothing arrives, what is lost, and that the connection lasts.

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

/// What to play.
#[derive(Debug, Args)]
pub struct Options {
    /// Only stories whose names contain one of these.
    names: Vec<String>,
    /// Seconds that a computer sleeps.
    #[arg(long, default_value_t = 60)]
    sleep: u64,
    /// Stories that are played side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Ends with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Plays the chosen stories. It fails if members do not come back, or a connection breaks.
///
/// # Errors
/// None is chosen.
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
        // A slow story has its logs kept too.
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
