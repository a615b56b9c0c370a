//! The life of a party, with one trouble after another: four members behind different NATs leave and come back, are
//! kicked, restarted, killed, unplugged and put to sleep, while the party's range, the server and the routers change.
//! After each trouble everybody has to answer everybody, and nothing may grow.

mod life;
mod resources;
mod trouble;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::json;

use self::{life::Life, resources::Usage, trouble::Trouble};
use crate::{party::World, sweep::sweep};

/// By when everybody should answer again after a trouble.
const BAR: Duration = Duration::from_secs(6);
/// The next trouble comes at a random moment within this span after everybody has answered.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Options of `natlab soak`.
#[derive(Debug, Args)]
pub struct Options {
    /// Minutes of troubles.
    #[arg(long, default_value_t = 15)]
    minutes: u64,
    /// Seed of the order of the troubles, and of their moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only troubles with one of these in their names, such as "router".
    #[arg(long)]
    only: Vec<String>,
    /// Prints one JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// A trouble that is over, and how long it took until everybody answered.
struct Survived {
    trouble: Trouble,
    back: Duration,
}

/// Plays the life of a party. Exits with a failure if somebody stays away, or memory, descriptors or threads grow.
///
/// # Errors
/// Returns an error if the lab cannot be built, or a trouble cannot be made.
pub fn run(options: &Options) -> Result<ExitCode> {
    sweep()?;
    let world = World::new()?;
    let mut life = Life::new(&world)?;
    let mut usage = Usage::default();
    let mut survived = Vec::new();
    let result = play(options, &mut life, &mut usage, &mut survived);
    if result.is_err() {
        eprintln!("{}", world.last_words("soak"));
    }
    report(options, &survived, &usage, result.as_ref().err())?;
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(
    options: &Options,
    life: &mut Life<'_>,
    usage: &mut Usage,
    survived: &mut Vec<Survived>,
) -> Result<()> {
    let mut dice = ChaCha8Rng::seed_from_u64(options.seed);
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    while Instant::now() < end {
        // The moment of the trouble is the thing that is varied.
        std::thread::sleep(MAX_PAUSE.mul_f64(f64::from(dice.next_u32()) / f64::from(u32::MAX)));
        let trouble = Trouble::draw_named(&mut dice, &options.only)?;
        life.suffer(trouble)?;
        let since = Instant::now();
        let last = life.everybody_answers(trouble)?;
        let back = since.elapsed();
        eprintln!("{:32} {:5.1} s  {last}{}", trouble.to_string(), back.as_secs_f64(), late(back));
        survived.push(Survived { trouble, back });
        usage.sample(life.witness())?;
    }
    usage.check()
}

fn late(back: Duration) -> &'static str {
    if back > BAR { "  late" } else { "" }
}

fn report(
    options: &Options,
    survived: &[Survived],
    usage: &Usage,
    error: Option<&anyhow::Error>,
) -> Result<()> {
    let mut waits: Vec<f64> = survived.iter().map(|one| one.back.as_secs_f64()).collect();
    waits.sort_by(f64::total_cmp);
    let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
    let (longest, count) = (waits.last().copied().unwrap_or_default(), waits.len());
    let late = survived.iter().filter(|one| one.back > BAR).count();
    println!("{count} troubles; back after {median:.1} s (median), {longest:.1} s (longest); {late} late");
    println!("{usage}");
    if let Some(error) = error {
        println!("FAILED: {error:#}");
    }
    if options.json {
        let troubles: Vec<_> =
            survived.iter().map(|one| (one.trouble.to_string(), one.back.as_secs_f64())).collect();
        let outcome = json!({ "soak": {
            "seed": options.seed, "troubles": troubles, "back_p50_s": median, "back_max_s": longest,
            "bar_s": BAR.as_secs(), "late": late, "usage": usage, "error": error.map(|error| format!("{error:#}")),
        }});
        println!("{outcome}");
    }
    Ok(())
}
