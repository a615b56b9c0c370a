//! The fields of `/proc/<pid>/stat` (proc_pid_stat(5)).

use std::fs;

use anyhow::{Context as _, Result};

/// Returns a field of a process's stat, counted from zero.
///
/// # Errors
/// Returns an error if there is no such process or field.
pub fn field(pid: u32, index: usize) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may contain spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(") ").context("no stat")?;
    Ok(rest.split(' ').nth(index - 2).context("too few fields")?.to_owned())
}
