//! `cargo xtask sim`: many random parties in virtual time, judged and measured.

use std::{fs, ops::RangeInclusive, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use partyline_tests_sim::{
    crowd::{self, Played},
    figures::Figures,
    report,
    scale::{Scale, measure},
    scenario::Scenario,
    shrink::{shrink, survive},
};

/// Plays random parties in virtual time; fails if one of them comes out wrong.
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Arguments {
    /// The number of parties.
    #[arg(long, default_value_t = 1000)]
    parties: u64,
    /// The first party's seed; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The least and the greatest number of members, as `2..32`.
    #[arg(long, default_value = "2..32", value_parser = range)]
    members: RangeInclusive<usize>,
    /// Plays this one scenario, as written down in tests/sim/corpus; PARTYLINE_LOG sets what it logs, such as "debug".
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Makes the first failing scenario smaller and writes it to this file.
    #[arg(long)]
    shrink: Option<PathBuf>,
    /// Instead: what a pair of members costs in parties of 8, 16, 32 … up to so many members, and in several parties.
    #[arg(long, num_args = 0..=1, default_missing_value = "250")]
    scale: Option<usize>,
    /// Prints figures as JSON only.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.scenario, arguments.scale) {
        (Some(file), _) => replay(file, &arguments),
        (None, Some(most)) => grow(most, arguments.json),
        (None, None) => play_many(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn grow(most: usize, json: bool) -> Result<bool> {
    let sizes = [8, 16, 32, 64, 128, 250].into_iter().filter(|members| *members <= most);
    let all: Vec<Scale> = sizes
        .map(|members| (members, 1))
        .chain([(8, 2), (8, 4), (8, 8)])
        .map(|(members, parties)| {
            let scale = measure(members, parties);
            if !json {
                report::print_scale(&scale);
            }
            scale
        })
        .collect();
    println!("{}", serde_json::json!({ "scale": all }));
    Ok(true)
}

fn replay(file: &PathBuf, arguments: &Arguments) -> Result<bool> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let scenario: Scenario = serde_json::from_str(&text)?;
    if let Ok(filter) = std::env::var("PARTYLINE_LOG") {
        // The clock of the log would be the real one; the spans have that of the scenario.
        let log =
            tracing_subscriber::fmt().without_time().with_env_filter(filter).with_writer(std::io::stderr);
        log.with_ansi(false).try_init().map_err(|error| anyhow::anyhow!("log: {error}"))?;
    }
    let outcome = survive(&scenario);
    println!("{outcome:#?}");
    if !outcome.wrong.is_empty() {
        keep_smaller(&scenario, arguments)?;
    }
    Ok(outcome.wrong.is_empty())
}

fn play_many(arguments: &Arguments) -> Result<bool> {
    let begun = Instant::now();
    let played = crowd::run(arguments.seed, arguments.parties, &arguments.members);
    let took = begun.elapsed().as_secs_f64();
    let failed: Vec<&Played> = played.iter().filter(|played| !played.outcome.wrong.is_empty()).collect();
    for played in failed.iter().take(20) {
        report_wrong(played, &arguments.members);
    }
    if let Some(first) = failed.first() {
        keep_smaller(&crowd::scenario(first.seed, &arguments.members), arguments)?;
    }
    let groups = groups(&played);
    if !arguments.json {
        groups.iter().for_each(|(name, figures)| report::print(name, figures));
        report::print_worst(&played);
        println!("{} parties in {took:.1} s, {} with a wrong outcome", played.len(), failed.len());
    }
    let figures: serde_json::Map<_, _> = groups
        .iter()
        .map(|(name, figures)| Ok((name.clone(), serde_json::to_value(figures)?)))
        .collect::<Result<_>>()?;
    let line = serde_json::json!({
        "sim": figures, "parties": played.len(), "seed": arguments.seed, "wrong": failed.len(), "took_s": took,
    });
    println!("{line}");
    Ok(failed.is_empty())
}

/// Groups parties by what helps them, and by size.
fn groups(played: &[Played]) -> Vec<(String, Figures)> {
    let mut groups = vec![
        ("all".to_owned(), Figures::of(played)),
        ("with IPv6 and open ports".to_owned(), Figures::of(played.iter().filter(|played| played.helped))),
        ("without".to_owned(), Figures::of(played.iter().filter(|played| !played.helped))),
    ];
    for (least, most) in [(2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 1000)] {
        let fits = |played: &&Played| (least..=most).contains(&played.outcome.members);
        let figures = Figures::of(played.iter().filter(fits));
        if figures.parties > 0 {
            groups.push((format!("{least} to {most} members"), figures));
        }
    }
    groups
}

fn report_wrong(played: &Played, members: &RangeInclusive<usize>) {
    println!("seed {} came out wrong:", played.seed);
    played.outcome.wrong.iter().take(8).for_each(|wrong| println!("  {wrong}"));
    let (least, most) = members.clone().into_inner();
    println!("  cargo xtask sim --parties 1 --seed {} --members {least}..{most}", played.seed);
}

fn keep_smaller(scenario: &Scenario, arguments: &Arguments) -> Result<()> {
    let Some(file) = &arguments.shrink else { return Ok(()) };
    let smaller = shrink(scenario);
    survive(&smaller).wrong.iter().for_each(|wrong| println!("smaller: {wrong}"));
    fs::write(file, serde_json::to_string_pretty(&smaller)?)
        .with_context(|| format!("write {}", file.display()))
}

fn range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (least, most) = text.split_once("..").ok_or("two numbers with .. between them")?;
    let number = |text: &str| text.parse::<usize>().map_err(|error| error.to_string());
    let (least, most) = (number(least)?, number(most)?);
    if least < 2 || most < least || most > 250 {
        return Err("from 2 to 250".to_owned());
    }
    Ok(least..=most)
}
