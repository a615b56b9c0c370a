//! The results of `natlab classify` as a table and as JSON.

use std::time::Duration;

use partyline_model::{Allocation, Filtering, Mapping, NatProfile};
use serde::Serialize;
use serde_json::{Value, json};

use super::{measure::Measured, networks::Network, verdict::Verdict};
use crate::Line;

/// The result for one network.
#[derive(Debug, Serialize)]
pub struct Row {
    network: String,
    #[serde(skip)]
    is_type: bool,
    is: String,
    said: String,
    right: bool,
    wrong: Vec<String>,
    missing: Vec<&'static str>,
    unknowable: Vec<&'static str>,
    address_ms: Option<f64>,
    mapping_ms: Option<f64>,
    whole_ms: Option<f64>,
    packets: u32,
    gaps: Vec<String>,
}

impl Row {
    /// Builds the row of a completed check.
    #[must_use]
    pub fn new(network: &Network, said: &Measured, verdict: Verdict) -> Self {
        let right = verdict.is_right();
        let Verdict { wrong, missing, unknowable } = verdict;
        Self {
            network: network.name.clone(),
            is_type: network.is_type,
            is: words(&network.truth.profile),
            said: words(&said.profile),
            right,
            wrong,
            missing,
            unknowable,
            address_ms: said.address.map(milliseconds),
            mapping_ms: said.mapping.map(milliseconds),
            whole_ms: said.whole.map(milliseconds),
            packets: said.packets,
            gaps: said.gaps.clone(),
        }
    }

    /// Builds the row of a check that could not run.
    #[must_use]
    pub fn failed(network: &Network, error: &anyhow::Error) -> Self {
        Self {
            network: network.name.clone(),
            is_type: network.is_type,
            is: words(&network.truth.profile),
            said: String::new(),
            right: false,
            wrong: vec![format!("{error:#}")],
            missing: Vec::new(),
            unknowable: Vec::new(),
            address_ms: None,
            mapping_ms: None,
            whole_ms: None,
            packets: 0,
            gaps: Vec::new(),
        }
    }

    /// Returns true if everything that can be known was measured correctly.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        self.right
    }

    fn line(&self) -> String {
        let span = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        let mut note = if self.right { "ok".to_owned() } else { "FAILED".to_owned() };
        let parts = [
            ("wrong", self.wrong.join(", ")),
            ("missing", self.missing.join(", ")),
            ("unknowable", self.unknowable.join(", ")),
        ];
        parts.iter().filter(|(_, list)| !list.is_empty()).for_each(|(what, list)| {
            note += &format!("; {what}: {list}");
        });
        format!(
            "{:24} {:34} {:34} {:>7} {:>7} {:>7} {:>7}  {note}",
            self.network,
            self.is,
            self.said,
            span(self.address_ms),
            span(self.mapping_ms),
            span(self.whole_ms),
            self.packets
        )
    }
}

/// Prints the table and a summary.
pub fn print(rows: &[Row], line: Line) {
    println!(
        "{:24} {:34} {:34} {:>7} {:>7} {:>7} {:>7}",
        "network", "what it is", "what netcheck said", "address", "mapping", "whole", "packets"
    );
    rows.iter().for_each(|row| println!("{}", row.line()));
    println!("\nmilliseconds; line: {line:?}");
    for (what, figures) in figures(rows) {
        println!("{what}: {figures}");
    }
    let types: Vec<_> = rows.iter().filter(|row| row.is_type).collect();
    let right = types.iter().filter(|row| row.right).count();
    let wrong = rows.iter().filter(|row| !row.wrong.is_empty()).count();
    println!("{right} of {} types right, {wrong} wrong", types.len());
    let failed = rows.iter().filter(|row| !row.right).count();
    println!("{} passed, {failed} failed", rows.len() - failed);
}

/// Returns the results as a JSON object.
#[must_use]
pub fn object(rows: &[Row], line: Line) -> Value {
    let types = rows.iter().filter(|row| row.is_type);
    let failed = rows.iter().filter(|row| !row.right).count();
    json!({
        "latency_ms": milliseconds(line.latency),
        "jitter_ms": milliseconds(line.jitter),
        "loss_percent": f64::from(line.loss) / 10.0,
        "networks": rows,
        "types": types.clone().count(),
        "types_right": types.filter(|row| row.right).count(),
        "wrong": rows.iter().filter(|row| !row.wrong.is_empty()).count(),
        "passed": rows.len() - failed,
        "failed": failed,
        "figures": figures(rows).into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

/// Returns median and maximum of the times and packet counts over the NAT types.
fn figures(rows: &[Row]) -> Vec<(String, Value)> {
    let of = |pick: fn(&Row) -> Option<f64>| {
        let mut values: Vec<_> = rows.iter().filter(|row| row.is_type).filter_map(pick).collect();
        values.sort_by(f64::total_cmp);
        json!({ "p50": values.get(values.len() / 2), "max": values.last() })
    };
    vec![
        ("address_ms".into(), of(|row| row.address_ms)),
        ("mapping_ms".into(), of(|row| row.mapping_ms)),
        ("whole_ms".into(), of(|row| row.whole_ms)),
        ("packets".into(), of(|row| Some(row.packets.into()))),
    ]
}

fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Formats a profile in short form.
fn words(profile: &NatProfile) -> String {
    let mapping = match profile.mapping {
        None => "?",
        Some(Mapping::EndpointIndependent) => "EI",
        Some(Mapping::AddressDependent) => "HD",
        Some(Mapping::AddressAndPortDependent) => "PD",
    };
    let filtering = match profile.filtering {
        None => "?",
        Some(Filtering::EndpointIndependent) => "EI",
        Some(Filtering::AddressDependent) => "HD",
        Some(Filtering::AddressAndPortDependent) => "PD",
    };
    let allocation = match profile.allocation {
        None => "?".to_owned(),
        Some(Allocation::Preserving) => "PP".to_owned(),
        Some(Allocation::Contiguous { delta }) => format!("PC{delta:+}"),
        Some(Allocation::Random) => "RD".to_owned(),
    };
    let more = [
        (profile.hairpin, "hairpin"),
        (profile.double_nat, "double"),
        (profile.carrier_nat, "CGNAT"),
        (profile.udp_blocked, "blocked"),
        (profile.ipv6, "v6"),
    ];
    let more: String =
        more.iter().filter(|(is, _)| *is == Some(true)).map(|(_, word)| format!(" {word}")).collect();
    format!("{mapping}/{filtering}/{allocation}{more}")
}
