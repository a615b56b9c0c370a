//! Computers that have a copy of a member's state, and which of them goes on as the member.

use std::time::{Duration, Instant};

/// A copy and when it was started.
#[derive(Debug)]
struct Copied {
    original: usize,
    computer: usize,
    since: Instant,
    /// How long it took until exactly one went on, if exactly one does.
    settled: Option<Duration>,
}

/// All copies. Their computers are numbered after the members'.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<Copied>);

impl Copies {
    pub fn add(&mut self, now: Instant, original: usize, computer: usize) {
        self.0.push(Copied { original, computer, since: now, settled: None });
    }

    /// Returns the member as which a computer was started.
    pub fn member(&self, computer: usize) -> usize {
        let copy = self.0.iter().find(|copy| copy.computer == computer);
        copy.map_or(computer, |copy| copy.original)
    }

    /// Returns the members of whom there are copies.
    pub fn members(&self) -> Vec<usize> {
        let mut members: Vec<usize> = self.0.iter().map(|copy| copy.original).collect();
        members.dedup();
        members
    }

    /// Notes for which members exactly one computer goes on.
    pub fn look(&mut self, now: Instant, is_one: impl Fn(usize) -> bool) {
        for copy in &mut self.0 {
            let since = copy.since;
            copy.settled = is_one(copy.original).then(|| copy.settled.unwrap_or(now - since));
        }
    }

    /// Returns how long it took for each copy until exactly one computer went on.
    pub fn settled(&self) -> Vec<Duration> {
        self.0.iter().filter_map(|copy| copy.settled).collect()
    }
}
