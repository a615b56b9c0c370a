//! Waiting for a condition, never for a span of time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::process::Ended;

/// How often a condition is looked at again.
const INTERVAL: Duration = Duration::from_millis(25);

/// Polls `condition` until it yields a value, or says that a program has ended which should run. The error of the last try is part of the message when the deadline
/// passes, so say in it what was seen instead.
///
/// # Errors
/// When `within` has passed without a value.
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(last) if last.is::<Ended>() => return Err(last.context(format!("waited in vain: {what}"))),
            Err(last) if Instant::now() >= deadline => {
                return Err(last.context(format!("waited {within:?} in vain: {what}")));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// Turns a plain yes or no into what [`until`] polls.
pub(crate) fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    bail!(otherwise())
}
