//! Builds the fuzz targets with coverage instrumentation, and runs each for a while.
//!
//! The flags are those of cargo-fuzz without a sanitizer: our code has no unsafe parts, so what counts are panics,
//! overflows, endless loops and memory, which need no more than the stable compiler.

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cargo;

const INSTRUMENTATION: [&str; 7] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct Options {
    /// Targets; all if none is named. They are the files in tests/fuzz/src/bin.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
}

impl Options {
    /// All targets, each for a span.
    pub const fn all(seconds: u32) -> Self {
        Self { targets: Vec::new(), seconds }
    }
}

/// Fuzzes, as many targets at once as there are cores, and fails if any target does. What made it fail lies in tests/fuzz/artifacts.
pub fn run(options: &Options) -> Result<()> {
    let workspace = cargo::root().join("tests/fuzz");
    let known = targets(&workspace)?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("no target {unknown}; there are {}", known.join(", "));
    }
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    let programs = build(&workspace)?;
    let (waiting, failed) = (Mutex::new(chosen.iter()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = lock(&waiting).next() {
            match fuzz(&workspace, &programs, target, options.seconds) {
                Ok(summary) => println!("fuzz {target:20} ok      {summary}"),
                Err(error) => {
                    println!("fuzz {target:20} FAILED  {error:#}");
                    lock(&failed).push(target.as_str());
                }
            }
        }
    };
    // A fuzzer keeps one core busy.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} fuzz targets passed, {} failed", chosen.len() - failed.len(), failed.len());
    ensure!(failed.is_empty(), "fuzzing found something in {}", failed.join(", "));
    Ok(())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn targets(workspace: &Path) -> Result<Vec<String>> {
    let mut targets: Vec<_> = fs::read_dir(workspace.join("src/bin"))?
        .flatten()
        .filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    targets.sort();
    Ok(targets)
}

/// Builds all targets and gives the directory they are in. A target triple is named so that the instrumentation
/// reaches no build script.
fn build(workspace: &Path) -> Result<PathBuf> {
    let host = cargo::rustc("host")?;
    let mut command = cargo::command(["build", "--release", "--bins", "--target", &host]);
    command.current_dir(workspace).env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"));
    command.env("CARGO_TARGET_DIR", workspace.join("target"));
    cargo::run(&mut command)?;
    Ok(workspace.join("target").join(host).join("release"))
}

fn fuzz(workspace: &Path, programs: &Path, target: &str, seconds: u32) -> Result<String> {
    let (found, artifacts) = (workspace.join("target/corpus").join(target), workspace.join("artifacts"));
    let seeds = workspace.join("corpus").join(target);
    [&found, &artifacts, &seeds].into_iter().try_for_each(fs::create_dir_all)?;
    let mut command = Command::new(programs.join(target));
    command.args(["-timeout=25", "-rss_limit_mb=1024", "-max_len=8192", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    let output = command.args([&found, &seeds]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<_> = said.lines().rev().take(30).collect();
        bail!("{}\n{}", output.status, last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    summary(&said).context("the fuzzer printed no figures")
}

/// How many inputs were tried, and how much of the code they reached.
fn summary(said: &str) -> Option<String> {
    let tried = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim();
    let covered = said.lines().rev().find_map(|line| line.split("cov: ").nth(1)?.split(' ').next());
    Some(format!("{tried} inputs, {} edges", covered.unwrap_or("0")))
}
