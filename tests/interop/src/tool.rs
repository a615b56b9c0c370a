//! Programs the tests talk to: found or missed loudly, run to their end or until dropped.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The path of a program; an error names the package that has it.
///
/// # Errors
/// It is not installed.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("{program} is missing: apt-get install {package}"))
}

/// Runs a program to its end, for a minute at most, and returns everything it said.
///
/// # Errors
/// It is not installed, or did not end by itself.
pub fn run(program: &str, package: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("timeout").arg("60").arg(find(program, package)?).args(arguments).output()?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.code() == Some(124) {
        bail!("{program} {} did not end:\n{text}", arguments.join(" "));
    }
    Ok(text)
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it, its standard output in a pipe.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("start {command:?}"))?))
    }

    /// The process.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
