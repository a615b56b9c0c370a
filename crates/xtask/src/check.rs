//! Everything that CI runs, layer by layer, each with its runner's own output, and one table at the end.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::{app, cargo, cross, fuzz, libtorrent, natlab, packages, sim};

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// Only these layers; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Layer>,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 30)]
    fuzz_seconds: u32,
}

/// A layer of tests. Tests that span crates are in `tests`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Formatting.
    Format,
    /// Clippy and rustdoc, without warnings.
    Lint,
    /// Dependency arrows, purity, module cycles, licences.
    Architecture,
    /// Unit and property tests of all crates.
    Unit,
    /// Random parties in virtual time; every pair is checked.
    Sim,
    /// Against coturn, stun-client and wireguard-go.
    Interop,
    /// The lab of network namespaces itself.
    Natlab,
    /// The network check in a selection of networks; `cargo xtask natlab classify` has all.
    Classify,
    /// Ports opened on real and fake routers.
    Portmap,
    /// Whole parties of the real programs in the lab.
    Party,
    /// Parties without any server, in the lab with a real DHT.
    Serverless,
    /// A selection of pairs of NAT types, connected by the real programs; `cargo xtask natlab matrix` has all.
    Matrix,
    /// Paths, networks and routers that break while a game runs.
    Roam,
    /// The life of a party with one trouble after another; `cargo xtask natlab soak` plays it longer.
    Soak,
    /// The user interface: types, components, every screen and state in a browser.
    Ui,
    /// The desktop app: it builds with its user interface, and its own tests pass.
    App,
    /// The app as people use it, in windows on virtual displays of the lab.
    Stories,
    /// Every parser, fuzzed.
    Fuzz,
    /// The code compiles for Windows and macOS.
    Cross,
}

/// How a layer ended.
enum Verdict {
    Passed,
    Failed(String),
    CouldNotRun(String),
}

struct Outcome {
    layer: Layer,
    verdict: Verdict,
    took: Duration,
}

/// Packages whose tests have a layer of their own.
const SEPARATE_PACKAGES: [&str; 4] =
    ["partyline-tests-architecture", "partyline-tests-interop", "partyline-natlab", "partyline-app"];

/// The environment variable that seeds property tests.
const SEED_VARIABLE: &str = "PROPTEST_RNG_SEED";

/// Returns the packages of all layers together, some of them several times.
pub fn packages() -> Vec<packages::Package> {
    Layer::value_variants().iter().flat_map(|layer| layer.packages()).collect()
}

/// Runs the layers.
///
/// # Errors
/// A layer failed or could not run.
pub fn run(options: &Options) -> Result<()> {
    let chosen = |layer: &&Layer| options.only.is_empty() || options.only.contains(layer);
    let layers: Vec<Layer> = Layer::value_variants().iter().filter(chosen).copied().collect();
    let wanted: Vec<_> = layers.iter().flat_map(|layer| layer.packages()).collect();
    if let Err(error) = packages::install(&wanted, options.yes) {
        eprintln!("cargo xtask: {error:#}");
    }
    let outcomes: Vec<_> = layers.iter().map(|layer| one(*layer, options)).collect();
    conclude(&outcomes)
}

fn one(layer: Layer, options: &Options) -> Outcome {
    eprintln!("\n=== {}", layer.name());
    let begun = Instant::now();
    let verdict = match layer.obstacle() {
        Some(reason) => Verdict::CouldNotRun(reason),
        None => match layer.run(options) {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        },
    };
    if let Verdict::CouldNotRun(reason) | Verdict::Failed(reason) = &verdict {
        eprintln!("{}: {reason}", layer.name());
    }
    Outcome { layer, verdict, took: begun.elapsed() }
}

fn conclude(outcomes: &[Outcome]) -> Result<()> {
    println!("\n=== summary");
    for outcome in outcomes {
        let (word, note) = match &outcome.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Failed(why) => ("FAILED", why.lines().next().unwrap_or_default()),
            Verdict::CouldNotRun(why) => ("COULD NOT RUN", why.as_str()),
        };
        println!("{:14} {word:14} {:5} s  {note}", outcome.layer.name(), outcome.took.as_secs());
    }
    let count =
        |wanted: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count();
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = count(|verdict| matches!(verdict, Verdict::CouldNotRun(_)));
    println!("{} layers passed, {failed} failed, {skipped} could not run", outcomes.len() - failed - skipped);
    ensure!(failed == 0, "{failed} of {} layers failed", outcomes.len());
    ensure!(skipped == 0, "{skipped} of {} layers could not run here", outcomes.len());
    Ok(())
}

impl Layer {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Returns why the layer cannot run on this system, if it cannot.
    fn obstacle(self) -> Option<String> {
        let needs_root = match self {
            Self::Interop | Self::Natlab | Self::Classify | Self::Portmap | Self::Party => true,
            Self::Serverless | Self::Matrix | Self::Roam | Self::Soak | Self::Stories => true,
            Self::Ui | Self::App | Self::Sim | Self::Fuzz | Self::Cross => false,
            Self::Format | Self::Lint | Self::Architecture | Self::Unit => false,
        };
        if needs_root && !cargo::is_root() {
            return Some("needs root, for network namespaces and devices".into());
        }
        let missing = packages::missing(&self.packages());
        if !missing.is_empty() {
            return Some(format!("not installed: {}", packages::names(&missing)));
        }
        let component = match self {
            Self::Format => "fmt",
            Self::Lint => "clippy",
            _ => return None,
        };
        let there = cargo::succeeds(&mut cargo::command([component, "--version"]));
        (!there).then(|| format!("rustup component add {component}"))
    }

    /// Returns the system packages it needs.
    fn packages(self) -> Vec<packages::Package> {
        match self {
            Self::Interop | Self::Natlab => [&packages::FOR_APP[..], &packages::FOR_TESTS].concat(),
            Self::Classify | Self::Portmap | Self::Party => packages::FOR_TESTS.to_vec(),
            Self::Serverless | Self::Matrix | Self::Roam | Self::Soak | Self::Fuzz => {
                packages::FOR_TESTS.to_vec()
            }
            Self::Lint => packages::FOR_APP.to_vec(),
            Self::Ui => [&packages::FOR_APP[..], &packages::FOR_UI_TESTS].concat(),
            Self::Stories => [&packages::FOR_APP[..], &packages::FOR_APP_TESTS].concat(),
            Self::Architecture | Self::App => packages::FOR_APP.to_vec(),
            Self::Unit => [&packages::FOR_APP[..], &packages::FOR_UNIT_TESTS].concat(),
            Self::Format | Self::Sim | Self::Cross => Vec::new(),
        }
    }

    fn run(self, options: &Options) -> Result<()> {
        match self {
            Self::Format => cargo::run(&mut cargo::command(["fmt", "--all", "--check"])),
            Self::Lint => {
                let strict = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
                cargo::run(&mut cargo::command(strict))?;
                let docs = ["doc", "--workspace", "--no-deps", "--document-private-items"];
                cargo::run(cargo::command(docs).env("RUSTDOCFLAGS", "-D warnings"))
            }
            Self::Architecture => test(Tests::Of(SEPARATE_PACKAGES[0])),
            Self::Unit => {
                test(Tests::OfTheRest)?;
                cargo::run(&mut cargo::command(["test", "--doc", "--workspace"]))
            }
            Self::Sim => sim::run(&sim::IN_CI),
            Self::Interop => test(Tests::Of(SEPARATE_PACKAGES[1])),
            Self::Natlab => {
                libtorrent::install()?;
                test(Tests::Of(SEPARATE_PACKAGES[2]))
            }
            Self::Classify => {
                natlab::run(&["classify", "--spread"].map(Into::into))?;
                natlab::run(&["classify", "--spread", "--program"].map(Into::into))
            }
            Self::Portmap => natlab::run(&["portmap".into()]),
            Self::Party => natlab::run(&["party".into()]),
            Self::Serverless => natlab::run(&["serverless".into()]),
            Self::Matrix => {
                natlab::run(&["matrix", "--pairs", "40", "--require", "connected"].map(Into::into))
            }
            Self::Roam => natlab::run(&["roam", "--sleep", "10", "--jobs", "3"].map(Into::into)),
            Self::Soak => natlab::run(&["soak", "--minutes", "5"].map(Into::into)),
            Self::Ui => app::check_ui(),
            Self::App => {
                app::build_ui()?;
                test(Tests::Of(SEPARATE_PACKAGES[3]))
            }
            Self::Stories => {
                app::build_ui()?;
                app::run_stories(&[])
            }
            Self::Fuzz => fuzz::run(&fuzz::Options::all(options.fuzz_seconds)),
            Self::Cross => cross::run(),
        }
    }
}

/// A selection of tests.
#[derive(Clone, Copy)]
enum Tests {
    /// Those of a package.
    Of(&'static str),
    /// Those of packages without a layer of their own.
    OfTheRest,
}

impl Tests {
    /// Returns the filter for nextest, which builds the tests of all packages whichever it runs, so that everything is
    /// compiled once.
    fn filter(self) -> String {
        match self {
            Self::Of(package) => format!("package({package})"),
            Self::OfTheRest => {
                format!(
                    "not ({})",
                    SEPARATE_PACKAGES.map(|package| format!("package({package})")).join(" + ")
                )
            }
        }
    }

    /// Returns the arguments for `cargo test`, which has no filter.
    fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Of(package) => vec!["-p", package],
            Self::OfTheRest => std::iter::once("--workspace")
                .chain(SEPARATE_PACKAGES.iter().flat_map(|p| ["--exclude", p]))
                .collect(),
        }
    }
}

/// Runs tests with nextest if it is installed, each in a process of its own, else with cargo.
fn test(tests: Tests) -> Result<()> {
    let mut command = if cargo::succeeds(&mut cargo::command(["nextest", "--version"])) {
        let runner = ["nextest", "run", "--no-fail-fast", "--no-tests=pass", "--workspace", "-E"];
        let mut command = cargo::command(runner);
        command.arg(tests.filter());
        command
    } else {
        let mut command = cargo::command(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
        command.args(tests.packages());
        command
    };
    // Fixed cases keep CI reproducible; other seeds are for longer runs by hand.
    if env::var_os(SEED_VARIABLE).is_none() {
        command.env(SEED_VARIABLE, "1");
    }
    cargo::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_installs_the_packages_of_every_layer() {
        let all = packages();
        for layer in Layer::value_variants() {
            for package in layer.packages() {
                assert!(all.contains(&package), "{} needs {package:?}", layer.name());
            }
        }
        assert!(all.len() > packages::FOR_TESTS.len());
    }
}
