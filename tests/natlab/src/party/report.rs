//! Runs scenarios one after the other and reports their results.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Scenario, World, scenarios};
use crate::sweep::sweep;

/// What is done in a scenario, and checked.
pub(crate) type Script<'a> = Box<dyn Fn(&World) -> Result<()> + 'a>;

/// A scenario that is to be run in a world of its own.
pub(crate) struct Play<'a> {
    /// The name in the report.
    pub name: &'static str,
    /// What happens.
    pub run: Script<'a>,
}

/// The result of one scenario.
#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    passed: bool,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    figures: Map<String, Value>,
}

/// All results, as `--json` prints them.
#[derive(Serialize)]
struct Report {
    scenarios: Vec<Outcome>,
}

/// Runs the chosen scenarios. With `json`, one object is printed at the end instead of the summary line.
///
/// # Errors
/// Returns an error if no scenario is chosen, or leftovers of earlier runs cannot be removed.
pub fn run(choose: impl Fn(&Scenario) -> bool, json: bool) -> Result<ExitCode> {
    sweep()?;
    let chosen: Vec<_> = scenarios().iter().filter(|scenario| choose(scenario)).collect();
    ensure!(!chosen.is_empty(), "no scenario of that name; `natlab list` shows them");
    let plays = chosen.into_iter().map(|scenario| Play { name: scenario.name, run: Box::new(scenario.run) });
    play_all(plays, json)
}

/// Plays scenarios of any kind one after the other, and prints their results like [`run`].
pub(crate) fn play_all<'a>(plays: impl Iterator<Item = Play<'a>>, json: bool) -> Result<ExitCode> {
    let report = Report { scenarios: plays.map(|play| one(&play)).collect() };
    let failed = report.scenarios.iter().filter(|outcome| !outcome.passed).count();
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{} passed, {failed} failed", report.scenarios.len() - failed);
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(scenario: &Play<'_>) -> Outcome {
    let begun = Instant::now();
    let (result, figures) = match World::new() {
        Ok(world) => {
            let result = (scenario.run)(&world);
            if result.is_err() {
                eprintln!("{}", world.last_words(scenario.name));
            }
            (result, world.figures())
        }
        Err(error) => (Err(error), Map::new()),
    };
    let outcome = Outcome {
        name: scenario.name,
        passed: result.is_ok(),
        seconds: rounded(begun.elapsed()),
        error: result.err().map(|error| format!("{error:#}")),
        figures,
    };
    print(&outcome);
    outcome
}

fn print(outcome: &Outcome) {
    let verdict = if outcome.passed { "ok" } else { "FAILED" };
    let figures: String = outcome.figures.iter().map(|(name, value)| format!("  {name} {value}")).collect();
    eprintln!("{:24} {verdict:6} {:6.1} s{figures}", outcome.name, outcome.seconds);
    if let Some(error) = &outcome.error {
        eprintln!("    {error}");
    }
}

fn rounded(span: Duration) -> f64 {
    (span.as_secs_f64() * 10.0).round() / 10.0
}
