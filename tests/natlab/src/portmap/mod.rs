//! Port mapping against real and fake routers.
//!
//! Each scenario has a lab of its own: a home with a member's computer, where [`run_client`] keeps a port mapped in a
//! process of its own, and a host outside that sends to it. The real router is miniupnpd, as IGD version 1 and as IGD
//! version 2 with PCP and NAT-PMP. A fake covers what miniupnpd cannot do: permanent leases only, every error code, and
//! malicious replies.

mod client;
mod fake;
mod home;
mod party;
mod peer;
mod quirks;
mod real;

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
pub use client::{ClientArguments, run as run_client};
use serde::Serialize;

use crate::{Lab, parallel::run_parallel, sweep::sweep};

/// Number of scenarios that run in parallel, which is high because they mostly wait.
const MAX_PARALLEL: usize = 7;

struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&Lab) -> Result<String>,
}

const SCENARIOS: [Scenario; 25] = [
    Scenario { name: "igd1", about: "miniupnpd, UPnP IGD 1", run: real::igd1 },
    Scenario { name: "igd2", about: "miniupnpd, UPnP IGD 2", run: real::igd2 },
    Scenario { name: "pcp", about: "miniupnpd, PCP", run: real::pcp },
    Scenario { name: "pcp-v6", about: "miniupnpd, PCP for the IPv6 firewall", run: real::pcp_v6 },
    Scenario { name: "nat-pmp", about: "miniupnpd, NAT-PMP", run: real::nat_pmp },
    Scenario { name: "pinhole", about: "miniupnpd, UPnP pinhole", run: real::pinhole },
    Scenario { name: "igd1-conflict", about: "the port is a neighbour's, IGD 1", run: real::conflict_igd1 },
    Scenario { name: "igd2-conflict", about: "the port is a neighbour's, IGD 2", run: real::conflict_igd2 },
    Scenario { name: "pcp-conflict", about: "the port is a neighbour's, PCP", run: real::conflict_pcp },
    Scenario { name: "crash", about: "kill -9, every method, and a restart", run: real::crash },
    Scenario { name: "reboot", about: "the router restarts and forgets", run: real::reboot },
    Scenario { name: "new-address", about: "the router gets another address", run: real::new_address },
    Scenario { name: "permanent", about: "725: permanent leases only; kill -9", run: quirks::permanent },
    Scenario { name: "errors", about: "every error code of AddPortMapping", run: quirks::errors },
    Scenario { name: "codes", about: "every result code of PCP and NAT-PMP", run: quirks::result_codes },
    Scenario { name: "hostile-1", about: "hostile descriptions", run: quirks::hostile_description },
    Scenario { name: "hostile-2", about: "hostile answers about the address", run: quirks::hostile_address },
    Scenario { name: "hostile-3", about: "hostile answers to the wish", run: quirks::hostile_mapping },
    Scenario { name: "misleading", about: "places and addresses that are lies", run: quirks::misleading },
    Scenario { name: "epoch", about: "a clock that jumps, answers by others", run: quirks::epoch },
    Scenario { name: "peer", about: "miniupnpd opens nothing: PCP PEER", run: peer::kept },
    Scenario { name: "peer-told", about: "the same, told by the real netcheck", run: peer::told },
    Scenario { name: "hostile-peer", about: "hostile answers to PCP PEER", run: peer::hostile },
    Scenario { name: "two-routers", about: "one router refuses, another grants", run: quirks::two_routers },
    Scenario { name: "party", about: "symmetric NAT with UPnP: friends use the port", run: party::run },
];

#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    passed: bool,
    seconds: f64,
    shown: String,
}

/// Runs the scenarios whose names contain one of `names`, or all if there are none.
///
/// # Errors
/// Returns an error if no scenario matches.
pub fn run(names: &[String], json: bool) -> Result<ExitCode> {
    sweep()?;
    let wanted = |scenario: &&Scenario| {
        names.is_empty() || names.iter().any(|name| scenario.name.contains(name.as_str()))
    };
    let chosen: Vec<_> = SCENARIOS.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no scenario of that name");
    conclude(&run_parallel(MAX_PARALLEL, &chosen, |_, scenario| one(scenario)), json)
}

fn conclude(outcomes: &[Outcome], json: bool) -> Result<ExitCode> {
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if json {
        println!("{}", serde_json::json!({ "scenarios": outcomes }));
    } else {
        println!("{} passed, {failed} failed", outcomes.len() - failed);
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(scenario: &Scenario) -> Outcome {
    let begun = Instant::now();
    let result = Lab::new().and_then(|lab| (scenario.run)(&lab));
    let seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let passed = result.is_ok();
    let shown = result.unwrap_or_else(|error| format!("{error:#}"));
    let verdict = if passed { "ok" } else { "FAILED" };
    eprintln!("{:14} {verdict:6} {seconds:5.1} s  {}: {shown}", scenario.name, scenario.about);
    Outcome { name: scenario.name, passed, seconds, shown }
}
