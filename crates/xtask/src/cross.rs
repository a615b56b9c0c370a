//! Compiles everything for systems that this machine is not, as far as `cargo check` goes.
//!
//! Where rustup has no standard library for a target, `cross.sh` makes its metadata from Debian's sources of the very
//! same compiler, so that a machine needs nothing but its package mirror. C code of dependencies is not compiled:
//! stand-ins create the files that build scripts expect.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::cargo;

const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];

/// Packages that are not checked: those made of Linux's network namespaces, which are run nowhere else, and the desktop
/// app, which needs the target's own compiler for its resources.
const APART: [&str; 5] = [
    "partyline-natlab",
    "partyline-tests-interop",
    "partyline-tests-bench",
    "partyline-tests-app",
    "partyline-app",
];

/// Checks every crate for every target.
pub fn run() -> Result<()> {
    for target in TARGETS {
        let sysroot = sysroot(target)?;
        cargo::run(&mut check(target, sysroot.as_deref()))?;
    }
    println!("{} foreign targets checked", TARGETS.len());
    Ok(())
}

/// Where the target's standard library is; `None` where rustup has it.
fn sysroot(target: &str) -> Result<Option<PathBuf>> {
    let own = cargo::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&own).join("lib/rustlib").join(target).exists() {
        return Ok(None);
    }
    let prefix = cache()?.join(cargo::rustc("release")?);
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cross.sh")).arg(&prefix).arg(target);
    cargo::run(&mut command)?;
    Ok(Some(prefix))
}

fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("partyline-cross"))
}

fn check(target: &str, prefix: Option<&Path>) -> Command {
    let mut command = cargo::command(["check", "--workspace", "--target", target]);
    command.args(APART.iter().flat_map(|package| ["--exclude", package]));
    if let Some(prefix) = prefix {
        // Encoded, since the path may have spaces. With a target given, the flags reach neither build scripts nor macros.
        let sysroot = format!("--sysroot={}", prefix.join("sysroot").display());
        command.env("CARGO_ENCODED_RUSTFLAGS", sysroot);
        let snake = target.replace('-', "_");
        for tool in ["CC", "CXX", "AR", "RANLIB"] {
            command.env(format!("{tool}_{snake}"), prefix.join("stand-in"));
        }
    }
    command
}
