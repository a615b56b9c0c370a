//! Waits for conditions instead of for fixed times.

use std::{
    error::Error,
    fmt,
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Error of a condition whose program has ended, so that further polling is pointless.
#[derive(Debug)]
pub(crate) struct ProgramEnded {
    /// Name that the program was started under.
    pub name: String,
    /// Exit status of the program.
    pub status: ExitStatus,
}

impl fmt::Display for ProgramEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.name, self.status)
    }
}

impl Error for ProgramEnded {}

/// Polls `condition` until it returns a value. When the deadline passes, the last error becomes part of the message, so
/// it should say what was found instead.
///
/// # Errors
/// Returns an error if `within` passes without a value, or if a program that should run has ended.
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(last) if last.is::<ProgramEnded>() => {
                return Err(last.context(format!("waited in vain: {what}")));
            }
            Err(last) if Instant::now() >= deadline => {
                return Err(last.context(format!("waited {within:?} in vain: {what}")));
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Turns a boolean into a result that [`until`] can poll.
pub(crate) fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    bail!(otherwise())
}
