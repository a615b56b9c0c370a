//! The kernel's account of a process, `/proc/<pid>/stat` (proc_pid_stat(5)).

use std::fs;

use anyhow::{Context as _, Result};

/// Returns a field of a process's stat, counted from zero.
///
/// # Errors
/// There is no such process, or no such field.
pub fn field(pid: u32, index: usize) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets, which may contain anything.
    let (_, rest) = stat.rsplit_once(") ").context("no stat")?;
    Ok(rest.split(' ').nth(index - 2).context("too few fields")?.to_owned())
}
