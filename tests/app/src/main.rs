//! `cargo xtask app-test` tests the app in its window, each scenario in a lab of its own.

mod bench;
mod desktop;
mod panel;
mod pictures;
mod process_stat;
mod steps;
mod stories;
mod webdriver;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use natlab::party::World;

use crate::stories::{Story, stories};

/// Runs the app in a window on a virtual display, and checks what it shows.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask app-test")]
struct Arguments {
    /// Scenarios to run; all if none is given.
    stories: Vec<String>,
    /// Lists the scenarios instead.
    #[arg(long)]
    list: bool,
    /// Takes screenshots of every screen instead, and writes them to this directory.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Measures start times and idle processor time instead.
    #[arg(long)]
    bench: bool,
    /// Directory of the app, such as that of a release build; by default the directory of this program.
    #[arg(long, value_name = "DIR")]
    app: Option<PathBuf>,
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("app-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        stories().iter().for_each(|story| println!("{:16} {}", story.name, story.about));
        return Ok(());
    }
    let programs = programs(arguments)?;
    if let Some(directory) = &arguments.pictures {
        return pictures::take(&World::new()?, &programs, directory);
    }
    if arguments.bench {
        return bench::measure(&World::new()?, &programs);
    }
    let named =
        |story: &&Story| arguments.stories.is_empty() || arguments.stories.contains(&story.name.into());
    let chosen: Vec<_> = stories().iter().filter(named).collect();
    ensure!(!chosen.is_empty(), "no such story; --list shows them");
    let failed = chosen.iter().filter(|story| !passes(story, &programs)).count();
    println!("{} stories passed, {failed} failed", chosen.len() - failed);
    ensure!(failed == 0, "{failed} of {} stories failed", chosen.len());
    Ok(())
}

fn passes(story: &Story, programs: &Path) -> bool {
    let begun = Instant::now();
    let result = World::new().and_then(|world| {
        (story.run)(&world, programs).with_context(|| world.last_words(&format!("app-{}", story.name)))
    });
    let seconds = begun.elapsed().as_secs();
    match &result {
        Ok(()) => println!("app {:16} ok      {seconds:4} s  {}", story.name, story.about),
        Err(error) => println!("app {:16} FAILED  {seconds:4} s\n{error:?}", story.name),
    }
    result.is_ok()
}

/// Returns the directory of the app.
fn programs(arguments: &Arguments) -> Result<PathBuf> {
    let programs = match &arguments.app {
        Some(directory) => directory.canonicalize().context("the app's directory")?,
        None => env::current_exe()?.parent().context("no directory")?.to_owned(),
    };
    ensure!(programs.join("partyline-app").exists(), "partyline-app is not in {}", programs.display());
    Ok(programs)
}
