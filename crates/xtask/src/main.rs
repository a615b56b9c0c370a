//! The project's tasks: `cargo xtask --help`.

mod app;
mod cargo;
mod check;
mod cross;
mod fuzz;
mod icons;
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
    /// Installs what is missing (it asks first), builds, starts a server here, and opens the app, or a party in the terminal.
    Run(run::Options),
    /// Installs what is missing (it asks first), and runs everything that CI runs.
    Test(check::Options),
    /// Runs the benchmarks, or one of them by name; figures come as a table and as JSON.
    Bench {
        /// Passed on to the benchmarks; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Labs of network namespaces: list | run NAME | party | classify | shell NAME | sweep (needs root).
    Natlab {
        /// Passed on to the lab; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs the real app in a real window on a display of its own, with friends in namespaces (needs root).
    AppTest {
        /// Passed on to the stories; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Writes ui/src/bindings.ts anew from the commands and events of the app.
    Bindings,
    /// Plays random parties in virtual time, judges every pair, and prints figures as a table and as JSON.
    Sim {
        /// Passed on; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feeds garbage to every parser of bytes from outside.
    Fuzz(fuzz::Options),
    /// Checks that the code compiles for Windows and macOS.
    Cross,
    /// Draws all sizes of the icons from their sources (it asks before it installs what draws them).
    Icons {
        /// Install without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Draws the pictures of docs/screenshots anew (it asks before it installs what draws them).
    Screenshots {
        /// Install without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Makes packages to install, and tests them.
    Package {
        #[command(subcommand)]
        task: package::Task,
    },
    /// Installs what the tests need (it asks first).
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
            app::tell(&arguments)
        }
        Task::Bindings => app::write_bindings(),
        Task::Sim { arguments } => sim::run(&arguments),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Cross => cross::run(),
        Task::Icons { yes } => icons::run(yes),
        Task::Screenshots { yes } => screenshots::run(yes),
        Task::Package { task } => package::run(&task),
        Task::Setup { yes } => packages::install(&packages::FOR_TESTS, yes),
    }
}

/// Benchmarks measure the release build of the real programs.
fn bench(arguments: &[String]) -> Result<()> {
    packages::install(&packages::FOR_TESTS, false)?;
    cargo::run(cargo::command(["build", "--release"]).args(natlab::PROGRAMS))?;
    cargo::run(cargo::command(["run", "--release", "-p", "partyline-tests-bench", "--"]).args(arguments))
}
