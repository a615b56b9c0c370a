//! Connects every pair of the 27 NAT types with the real programs, and reports whether, how and how soon.
//!
//! Each pair has a lab of its own: a server with two addresses (rendezvous, STUN, relay), and two homes with the NAT
//! types of the pair. The first member has settled in the party when the second one, which has never measured its
//! network, joins by link. Each line has half of the configured latency, so that two members are the whole of it apart.

mod chart;
mod pair;
mod report;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use partyline_nat::Rules;

pub use self::report::Requirement;
use self::{
    pair::{Pair, Patience},
    report::Report,
};
use crate::{Line, parallel::run_parallel, sweep::sweep};

/// Options of `natlab matrix`.
#[derive(Debug, Args)]
pub struct Options {
    /// Pairs to run: a list such as `EI/PD/PP:HD/EI/RD,...`, or a number of pairs spread evenly over all.
    #[arg(long)]
    pairs: Option<Choice>,
    /// Packets lost from one member to another or to the server, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50))]
    loss: u16,
    /// Maximum additional delay of a packet, in milliseconds.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// One-way latency between two members, in milliseconds.
    #[arg(long, default_value_t = 20)]
    latency: u64,
    /// Time limit for a pair to connect, and again to become direct, in seconds.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Requirement for every pair.
    #[arg(long, value_enum, default_value_t = Requirement::Direct)]
    require: Requirement,
    /// Number of pairs that run in parallel.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Prints one JSON object after the tables.
    #[arg(long)]
    json: bool,
    /// Writes the matrix as an SVG chart to this file.
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
}

/// The pairs to run.
#[derive(Debug, Clone)]
enum Choice {
    Spread(usize),
    Named(Vec<[String; 2]>),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse() {
            return Ok(Self::Spread(count));
        }
        let pair = |words: &str| {
            let (one, other) = words.split_once(':').ok_or_else(|| format!("{words:?} is no pair A:B"))?;
            Ok([one.to_owned(), other.to_owned()])
        };
        text.split(',').map(pair).collect::<Result<_, _>>().map(Self::Named)
    }
}

/// Runs the chosen pairs. Exits with a failure if one does not meet the requirement.
///
/// # Errors
/// Returns an error if no pair is chosen, or the chart cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    sweep()?;
    let pairs = chosen(options.pairs.as_ref())?;
    ensure!(!pairs.is_empty(), "no pair chosen");
    // The path between two members crosses two lines.
    let line = Line {
        latency: Duration::from_millis(options.latency) / 2,
        jitter: Duration::from_millis(options.jitter) / 2,
        loss: options.loss * 5,
    };
    let patience = Patience(Duration::from_secs(options.patience));
    let outcomes = run_parallel(options.jobs, &pairs, |_, pair| pair.run(line, patience));
    let rough = options.jitter > 0 || options.loss > 0;
    let report = Report::new(outcomes, rough);
    if let Some(path) = &options.svg {
        fs::write(path, chart::draw(&report)).with_context(|| format!("write {}", path.display()))?;
    }
    report.print();
    if options.json {
        println!("{}", report.json()?);
    }
    Ok(if report.meets(options.require) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the chosen pairs, or all 378.
fn chosen(choice: Option<&Choice>) -> Result<Vec<Pair>> {
    let types: Vec<_> = Rules::all_types(1).collect();
    let count = types.len();
    match choice {
        None => Ok((0..count)
            .flat_map(|one| (one..count).map(move |other| [one, other]))
            .map(|pair| Pair::new(pair.map(|index| types[index])))
            .collect()),
        Some(Choice::Spread(many)) => Ok((0..spread_pairs(count))
            .take(*many)
            .map(|number| Pair::new(spread(number, count).map(|index| types[index])))
            .collect()),
        Some(Choice::Named(names)) => names.iter().map(|pair| named(&types, pair)).collect(),
    }
}

/// Returns the number of unordered pairs of distinct types, and of each type with itself, for an odd number of types.
const fn spread_pairs(types: usize) -> usize {
    types * types.div_ceil(2)
}

/// Returns a pair by its number, in an order in which every prefix has each type about equally often: first each type
/// with the one four places further, then each with the one nine places further, and so on.
const fn spread(number: usize, types: usize) -> [usize; 2] {
    let (one, round) = (number % types, number / types);
    [one, (one + (5 * round + 4) % types.div_ceil(2)) % types]
}

fn named(types: &[Rules], names: &[String; 2]) -> Result<Pair> {
    let find = |name: &String| types.iter().copied().find(|rules| rules.short() == *name);
    match (find(&names[0]), find(&names[1])) {
        (Some(one), Some(other)) => Ok(Pair::new([one, other])),
        _ => bail!("{names:?}: a type is named like EI/PD/PP (mapping, filtering, allocation)"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_pairs_are_378_and_a_spread_covers_every_type() {
        assert_eq!(chosen(None).unwrap().len(), 378);
        let pairs = |count| -> BTreeSet<_> {
            let spread = chosen(Some(&Choice::Spread(count))).unwrap();
            let names = spread.iter().map(Pair::names);
            names.map(|mut names| (names.sort(), names).1).collect()
        };
        let some = pairs(40);
        let types: BTreeSet<_> = some.iter().flatten().collect();
        assert_eq!((some.len(), types.len(), pairs(1000).len()), (40, 27, 378));
    }

    #[test]
    fn pairs_are_parsed_from_names() {
        let choice: Choice = "EI/PD/PP:HD/EI/RD,PD/PD/RD:PD/PD/RD".parse().unwrap();
        assert_eq!(chosen(Some(&choice)).unwrap().len(), 2);
        assert!("EI/PD/PP".parse::<Choice>().is_err());
        assert!(chosen(Some(&"EI/PD/PP:XX/EI/RD".parse().unwrap())).is_err());
    }
}
