//! What a check-up (`partyline doctor`) finds, as far as the node knows.

use std::net::SocketAddr;

use partyline_model::{DoctorFinding, PartyPhase, Verdict};
use partyline_party::WrongClock;

use crate::{
    connectivity::Connectivity,
    problem::in_words,
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
            if connectivity.reflexive().is_empty() {
                let note = "Works. The server is in this computer's own network, so that nothing shows what the router does.";
                return finding("UDP", Verdict::Good, note);
            }
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
    let (by, direction) = (in_words(skew.by), if skew.behind { "behind" } else { "ahead" });
    let name = |member| party.membership().member(&member).map_or("a member", |member| member.name);
    let note = match skew.wrong {
        WrongClock::Own => format!(
            "This computer's clock is {by} {direction}. Set it right: invites seem expired, and those made here are refused."
        ),
        WrongClock::Server => {
            let opposite = if skew.behind { "ahead" } else { "behind" };
            let note = format!(
                "The server's clock is {by} {opposite}; this computer's agrees with a member's. Tell its operator."
            );
            return Some(finding("Clock", Verdict::Fair, note));
        }
        WrongClock::Member(member) => {
            let note = format!("The clock of {} is {by} ahead. It should be set right there.", name(member));
            return Some(finding("Clock", Verdict::Fair, note));
        }
        WrongClock::OwnOrMember(member) => format!(
            "This computer's clock is {by} behind, or that of {} ahead. No server could say whose is wrong.",
            name(member)
        ),
    };
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
