//! The project's tasks: `cargo xtask --help`.

mod app;
mod audit;
mod cargo;
mod check;
mod cross;
mod fuzz;
mod icons;
mod libtorrent;
mod natlab;
mod package;
mod packages;
mod run;
mod screenshots;
mod sim;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs and tests Partyline from a fresh clone.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs missing system packages (it asks first), builds, starts a local server, and opens the app or a party in the
    /// terminal.
    Run(run::Options),
    /// Installs missing system packages (it asks first), and runs everything that CI runs.
    Test(check::Options),
    /// Runs the benchmarks, or one of them by name; figures come as a table and as JSON.
    Bench {
        /// Passed on to the benchmarks; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Labs of network namespaces: list | run NAME | party | serverless | classify | shell NAME | sweep (needs root).
    Natlab {
        /// Passed on to the lab; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs the app in a window on a virtual display, with friends in network namespaces (needs root).
    AppTest {
        /// Passed on to `app-test`; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Regenerates ui/src/bindings.ts from the commands and events of the app.
    Bindings,
    /// Simulates random parties in virtual time, checks every pair, and prints figures as a table and as JSON.
    Sim {
        /// Passed on; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feeds garbage to every parser of bytes from outside.
    Fuzz(fuzz::Options),
    /// Looks the locked crates up in the RustSec advisory database; installs cargo-audit if it is missing.
    Audit(audit::Options),
    /// Checks that the code compiles for Windows and macOS.
    Cross,
    /// Draws all sizes of the icons from their sources (it asks before it installs the tools for it).
    Icons {
        /// Install without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Redraws the pictures of docs/screenshots (it asks before it installs the tools for it).
    Screenshots {
        /// Install without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Builds installable packages, and tests them.
    Package {
        #[command(subcommand)]
        task: package::Task,
    },
    /// Installs what all layers of `test` need together: system packages (it asks first), and libtorrent into the target
    /// directory.
    Setup {
        /// Install without asking.
        #[arg(long)]
        yes: bool,
    },
}

fn main() -> ExitCode {
    match work(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(task: Task) -> Result<()> {
    match task {
        Task::Run(options) => run::run(&options),
        Task::Test(options) => check::run(&options),
        Task::Bench { arguments } => bench(&arguments),
        Task::Natlab { arguments } => natlab::run(&arguments),
        Task::AppTest { arguments } => {
            packages::install(&[&packages::FOR_APP[..], &packages::FOR_APP_TESTS].concat(), false)?;
            app::build_ui()?;
            app::run_stories(&arguments)
        }
        Task::Bindings => app::write_bindings(),
        Task::Sim { arguments } => sim::run(&arguments),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Audit(options) => audit::run(&options),
        Task::Cross => cross::run(),
        Task::Icons { yes } => icons::run(yes),
        Task::Screenshots { yes } => screenshots::run(yes),
        Task::Package { task } => package::run(&task),
        Task::Setup { yes } => {
            packages::install(&check::packages(), yes)?;
            libtorrent::install()
        }
    }
}

/// Builds the programs for release, and runs the benchmarks on them.
fn bench(arguments: &[String]) -> Result<()> {
    packages::install(&packages::FOR_TESTS, false)?;
    cargo::run(cargo::command(["build", "--release"]).args(natlab::PROGRAMS))?;
    cargo::run(cargo::command(["run", "--release", "-p", "partyline-tests-bench", "--"]).args(arguments))
}
