//! Success of each connection method, over all members since the start.

use std::{collections::BTreeMap, time::Duration};

use partyline_model::{DoctorFinding, Method, Verdict};

/// Attempts and successes by method.
#[derive(Debug, Default)]
pub(crate) struct ConnectionStats(BTreeMap<Method, Tally>);

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    attempts: u32,
    successes: u32,
    /// How long the successful attempts took together.
    took: Duration,
}

impl ConnectionStats {
    /// Counts an attempt that succeeded or was given up after some time.
    pub(crate) fn on_attempt(&mut self, method: Method, succeeded: bool, took: Duration) {
        let tally = self.0.entry(method).or_default();
        tally.attempts = tally.attempts.saturating_add(1);
        if succeeded {
            tally.successes = tally.successes.saturating_add(1);
            tally.took = tally.took.saturating_add(took);
        }
    }

    /// Describes the statistics for people; `None` before the first attempt.
    pub(crate) fn finding(&self) -> Option<DoctorFinding> {
        let each: Vec<String> = self.0.iter().map(|(method, tally)| tally.text(*method)).collect();
        (!each.is_empty()).then(|| DoctorFinding {
            what: "Ways to members".to_owned(),
            verdict: Verdict::Good,
            note: format!("Worked since the start: {}.", each.join(", ")),
        })
    }
}

impl Tally {
    fn text(self, method: Method) -> String {
        let Self { attempts, successes, took } = self;
        let text = format!("{} {successes} of {attempts}", method.name());
        if successes == 0 { text } else { format!("{text} in {} ms", (took / successes).as_millis()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_method() {
        let mut stats = ConnectionStats::default();
        assert!(stats.finding().is_none());
        stats.on_attempt(Method::Punch, true, Duration::from_millis(100));
        stats.on_attempt(Method::Punch, true, Duration::from_millis(300));
        stats.on_attempt(Method::Punch, false, Duration::from_secs(9));
        stats.on_attempt(Method::Spray, false, Duration::from_secs(9));
        let note = stats.finding().map(|finding| finding.note);
        assert_eq!(note.as_deref(), Some("Worked since the start: punch 2 of 3 in 200 ms, spray 0 of 1."));
    }
}
