//! Troubles that people reported of virtual LANs, and the scenarios that try them here.

use std::process::ExitCode;

use anyhow::Result;

use super::report;

/// A kind of report, and the scenario that shows the right behaviour.
struct Report {
    about: &'static str,
    scenario: &'static str,
}

const REPORTS: &[Report] = &[
    Report { about: "a second VPN rides on the party", scenario: "vpn-over-party" },
    Report { about: "a second VPN between two on one LAN", scenario: "vpn-on-lan" },
    Report { about: "only a second VPN gets through", scenario: "vpn-as-last-resort" },
    Report { about: "all IPv6 addresses of the card are deprecated", scenario: "deprecated-addresses" },
    Report { about: "the same between two on one LAN", scenario: "deprecated-on-lan" },
    Report { about: "dozens of cards of containers and virtual machines", scenario: "many-cards" },
    Report { about: "a friend's address is routed into the party", scenario: "routed-into-party" },
    Report { about: "a link that was mangled on its way", scenario: "pasted-links" },
    Report { about: "the server's name moves to another address", scenario: "server-moves" },
    Report { about: "no names can be looked up for a while", scenario: "names-come-back" },
    Report { about: "the server stands in a friend's home", scenario: "server-at-home" },
    Report { about: "that home's router does not hairpin", scenario: "server-at-home-no-hairpin" },
    Report { about: "a member there uses the server's public address", scenario: "server-at-home-unreached" },
    Report { about: "a guest Wi-Fi keeps two members apart", scenario: "client-isolation" },
    Report { about: "two members behind one carrier", scenario: "shared-carrier" },
    Report { about: "a provider that gives IPv6 alone, and friends with IPv4", scenario: "nat64" },
    Report { about: "the same where only the relay gets through", scenario: "nat64-relay" },
    Report { about: "a move to such a network while playing", scenario: "nat64-appears" },
    Report { about: "the network wants a login first", scenario: "captive-portal" },
    Report { about: "a power cut at any moment", scenario: "hard-kills" },
    Report { about: "leaving and coming back at once", scenario: "rejoin" },
    Report { about: "the disk is full", scenario: "full-disk" },
    Report { about: "a disk was cloned, a backup restored", scenario: "copied-state" },
    Report { about: "the same on a LAN without a server", scenario: "copied-state-lan" },
    Report { about: "another VPN splits the default route", scenario: "vpn-routes" },
    Report { about: "another network has the party's range", scenario: "clash-appears" },
    Report { about: "a router with a small table", scenario: "small-table" },
];

/// Runs the scenarios of all reports. With `json`, one object is printed at the end.
///
/// # Errors
/// Returns an error if leftovers of earlier runs cannot be removed.
pub fn run_everyday(json: bool) -> Result<ExitCode> {
    if !json {
        REPORTS.iter().for_each(|report| println!("{:24} {}", report.scenario, report.about));
    }
    report::run(|scenario| REPORTS.iter().any(|report| report.scenario == scenario.name), json)
}

#[cfg(test)]
mod tests {
    use super::{super::scenarios, *};

    #[test]
    fn every_report_is_covered_by_a_scenario_and_described_in_the_docs() {
        let docs = include_str!("../../../../docs/testing.md");
        for Report { about, scenario } in REPORTS {
            assert!(scenarios().iter().any(|known| known.name == *scenario), "no scenario {scenario}");
            let row = format!("| {about} | `{scenario}` |");
            assert!(docs.contains(&row), "docs/testing.md has no row {row:?}");
        }
    }
}
