//! Packages of the programs for Linux, made of what cargo has built with Debian's own tools.

mod deb;
mod product;
mod rpm;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use self::product::{Product, output_directory};
use crate::{app, cargo, packages};

/// What to do about packages.
#[derive(Subcommand)]
pub enum Task {
    /// Makes a deb and an rpm of the desktop app, the command line and the service.
    Linux(Linux),
    /// Installs, uses, upgrades, removes and purges the packages, in a Debian of their own (needs root).
    Test(Test),
}

/// What to make.
#[derive(Args)]
pub struct Linux {
    /// Leave the app out: `partyline-cli`, for computers without a screen.
    #[arg(long)]
    without_app: bool,
    /// Only this format.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Counts packages of one version.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// Package a debug build, to try packaging out.
    #[arg(long)]
    debug: bool,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// How to test.
#[derive(Args)]
pub struct Test {
    /// Test the release build.
    #[arg(long)]
    release: bool,
    /// Only one of the packages.
    #[arg(long, value_enum)]
    only: Option<Which>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// `partyline`, with the app.
    App,
    /// `partyline-cli`, without.
    Cli,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Debian, Ubuntu.
    Deb,
    /// Fedora, openSUSE.
    Rpm,
}

/// Makes or tests packages.
pub fn run(task: &Task) -> Result<()> {
    match task {
        Task::Linux(options) => {
            packages::install(&packages::FOR_PACKAGES, options.yes)?;
            if !options.without_app {
                packages::install(&packages::FOR_APP, options.yes)?;
            }
            let formats = options.format.map_or(Format::value_variants().to_vec(), |format| vec![format]);
            let programs = build(!options.without_app, !options.debug)?;
            let product = Product::new(!options.without_app, options.revision, options.debug)?;
            for package in make(&product, &formats, &programs)? {
                println!("{:9} {}", size(&package)?, package.display());
            }
            Ok(())
        }
        Task::Test(options) => test(options),
    }
}

/// Makes a package in the given formats, and returns their paths.
fn make(product: &Product, formats: &[Format], programs: &Path) -> Result<Vec<PathBuf>> {
    let work = output_directory()?.join(product.name);
    let make = |format: &Format| match format {
        Format::Deb => deb::make(product, programs, &work.join("deb")),
        Format::Rpm => rpm::make(product, programs, &work.join("rpm")),
    };
    formats.iter().map(make).collect()
}

/// Makes two versions of each package, and tries them out.
fn test(options: &Test) -> Result<()> {
    ensure!(cargo::is_root(), "needs root, for a Debian of its own");
    for wanted in [&packages::FOR_PACKAGES[..], &packages::FOR_PACKAGE_TEST, &packages::FOR_APP] {
        packages::install(wanted, options.yes)?;
    }
    let programs = build(true, options.release)?;
    let wanted = |which: &&Which| options.only.is_none_or(|only| only == **which);
    for which in Which::value_variants().iter().filter(wanted) {
        try_out(*which == Which::App, !options.release, &programs)?;
    }
    Ok(())
}

fn try_out(app: bool, quick: bool, programs: &Path) -> Result<()> {
    let make = |app, revision, formats| make(&Product::new(app, revision, quick)?, formats, programs);
    let read = |made: &[PathBuf]| made.iter().map(fs::read).collect::<Result<Vec<_>, _>>();
    let both = Format::value_variants();
    let mut made = make(app, 1, both)?;
    let before = read(&made)?;
    ensure!(read(&make(app, 1, both)?)? == before, "the same programs give other packages");
    made.extend(make(app, 2, both)?);
    made.extend(make(!app, 3, &[Format::Deb])?);
    let script = cargo::root().join("crates/xtask/src/package/test.sh");
    cargo::run(Command::new("bash").arg(script).arg(output_directory()?).args(made))
}

/// Builds the programs by one command, so that they share their dependencies, and returns their directory. Release builds
/// have a directory of their own, since they contain no path of this machine and no debug information, which packages
/// strip anyway.
fn build(app: bool, release: bool) -> Result<PathBuf> {
    let target = if release { output_directory()?.join("build") } else { cargo::target() };
    let mut command = cargo::command(["build", "--locked", "-p", "partyline-cli", "-p", "partyline-service"]);
    if app {
        app::build_ui()?;
        command.args(app::PROGRAM);
    }
    if release {
        command.arg("--release").arg("--target-dir").arg(&target);
        command.env("CARGO_ENCODED_RUSTFLAGS", remap()?).env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    }
    cargo::run(&mut command)?;
    Ok(target.join(if release { "release" } else { "debug" }))
}

/// Flags that give paths of this machine other names.
fn remap() -> Result<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let root = cargo::root();
    let flag = |path: &Path, name| format!("--remap-path-prefix={}={name}", path.display());
    Ok([flag(&home, "/cargo"), flag(&root, "/partyline")].join("\x1f"))
}

fn size(path: &Path) -> Result<String> {
    let bytes = u32::try_from(fs::metadata(path)?.len()).context("a package of more than 4 GiB")?;
    Ok(format!("{:.1} MB", f64::from(bytes) / 1e6))
}
