//! What is printed.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

/// How one story went.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub name: &'static str,
    pub about: &'static str,
    /// What the outage should be at most, in seconds.
    pub bar_s: f64,
    /// The longest time in which no datagram arrived one way, from the trouble on, or from its end where nothing can
    /// work during it.
    pub outage_s: Option<f64>,
    /// Datagrams lost, both ways.
    pub lost: u32,
    /// Datagrams that came again.
    pub twice: u32,
    /// The longest wait for an answer on the TCP connection.
    pub tcp_gap_s: Option<f64>,
    pub passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One story in one line.
pub fn line(outcome: &Outcome) -> String {
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let verdict = match (outcome.passed, outcome.outage_s) {
        (true, Some(outage)) if outage <= outcome.bar_s => "ok",
        (true, _) => "slow",
        (false, _) => "FAILED",
    };
    format!(
        "{:12} {:58} {:>5.1} {:>7} {:>6} {:>6} {:>7}  {verdict} {}",
        outcome.name,
        outcome.about,
        outcome.bar_s,
        seconds(outcome.outage_s),
        outcome.lost,
        outcome.twice,
        seconds(outcome.tcp_gap_s),
        outcome.error.as_deref().unwrap_or_default()
    )
}

/// The table, and one object where it is wanted.
pub fn print(outcomes: &[Outcome], as_json: bool) -> Result<()> {
    println!(
        "\n{:12} {:58} {:>5} {:>7} {:>6} {:>6} {:>7}",
        "what", "", "bar", "outage", "lost", "twice", "TCP gap"
    );
    outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    println!("seconds; {} passed, {failed} failed", outcomes.len() - failed);
    if as_json {
        println!("{}", serde_json::to_string(&json!({ "roam": outcomes }))?);
    }
    Ok(())
}
