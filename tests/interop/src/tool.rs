//! Programs that the tests run, with an error that names the package if one is missing.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Returns the path of a program.
///
/// # Errors
/// Returns an error that names the package if the program is not installed.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("{program} is missing: apt-get install {package}"))
}

/// Runs a program to its end, for at most a minute, and returns its output.
///
/// # Errors
/// Returns an error if it is not installed, or does not end by itself.
pub fn run(program: &str, package: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("timeout").arg("60").arg(find(program, package)?).args(arguments).output()?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.code() == Some(124) {
        bail!("{program} {} did not end:\n{text}", arguments.join(" "));
    }
    Ok(text)
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program with its standard output in a pipe.
    ///
    /// # Errors
    /// Returns an error if it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("start {command:?}"))?))
    }

    /// Returns the child process.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The program may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
