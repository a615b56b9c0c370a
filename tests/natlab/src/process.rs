//! A program that runs in a namespace, with its output in a log file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::{ProgramEnded, that, until};

/// Time limit for a program to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a command to its end and returns its standard output. An error contains both of its outputs.
///
/// # Errors
/// Returns an error if the command cannot be started or does not exit with 0.
pub fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    bail!("{command:?} ended with {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `<directory>/<name>.log`.
    pub(crate) fn spawn(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Returns the name that it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output of this process and of earlier ones with the same name.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Checks that the program still runs.
    ///
    /// # Errors
    /// Returns an error with the exit status if it has ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(ProgramEnded { name: self.name.clone(), status }.into()),
        }
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    /// Returns an error if it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        until(&format!("{} to end", self.name), within, || self.child.try_wait()?.context("still running"))
    }

    /// Sends SIGTERM and waits until the program has ended.
    ///
    /// # Errors
    /// Returns an error if it still runs after 10 seconds.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.wait(STOP_TIMEOUT).map(drop)
    }

    /// Kills the program with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// Returns an error if it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(STOP_TIMEOUT).map(drop)
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("signal {}", self.name))
    }

    /// Waits until the program's log contains `text`.
    ///
    /// # Errors
    /// Returns an error if the program ends first, or `within` passes.
    pub fn wait_for_log(&mut self, text: &str, within: Duration) -> Result<()> {
        let what = format!("{} to log {text:?}", self.name);
        until(&what, within, || {
            self.alive()?;
            that(self.log().contains(text), || format!("its log has no {text:?}"))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
