//! A program running in a namespace, with what it said kept in a file.

use std::{
    error::Error,
    fmt,
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

use crate::wait::{that, until};

/// How long a program gets to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a command to its end and gives its standard output; the error carries both of its outputs.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    bail!("{command:?} ended with {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// A program has ended that should run: waiting for anything of it is in vain.
#[derive(Debug)]
pub(crate) struct Ended {
    name: String,
    status: ExitStatus,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.name, self.status)
    }
}

impl Error for Ended {}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to `<directory>/<name>.log`.
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

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it (and any earlier process of the same name) has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With its exit status.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Ended { name: self.name.clone(), status }.into()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        until(&format!("{} to end", self.name), within, || self.child.try_wait()?.context("still running"))
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not within 10 seconds.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.wait(GRACE).map(drop)
    }

    /// Kills it without warning (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(GRACE).map(drop)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("signal {}", self.name))
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    /// When it ends first, or `within` passes.
    pub fn wait_for_log(&mut self, text: &str, within: Duration) -> Result<()> {
        let what = format!("{} to say {text:?}", self.name);
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
