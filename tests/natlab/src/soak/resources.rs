//! Memory, descriptors and threads of a service in the course of its life.

use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Growth of memory that is not taken for a leak, in KiB: an allocator keeps what it had at most, which takes ten minutes of
/// troubles to be reached.
const MAX_MEMORY_GROWTH: u64 = 8192;
/// Sockets that may be open at one moment and not at another.
const MAX_DESCRIPTOR_GROWTH: u64 = 16;

/// What a process held at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    memory_kib: u64,
    descriptors: u64,
    threads: u64,
}

/// All samples of one process.
#[derive(Debug, Default, Serialize)]
pub(super) struct Usage(Vec<Sample>);

impl Usage {
    /// Takes a sample of the process.
    pub(super) fn sample(&mut self, process: Result<u32>) -> Result<()> {
        let directory = format!("/proc/{}", process?);
        let status = fs::read_to_string(format!("{directory}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()).context("no such field")?;
            Ok(number.parse()?)
        };
        let descriptors = fs::read_dir(format!("{directory}/fd"))?.count() as u64;
        self.0.push(Sample { memory_kib: field("VmRSS:")?, descriptors, threads: field("Threads:")? });
        Ok(())
    }

    /// Fails if the process held more in the last quarter of its life than in the second.
    pub(super) fn check(&self) -> Result<()> {
        let (before, after) = (self.quarter(1), self.quarter(3));
        let grown = |of: fn(&Sample) -> u64| median(after, of).saturating_sub(median(before, of));
        let memory = grown(|sample| sample.memory_kib);
        ensure!(memory <= MAX_MEMORY_GROWTH, "memory has grown by {memory} KiB: {self}");
        let descriptors = grown(|sample| sample.descriptors);
        ensure!(descriptors <= MAX_DESCRIPTOR_GROWTH, "{descriptors} more descriptors: {self}");
        let threads = grown(|sample| sample.threads);
        ensure!(threads == 0, "{threads} more threads: {self}");
        Ok(())
    }

    fn quarter(&self, index: usize) -> &[Sample] {
        let count = self.0.len();
        self.0.get(index * count / 4..(index + 1) * count / 4).unwrap_or_default()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quarters = [0, 1, 2, 3].map(|index| {
            let of = |field: fn(&Sample) -> u64| median(self.quarter(index), field);
            let memory = of(|sample| sample.memory_kib) as f64 / 1024.0;
            let (descriptors, threads) = (of(|sample| sample.descriptors), of(|sample| sample.threads));
            format!("{memory:.1} MiB {descriptors} descriptors {threads} threads")
        });
        write!(f, "by quarters: {}", quarters.join("; "))
    }
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(memory: impl Fn(u64) -> u64) -> Usage {
        let sample = |index| Sample { memory_kib: memory(index), descriptors: 30, threads: 5 };
        Usage((0..40).map(sample).collect())
    }

    #[test]
    fn growth_after_the_beginning_is_a_fault() {
        assert!(usage(|index| if index < 8 { 9_000 } else { 15_000 }).check().is_ok(), "warming up");
        assert!(usage(|index| 15_000 + 600 * index).check().is_err());
    }

    #[test]
    fn own_process_is_measured() {
        let mut usage = Usage::default();
        usage.sample(Ok(std::process::id())).unwrap();
        let Usage(samples) = usage;
        assert!(samples[0].memory_kib > 0 && samples[0].descriptors > 0 && samples[0].threads > 0);
    }
}
