//! Waiting for a condition, never for a span of time.

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

/// A program that should run has ended, so that waiting for anything it does is in vain.
#[derive(Debug)]
pub(crate) struct ProgramEnded {
    /// The name it was started under.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl fmt::Display for ProgramEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.name, self.status)
    }
}

impl Error for ProgramEnded {}

/// Polls `condition` until it returns a value. The error of the last attempt is part of the message when the deadline
/// passes, so it should say what was seen instead.
///
/// # Errors
/// No value was returned `within` the given time, or a program that should run has ended.
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
