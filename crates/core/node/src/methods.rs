//! How the ways of reaching members fare, over all members since the start.

use std::{collections::BTreeMap, time::Duration};

use partyline_model::{DoctorFinding, Method, Verdict};

/// What came of each method.
#[derive(Debug, Default)]
pub(crate) struct Methods(BTreeMap<Method, Tally>);

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    tried: u32,
    worked: u32,
    /// How long those took that worked, together.
    took: Duration,
}

impl Methods {
    /// Counts an attempt.
    pub(crate) fn count(&mut self, method: Method, worked: bool, took: Duration) {
        let tally = self.0.entry(method).or_default();
        tally.tried = tally.tried.saturating_add(1);
        if worked {
            tally.worked = tally.worked.saturating_add(1);
            tally.took = tally.took.saturating_add(took);
        }
    }

    /// For people; `None` before anything was tried.
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
        let Self { tried, worked, took } = self;
        let text = format!("{} {worked} of {tried}", method.name());
        if worked == 0 { text } else { format!("{text} in {} ms", (took / worked).as_millis()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_method() {
        let mut methods = Methods::default();
        assert!(methods.finding().is_none());
        methods.count(Method::Punch, true, Duration::from_millis(100));
        methods.count(Method::Punch, true, Duration::from_millis(300));
        methods.count(Method::Punch, false, Duration::from_secs(9));
        methods.count(Method::Spray, false, Duration::from_secs(9));
        let note = methods.finding().map(|finding| finding.note);
        assert_eq!(note.as_deref(), Some("Worked since the start: punch 2 of 3 in 200 ms, spray 0 of 1."));
    }
}
