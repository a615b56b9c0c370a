//! The results of `natlab roam` as a table and as JSON.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub name: &'static str,
    pub about: &'static str,
    /// Upper bound for the outage, in seconds.
    pub bar_s: f64,
    /// Longest time without a datagram in one direction, counted from the fault on, or from its end where nothing can
    /// work during it.
    pub outage_s: Option<f64>,
    /// Datagrams lost in both directions.
    pub lost: u32,
    /// Duplicates received in both directions.
    pub twice: u32,
    /// Longest wait for a response on the TCP connection.
    pub tcp_gap_s: Option<f64>,
    pub passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Formats one result as a line of the table.
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

/// Prints the table, and with `as_json` one JSON object.
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
