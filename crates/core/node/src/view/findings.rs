//! What a check-up (`partyline doctor`) finds, as far as the node knows.

use std::{net::SocketAddr, time::Instant};

use ipnet::Ipv4Net;
use partyline_model::{AppError, Discovery, DoctorFinding, ErrorCode, PartyPhase, SharedNat, Verdict};
use partyline_party::WrongClock;
use partyline_tunnel::{BROADCASTS_PER_SECOND, Storm};

use super::own_address::server_status;
use crate::{
    connectivity::Connectivity,
    problem::in_words,
    signaling::{LocalParty, Signaling, SignalingCounters},
};

/// Describes the network, every party that is on, and what was dropped.
pub(super) fn findings(
    now: Instant,
    signaling: &Signaling,
    connectivity: &Connectivity,
) -> Vec<DoctorFinding> {
    let mut findings = vec![udp_finding(connectivity)];
    for party in signaling.parties().filter(|party| party.is_on() || party.is_suspended()) {
        findings.push(party_finding(signaling, party));
        findings.extend(clock_finding(party));
        findings.extend(storm_findings(now, connectivity, party));
        findings.extend(range_findings(party));
        findings.extend(copy_finding(now, party));
        findings.extend(hairpin_findings(now, signaling, connectivity, party));
        findings.extend(signaling.discovery(party.id()).map(discovery_finding));
        let servers = party.membership().servers().iter();
        findings.extend(servers.map(|url| server_finding(url, server_status(signaling, connectivity, url))));
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

/// Names the sources of this party that sent more broadcasts than the limit, at any time since the start.
fn storm_findings(now: Instant, connectivity: &Connectivity, party: &LocalParty) -> Vec<DoctorFinding> {
    let own = (None, connectivity.tunnel().own_storm(party.id()));
    let storm =
        |device| connectivity.session(party.id(), device).map(|session| session.storm).unwrap_or_default();
    let others = party.membership().members().map(|member| (Some(member.name), storm(member.device)));
    std::iter::once(own).chain(others).filter_map(|(name, storm)| storm_finding(now, name, storm)).collect()
}

fn storm_finding(now: Instant, name: Option<&str>, storm: Storm) -> Option<DoctorFinding> {
    let ago = now.saturating_duration_since(storm.last?).as_secs();
    let (who, where_) = name.map_or_else(
        || ("This computer".to_owned(), "here".to_owned()),
        |name| (name.to_owned(), format!("on {name}'s computer")),
    );
    let note = format!(
        "{who} sent more than {BROADCASTS_PER_SECOND} broadcasts a second; {} of them were dropped, the last {ago} s \
         ago. Games need a few to find each other, and everything else is delivered. A program {where_} floods the \
         party, or a bridge leads a network into it: close it.",
        storm.dropped
    );
    Some(finding("Broadcasts", Verdict::Fair, note))
}

fn copy_finding(now: Instant, party: &LocalParty) -> Option<DoctorFinding> {
    party.has_met_copy(now).then(|| {
        let note = "Another computer has a copy of this computer's keys (a cloned disk, a restored backup), and stands back. \
                    There, `partyline identity new` makes it a member of its own.";
        finding("Identity", Verdict::Fair, note)
    })
}

/// Names the members that ask for another address range.
fn range_findings(party: &LocalParty) -> Vec<DoctorFinding> {
    let asking = party
        .membership()
        .members()
        .filter_map(|member| Some((member.name, *member.avoided_networks.first()?)));
    let describe = |(name, network): (&str, Ipv4Net)| {
        let note = format!(
            "{name} cannot use the party's addresses, because another network there has them ({network}), and asks the \
             owner for other ones: `partyline range` moves the party."
        );
        finding("Addresses", Verdict::Fair, note)
    };
    asking.map(describe).collect()
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

/// Names the members that a NAT shared with them keeps apart from this computer.
fn hairpin_findings(
    now: Instant,
    signaling: &Signaling,
    connectivity: &Connectivity,
    party: &LocalParty,
) -> Vec<DoctorFinding> {
    let apart = |device| connectivity.path(now, party.id(), device).and_then(|path| path.no_hairpin);
    let online =
        party.membership().members().filter(|member| signaling.is_online(now, party.id(), &member.device));
    online.filter_map(|member| Some(hairpin_finding(member.name, apart(member.device)?))).collect()
}

fn hairpin_finding(name: &str, shared: SharedNat) -> DoctorFinding {
    let note = match shared {
        SharedNat::Router => format!(
            "{name} and this computer reach the internet through one public address, and the router there does not route \
             packets back inside (no hairpinning, RFC 4787, section 6). In one place, join the same network, not a guest \
             Wi-Fi, and switch off client isolation in the router; in different places it is your provider's, and IPv6 on \
             both sides helps. A relay is used meanwhile, if there is one."
        ),
        SharedNat::Carrier => format!(
            "{name} and this computer are behind one carrier's NAT, which does not route packets back inside (no \
             hairpinning, RFC 4787, section 6). IPv6 on both sides, or a public address from the provider, makes the \
             connection direct. A relay is used meanwhile, if there is one."
        ),
    };
    finding("Shared router", Verdict::Fair, note)
}

fn discovery_finding(discovery: Discovery) -> DoctorFinding {
    let (verdict, note) = match discovery {
        Discovery::Off => (
            Verdict::Fair,
            "The DHT is off: friends on other networks find this party by the addresses in a link, while those hold, or by a              server. `partyline config set dht on` lets them find it anywhere.",
        ),
        Discovery::Searching => (Verdict::Fair, "Asking the DHT where the others are."),
        Discovery::Listed => (Verdict::Good, "Friends find this computer by the DHT."),
        Discovery::Kept => (Verdict::Good, "Other members keep the party's addresses in the DHT."),
        Discovery::Blocked => (
            Verdict::Bad,
            "This network blocks the way Partyline finds friends: no node of the DHT answers. A phone's hotspot, another              network, or a server for the party helps.",
        ),
    };
    finding("Finding friends", verdict, note)
}

fn server_finding(url: &str, status: (bool, Option<AppError>)) -> DoctorFinding {
    let what = format!("Server {url}");
    match status {
        (true, Some(problem)) if problem.code == ErrorCode::ServerPrivate => {
            finding(what, Verdict::Fair, format!("{} {}", problem.message, problem.hint))
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn members_behind_the_same_nat_are_named_with_a_remedy() {
        let router = hairpin_finding("Ben", SharedNat::Router).note;
        assert!(router.starts_with("Ben and") && router.contains("client isolation"), "{router}");
        let carrier = hairpin_finding("Ben", SharedNat::Carrier).note;
        assert!(carrier.contains("carrier's NAT") && carrier.contains("IPv6"), "{carrier}");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn storm_is_reported_with_the_name_of_its_source() {
        let now = Instant::now();
        assert_eq!(storm_finding(now, Some("Ben"), Storm::default()), None);
        let storm = Storm { dropped: 1234, last: Some(now) };
        let note = storm_finding(now + Duration::from_secs(7), Some("Ben"), storm).expect("a finding").note;
        assert!(note.starts_with("Ben sent") && note.contains("1234") && note.contains("7 s ago"), "{note}");
        assert!(storm_finding(now, None, storm).expect("a finding").note.starts_with("This computer sent"));
    }
}
