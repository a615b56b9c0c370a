//! The results of all pairs, compared with the required bars.

use anyhow::Result;
use partyline_model::Method;
use serde_json::json;

use super::pair::Outcome;

/// The requirement that every pair has to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Requirement {
    /// The pair connects.
    Connected,
    /// The pair connects, and it is direct if a direct path is possible.
    Direct,
}

/// The results of all pairs.
pub struct Report {
    /// In the order of the types.
    pub outcomes: Vec<Outcome>,
    /// True if the line has loss or jitter. The bars for times are doubled then.
    rough: bool,
}

/// A line of the summary table.
struct Row {
    what: &'static str,
    bar: String,
    is: String,
    holds: Option<bool>,
}

/// Times of some pairs in seconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of<'a>(values: impl Iterator<Item = &'a Option<f64>>) -> Self {
        let mut values: Vec<f64> = values.filter_map(|value| *value).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Returns the smallest measured value that the given share of all values does not exceed.
    fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }

    fn row(&self, what: &'static str, p50: f64, p95: f64) -> Row {
        let values = [self.quantile(0.5), self.quantile(0.95)];
        let [is50, is95] = values.map(|value| value.map_or("-".to_owned(), |value| format!("{value:.2}")));
        Row {
            what,
            bar: format!("p50 <= {p50} s, p95 <= {p95} s"),
            is: format!("p50 {is50} s, p95 {is95} s, most {:.2} s, of {}", self.most(), self.0.len()),
            holds: values[0].zip(values[1]).map(|(is50, is95)| is50 <= p50 && is95 <= p95),
        }
    }

    fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

impl Report {
    pub const fn new(outcomes: Vec<Outcome>, rough: bool) -> Self {
        Self { outcomes, rough }
    }

    /// Returns true if every pair meets the requirement.
    pub fn meets(&self, requirement: Requirement) -> bool {
        self.outcomes.iter().all(|outcome| match requirement {
            Requirement::Connected => outcome.connected && outcome.error.is_none(),
            Requirement::Direct => outcome.is_as_expected(),
        })
    }

    /// Prints the pairs that failed, and the summary table.
    pub fn print(&self) {
        let failed: Vec<_> = self.outcomes.iter().filter(|outcome| !outcome.is_as_expected()).collect();
        for outcome in &failed {
            let what = if outcome.connected { "not direct" } else { "not connected" };
            println!("{:18} {what} {}", outcome.name(), outcome.error.as_deref().unwrap_or_default());
        }
        println!("\n{:30} {:32} {:50}", "what", "bar", "measured");
        for row in self.rows() {
            let verdict = row.holds.map_or("", |holds| if holds { "ok" } else { "MISSED" });
            println!("{:30} {:32} {:50} {verdict}", row.what, row.bar, row.is);
        }
        println!("{} passed, {} failed", self.outcomes.len() - failed.len(), failed.len());
    }

    /// Returns the results as a JSON object.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(&json!({ "pairs": self.outcomes }))?)
    }

    fn rows(&self) -> Vec<Row> {
        let all = self.outcomes.len();
        let connected = self.count(|outcome| outcome.connected);
        let possible = self.count(|outcome| outcome.possible);
        let reached = self.count(|outcome| outcome.possible && outcome.direct);
        let independent = |outcome: &&Outcome| outcome.a.starts_with("EI/") && outcome.b.starts_with("EI/");
        let sprayed = |outcome: &&Outcome| outcome.direct && outcome.method == Some(Method::Spray);
        let direct = |choose: &dyn Fn(&&Outcome) -> bool| {
            Times::of(self.outcomes.iter().filter(choose).map(|outcome| &outcome.direct_s))
        };
        let count = |what, bar: usize, is: usize| Row {
            what,
            bar: format!("{bar} of {bar}"),
            is: format!("{is} of {bar}"),
            holds: Some(is == bar),
        };
        let changes: Vec<_> =
            self.outcomes.iter().filter(|outcome| outcome.relayed && outcome.direct).collect();
        let lost: u32 = changes.iter().map(|outcome| outcome.lost).sum();
        let longer = if self.rough { 2.0 } else { 1.0 };
        let twice: u32 = changes.iter().map(|outcome| outcome.twice).sum();
        vec![
            count("connected", all, connected),
            count("direct where possible", possible, reached),
            Times::of(self.outcomes.iter().map(|outcome| &outcome.first_packet_s)).row(
                "first packet",
                0.4 * longer,
                1.0 * longer,
            ),
            direct(&independent).row("direct, both EI", 0.4 * longer, 1.0 * longer),
            direct(&sprayed).row("direct by spray", 4.0 * longer, 12.0 * longer),
            // These counts include the packets that a rough line itself loses or duplicates, so there is no bar then.
            Row {
                what: "relay to direct",
                bar: if self.rough { "" } else { "0 lost, 0 twice" }.into(),
                is: format!("{lost} lost, {twice} twice in {} changes", changes.len()),
                holds: (!self.rough).then_some(lost + twice == 0),
            },
        ]
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| which(outcome)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let times = Times::of((1..=20).map(|n| Some(f64::from(n))).collect::<Vec<_>>().iter());
        assert_eq!(times.quantile(0.5), Some(10.0));
        assert_eq!(times.quantile(0.95), Some(19.0));
        assert_eq!(Times(vec![3.0]).quantile(0.95), Some(3.0));
        assert_eq!(Times(Vec::new()).quantile(0.5), None);
    }
}
