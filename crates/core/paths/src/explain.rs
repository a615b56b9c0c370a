//! The answer to "why this path?": for each method what was tried, how it ended and how long it took.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use partyline_model::{Attempt, AttemptOutcome, Candidate, Method};

use crate::{
    api::{Config, RelayTransport, Via},
    pair::{Pair, State},
    peer::Peer,
    punch::Record,
    relays::{Relays, Standing},
    turn::Ending,
};

/// Attempts towards a peer, best method first.
pub(crate) fn attempts(
    peer: &Peer,
    relays: &Relays,
    config: &Config,
    local: &[Candidate],
    now: Instant,
) -> Vec<Attempt> {
    let mut attempts: BTreeMap<Method, Attempt> = BTreeMap::new();
    for pair in &peer.pairs {
        let attempt = of_pair(pair, now);
        attempts
            .entry(attempt.method)
            .and_modify(|old| {
                if standing(&attempt) > standing(old) {
                    *old = attempt.clone();
                }
            })
            .or_insert(attempt);
    }
    for (method, attempt) in of_rounds(peer, now) {
        attempts
            .entry(method)
            .and_modify(|old| {
                if standing(&attempt) > standing(old) {
                    *old = attempt.clone();
                }
            })
            .or_insert(attempt);
    }
    for (server, state) in relays.standings() {
        let method = method_of(server.transport);
        if let Some(attempt) = of_relay(method, &server.name, state, now) {
            attempts.entry(method).or_insert(attempt);
        }
    }
    for (method, note) in impossible(peer, relays, config, local) {
        attempts.entry(method).or_insert(Attempt {
            method,
            outcome: AttemptOutcome::Impossible,
            took_ms: 0,
            note,
        });
    }
    attempts.into_values().collect()
}

fn of_pair(pair: &Pair, now: Instant) -> Attempt {
    let outcome = match pair.state {
        State::Valid => AttemptOutcome::Worked,
        State::Failed => AttemptOutcome::NoAnswer,
        State::Checking(_) if pair.rounds > 0 => AttemptOutcome::NoAnswer,
        State::Waiting | State::Checking(_) => AttemptOutcome::Trying,
    };
    let running = pair.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
    let took = pair.took.filter(|_| outcome != AttemptOutcome::Trying).unwrap_or(running);
    let note = match pair.state {
        State::Waiting => "The relay is preparing a channel.".into(),
        _ if matches!(pair.path.via, Via::Member(_)) => "Checked from end to end.".into(),
        _ => format!("Checked {}.", pair.path.remote),
    };
    Attempt { method: pair.method(), outcome, took_ms: millis(took), note }
}

/// What rounds of punching came to, or why there are none.
fn of_rounds(peer: &Peer, now: Instant) -> Vec<(Method, Attempt)> {
    let records = peer.punch.records(now);
    let mut attempts: Vec<_> = records
        .into_iter()
        .map(|(method, Record { outcome, took, note })| {
            (method, Attempt { method, outcome, took_ms: millis(took), note })
        })
        .collect();
    if let Some(reason) = peer.punch.hopeless() {
        let note = reason.text().to_owned();
        let hopeless =
            |method| Attempt { method, outcome: AttemptOutcome::Impossible, took_ms: 0, note: note.clone() };
        attempts.extend([Method::Predict, Method::Spray].map(|method| (method, hopeless(method))));
    }
    attempts
}

fn of_relay(method: Method, name: &str, state: Standing, now: Instant) -> Option<Attempt> {
    let (outcome, took, note) = match state {
        Standing::Idle => return None,
        Standing::Trying(since, before) => {
            let note = before
                .map_or_else(|| format!("Asking {name} for an address."), |ending| explain(name, ending));
            (AttemptOutcome::Trying, now.saturating_duration_since(since), note)
        }
        Standing::Live(took) => {
            (AttemptOutcome::Trying, took, format!("{name} is ready; waiting for the member's addresses."))
        }
        Standing::Failed(took, ending) => (AttemptOutcome::NoAnswer, took, explain(name, ending)),
    };
    Some(Attempt { method, outcome, took_ms: millis(took), note })
}

fn explain(name: &str, ending: Ending) -> String {
    match ending {
        Ending::NoAnswer => format!("{name} did not answer."),
        Ending::Forgotten => format!("{name} was restarted; asking again."),
        Ending::Refused(401 | 441) => format!("{name} did not accept the credentials."),
        Ending::Refused(486) => format!("{name} has no room for another connection of this user."),
        Ending::Refused(508) => format!("{name} is full."),
        Ending::Refused(code) => format!("{name} refused with error {code}."),
        Ending::Closed => format!("The connection to {name} could not be made or was closed."),
    }
}

/// Methods that cannot be tried, with the reason.
fn impossible(peer: &Peer, relays: &Relays, config: &Config, local: &[Candidate]) -> Vec<(Method, String)> {
    let mut list = Vec::new();
    if !config.direct {
        list.extend(
            [Method::Lan, Method::Ipv6, Method::Punch, Method::Predict, Method::Spray]
                .map(|method| (method, "Direct paths are switched off.".to_owned())),
        );
    } else {
        let switches = [(Method::Predict, config.methods.predict), (Method::Spray, config.methods.spray)];
        let off = switches.into_iter().filter(|(_, on)| !on);
        list.extend(off.map(|(method, _)| (method, "Switched off in the settings.".to_owned())));
        let v6 = |candidates: &[Candidate]| candidates.iter().any(|c| c.address.is_ipv6());
        if !v6(local) {
            list.push((Method::Ipv6, "This computer has no IPv6 address.".into()));
        } else if !v6(&peer.candidates) {
            list.push((Method::Ipv6, "The member has no IPv6 address.".into()));
        }
    }
    if !config.relay {
        list.push((Method::RelayUdp, "Relays are switched off.".into()));
    } else if relays.standings().next().is_none() {
        list.push((Method::RelayUdp, "No relay is known yet.".into()));
    }
    list
}

/// Of two attempts by one method the one that got further is shown.
fn standing(attempt: &Attempt) -> u8 {
    match attempt.outcome {
        AttemptOutcome::Impossible => 0,
        AttemptOutcome::NoAnswer => 1,
        AttemptOutcome::Trying => 2,
        AttemptOutcome::Worked => 3,
    }
}

fn method_of(transport: RelayTransport) -> Method {
    match transport {
        RelayTransport::Udp => Method::RelayUdp,
        RelayTransport::Tcp => Method::RelayTcp,
        RelayTransport::Tls => Method::RelayTls,
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
