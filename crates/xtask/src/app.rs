//! The desktop app and its user interface.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{cargo, natlab};

/// Arguments of `cargo build` that make the app.
pub const PROGRAM: [&str; 2] = ["-p", "partyline-app"];

/// The Node that is fetched where the system's is too old.
const NODE: &str = "node@22";

fn ui() -> PathBuf {
    cargo::root().join("ui")
}

fn npm(arguments: &[&str]) -> Result<()> {
    cargo::run(&mut npm_command(arguments)?)
}

fn npm_command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new("npm");
    if let Some(programs) = newer_node()? {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&path)))?;
        command.env("PATH", path);
    }
    command.args(arguments).current_dir(ui());
    Ok(command)
}

/// Returns the directory of a newer Node's programs if the system's is too old, as on Debian 12 and Ubuntu 24.04 (18). It is
/// installed by npm into cargo's target directory, and used for nothing else.
fn newer_node() -> Result<Option<PathBuf>> {
    if is_recent(&cargo::output(Command::new("node").arg("--version"))?) {
        return Ok(None);
    }
    let place = cargo::target().join("node");
    let programs = place.join("node_modules/.bin");
    if !cargo::succeeds(Command::new(programs.join("node")).arg("--version")) {
        fs::create_dir_all(&place)?;
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&place);
        cargo::run(command.arg(NODE))
            .context("this system's Node is too old, and a newer one could not be fetched")?;
    }
    Ok(Some(programs))
}

/// Returns true if Vite supports this version of Node.
fn is_recent(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (22, 12) || (version.0 == 20 && version.1 >= 19)
}

/// Installs the npm packages of the user interface, unless the locked versions are installed.
fn install_npm_packages() -> Result<()> {
    let mark = ui().join("node_modules/.partyline-lock");
    let wanted = fs::read(ui().join("package-lock.json"))?;
    if fs::read(&mark).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    npm(&["ci", "--no-audit", "--no-fund"])?;
    Ok(fs::write(mark, wanted)?)
}

/// Builds the user interface into ui/dist.
pub fn build_ui() -> Result<()> {
    install_npm_packages()?;
    npm(&["run", "build"])
}

/// Checks the types of the user interface, and runs its tests.
pub fn check_ui() -> Result<()> {
    install_npm_packages()?;
    npm(&["run", "check"])?;
    npm(&["test"])
}

/// Draws screens in a browser, each dark and light and at three sizes, and returns the directory of the pictures.
pub fn draw(views: &[&str]) -> Result<PathBuf> {
    install_npm_packages()?;
    npm(&["run", "build:mock"])?;
    let mut draw =
        npm_command(&["exec", "--", "vitest", "run", "--project", "screens", "tests/screens.test.ts"])?;
    cargo::run(draw.env("VIEWS", views.join(",")))?;
    Ok(ui().join("tests/out"))
}

/// Runs the stories of the app, whose user interface must be built already. Everything is built by one command, so that
/// the programs share their dependencies.
pub fn run_stories(arguments: &[String]) -> Result<()> {
    let mut build = cargo::command(["build", "--bin", "app-test", "--bin", "partyline-app"]);
    cargo::run(build.args(cargo::ALIKE).args(natlab::LAB))?;
    cargo::run(Command::new(cargo::target().join("debug/app-test")).args(arguments))
}

/// Writes ui/src/bindings.ts.
pub fn write_bindings() -> Result<()> {
    let mut command = cargo::command(["test", "-q"]);
    cargo::run(command.args(PROGRAM).args(["--lib", "bindings"]).env("PARTYLINE_WRITE_BINDINGS", "1"))
}

#[cfg(test)]
mod tests {
    use super::is_recent;

    #[test]
    fn node_versions_without_vite_support_are_too_old() {
        assert!(["v20.19.0", "v20.20.2", "v22.12.0", "v24.1.0"].iter().all(|version| is_recent(version)));
        assert!(
            !["v12.22.9", "v18.20.4", "v20.18.3", "v22.11.0", ""].iter().any(|version| is_recent(version))
        );
    }
}
