//! What a check-up (`partyline doctor`) finds, as far as the node knows.

use std::net::SocketAddr;

use partyline_model::{DoctorFinding, PartyPhase, Verdict};

use crate::{
    connectivity::Connectivity,
    signaling::{LocalParty, Signaling, SignalingCounters},
};

/// Describes the network, every party that is on, and what was dropped.
pub(super) fn findings(signaling: &Signaling, connectivity: &Connectivity) -> Vec<DoctorFinding> {
    let mut findings = vec![udp_finding(connectivity)];
    for party in signaling.parties().filter(|party| party.is_on()) {
        findings.push(party_finding(signaling, party));
        findings.extend(clock_finding(party));
        let servers = party.membership().servers().iter();
        findings.extend(servers.map(|url| server_finding(signaling, url)));
    }
    findings.extend(dropped_finding(signaling.counters()));
    findings.extend(probe_finding(connectivity));
    findings
}

fn finding(what: impl Into<String>, verdict: Verdict, note: impl Into<String>) -> DoctorFinding {
    DoctorFinding { what: what.into(), verdict, note: note.into() }
}

fn udp_finding(connectivity: &Connectivity) -> DoctorFinding {
    match connectivity.nat().udp_blocked {
        Some(true) => finding(
            "UDP",
            Verdict::Fair,
            "This network lets no UDP out. Parties work through a relay over TLS, with more delay; another network \
             or a firewall rule for UDP makes them direct.",
        ),
        Some(false) => {
            let addresses: Vec<String> = connectivity.reflexive().iter().map(SocketAddr::to_string).collect();
            let note = format!("Servers see this computer at {}.", addresses.join(", "));
            finding("UDP", Verdict::Good, note)
        }
        None => finding("UDP", Verdict::Fair, "Not measured: no server has answered yet."),
    }
}

fn party_finding(signaling: &Signaling, party: &LocalParty) -> DoctorFinding {
    let what = format!("Party {}", party.membership().name());
    if let Some(problem) = party.problem() {
        return finding(what, Verdict::Bad, format!("{} {}", problem.message, problem.hint));
    }
    if party.phase() == PartyPhase::Up {
        let connected = signaling.connected(party.id()).count();
        return finding(what, Verdict::Good, format!("Up, with {connected} connected."));
    }
    finding(what, Verdict::Fair, "Waiting for another member to send the party's address range.")
}

fn clock_finding(party: &LocalParty) -> Option<DoctorFinding> {
    let skew = party.membership().clock_skew()?;
    let direction = if skew.behind { "behind" } else { "ahead" };
    let minutes = skew.by.as_secs() / 60;
    let note = format!(
        "This computer's clock seems {minutes} minutes {direction}. Set it right: invites may seem expired."
    );
    Some(finding("Clock", Verdict::Bad, note))
}

fn server_finding(signaling: &Signaling, url: &str) -> DoctorFinding {
    let what = format!("Server {url}");
    match signaling.server_status(url) {
        (true, _) => finding(what, Verdict::Good, "Connected."),
        (false, Some(problem)) => {
            finding(what, Verdict::Bad, format!("{} {}", problem.message, problem.hint))
        }
        (false, None) => finding(what, Verdict::Fair, "Connecting."),
    }
}

fn dropped_finding(counters: &SignalingCounters) -> Option<DoctorFinding> {
    let channels = counters.channels();
    let notable = channels.iter().flat_map(|(channel, counters)| {
        let dropped = counters.dropped.notable();
        dropped.map(move |(reason, count)| format!("{count} x {} ({channel})", reason.replace('_', " ")))
    });
    let dropped: Vec<String> = notable.collect();
    (!dropped.is_empty()).then(|| {
        let note = format!("Dropped since the start: {}.", dropped.join(", "));
        finding("Messages", Verdict::Fair, note)
    })
}

fn probe_finding(connectivity: &Connectivity) -> Option<DoctorFinding> {
    let counters = connectivity.probe_responder_counters();
    let refused = counters.refused();
    (counters.answered + refused > 0).then(|| {
        let note = format!("Helped with {}, refused {refused}.", counters.answered);
        finding("Friends' network checks", Verdict::Good, note)
    })
}
