//! The answer to "why this path?": what was tried by each method, how it ended and how long it took.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use partyline_model::{Attempt, AttemptOutcome, Candidate, Method};

use crate::{
    context::Device,
    pair::{CandidatePair, PairState},
    path::Via,
    peer::Peer,
    punch::{AttemptRecord, Punch},
    relays::{AttemptState, RelayPool},
    turn::AllocationEnd,
};

/// One line per method, of which the attempt that got furthest is shown.
#[derive(Default)]
struct Lines {
    by_method: BTreeMap<Method, Attempt>,
}

impl Lines {
    /// Adds an attempt, unless one by the same method got as far.
    fn add(&mut self, attempt: Attempt) {
        match self.by_method.entry(attempt.method) {
            Entry::Vacant(entry) => _ = entry.insert(attempt),
            Entry::Occupied(mut entry) => {
                if progress(&attempt) > progress(entry.get()) {
                    entry.insert(attempt);
                }
            }
        }
    }

    /// Adds an attempt if there is none by the same method.
    fn add_if_new(&mut self, attempt: Attempt) {
        self.by_method.entry(attempt.method).or_insert(attempt);
    }
}

/// Returns the attempts to reach a peer, best method first.
pub(crate) fn attempts(peer: &Peer, relays: &RelayPool, device: &Device, now: Instant) -> Vec<Attempt> {
    let mut lines = Lines::default();
    for pair in peer.pairs().iter() {
        lines.add(of_pair(pair, now));
    }
    for attempt in of_punching(peer.punch(), now) {
        lines.add(attempt);
    }
    for (server, state) in relays.states() {
        if let Some(attempt) = of_relay(server.transport.method(), &server.name, state, now) {
            lines.add_if_new(attempt);
        }
    }
    for (method, note) in impossible(peer, relays, device) {
        lines.add_if_new(Attempt { method, outcome: AttemptOutcome::Impossible, took_ms: 0, note });
    }
    lines.by_method.into_values().collect()
}

fn of_pair(pair: &CandidatePair, now: Instant) -> Attempt {
    let outcome = match pair.state() {
        PairState::Frozen if pair.is_overlay() => AttemptOutcome::Impossible,
        PairState::Valid => AttemptOutcome::Worked,
        PairState::Failed => AttemptOutcome::NoAnswer,
        PairState::InProgress(_) if pair.has_failed_before() => AttemptOutcome::NoAnswer,
        PairState::Frozen | PairState::InProgress(_) => AttemptOutcome::Trying,
    };
    let settled = pair.settled_after().filter(|_| outcome != AttemptOutcome::Trying);
    let took = settled.unwrap_or_else(|| pair.age(now));
    let note = match pair.state() {
        PairState::Frozen if pair.is_overlay() => "The last resort, while nothing else works.".into(),
        _ if pair.has_yielded() => {
            format!(
                "Checked {}; it is much worse than the path in use, and left alone for a while.",
                pair.path.remote
            )
        }
        PairState::Frozen => "The relay is preparing a channel.".into(),
        _ if matches!(pair.path.via, Via::Member(_)) => "Checked end to end.".into(),
        _ => format!("Checked {}.", pair.path.remote),
    };
    Attempt { method: pair.method(), outcome, took_ms: millis(took), note }
}

/// Describes what punch attempts came to, or why there are none.
fn of_punching(punch: &Punch, now: Instant) -> Vec<Attempt> {
    let records = punch.records(now).into_iter();
    let mut attempts: Vec<Attempt> = records
        .map(|(method, AttemptRecord { outcome, took, note })| Attempt {
            method,
            outcome,
            took_ms: millis(took),
            note,
        })
        .collect();
    if let Some(reason) = punch.infeasible() {
        attempts.extend([Method::Predict, Method::Spray].map(|method| Attempt {
            method,
            outcome: AttemptOutcome::Impossible,
            took_ms: 0,
            note: reason.description().to_owned(),
        }));
    }
    attempts
}

fn of_relay(method: Method, name: &str, state: AttemptState, now: Instant) -> Option<Attempt> {
    let (outcome, took, note) = match state {
        AttemptState::Idle => return None,
        AttemptState::Requesting(since, before) => {
            let asking = || format!("Asking {name} for an address.");
            let note = before.map_or_else(asking, |end| describe(name, end));
            (AttemptOutcome::Trying, now.saturating_duration_since(since), note)
        }
        AttemptState::Granted(took) => {
            let note = format!("{name} is ready; waiting for the member's addresses.");
            (AttemptOutcome::Trying, took, note)
        }
        AttemptState::Ended(took, end) => (AttemptOutcome::NoAnswer, took, describe(name, end)),
    };
    Some(Attempt { method, outcome, took_ms: millis(took), note })
}

fn describe(name: &str, end: AllocationEnd) -> String {
    match end {
        AllocationEnd::NoResponse => format!("{name} did not answer."),
        AllocationEnd::Lost => format!("{name} was restarted; asking again."),
        AllocationEnd::Refused(401 | 441) => format!("{name} did not accept the credentials."),
        AllocationEnd::Refused(486) => format!("{name} has no room for another connection of this user."),
        AllocationEnd::Refused(508) => format!("{name} is full."),
        AllocationEnd::Refused(code) => format!("{name} refused with error {code}."),
        AllocationEnd::StreamClosed => format!("The connection to {name} could not be made or was closed."),
    }
}

/// Returns the methods that cannot be tried, with the reasons.
fn impossible(peer: &Peer, relays: &RelayPool, device: &Device) -> Vec<(Method, String)> {
    let config = &device.config;
    let mut list = Vec::new();
    if config.direct {
        let switches = [(Method::Predict, config.methods.predict), (Method::Spray, config.methods.spray)];
        let off = switches.into_iter().filter(|(_, on)| !on);
        list.extend(off.map(|(method, _)| (method, "Switched off in the settings.".to_owned())));
        if !has_ipv6(&device.candidates) {
            list.push((Method::Ipv6, "This computer has no IPv6 address.".into()));
        } else if !has_ipv6(&peer.remote().candidates) {
            list.push((Method::Ipv6, "The member has no IPv6 address.".into()));
        }
    } else {
        let direct = [Method::Lan, Method::Ipv6, Method::Punch, Method::Predict, Method::Spray];
        list.extend(direct.map(|method| (method, "Direct paths are switched off.".to_owned())));
    }
    if !config.relay {
        list.push((Method::RelayUdp, "Relays are switched off.".into()));
    } else if relays.states().next().is_none() {
        list.push((Method::RelayUdp, "No relay is known yet.".into()));
    }
    list
}

fn has_ipv6(candidates: &[Candidate]) -> bool {
    candidates.iter().any(|candidate| candidate.address.is_ipv6())
}

/// Returns how far an attempt got.
const fn progress(attempt: &Attempt) -> u8 {
    match attempt.outcome {
        AttemptOutcome::Impossible => 0,
        AttemptOutcome::NoAnswer => 1,
        AttemptOutcome::Trying => 2,
        AttemptOutcome::Worked => 3,
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Config,
        context::Shared,
        path::PeerId,
        testing::{params, start},
    };

    fn explain(config: Config) -> Vec<(Method, AttemptOutcome)> {
        let now = start();
        let (peer, shared) = (Peer::new(now, PeerId(1), params()), Shared::new([1; 32], config));
        let list = attempts(&peer, &shared.relays, &shared.device, now);
        list.into_iter().map(|attempt| (attempt.method, attempt.outcome)).collect()
    }

    #[test]
    fn what_is_switched_off_is_named() {
        let off = Config { direct: false, relay: false, ..Config::default() };
        let methods =
            [Method::Lan, Method::Ipv6, Method::Punch, Method::Predict, Method::Spray, Method::RelayUdp];
        assert_eq!(explain(off), methods.map(|method| (method, AttemptOutcome::Impossible)));
    }

    #[test]
    fn of_one_method_the_attempt_that_got_furthest_is_shown() {
        let attempt = |outcome| Attempt { method: Method::Punch, outcome, took_ms: 0, note: String::new() };
        let mut lines = Lines::default();
        for outcome in [AttemptOutcome::NoAnswer, AttemptOutcome::Worked, AttemptOutcome::Trying] {
            lines.add(attempt(outcome));
        }
        assert_eq!(lines.by_method[&Method::Punch].outcome, AttemptOutcome::Worked);
    }

    #[test]
    fn ends_of_allocations_are_explained_in_words() {
        assert_eq!(describe("frankfurt", AllocationEnd::Refused(508)), "frankfurt is full.");
        assert!(describe("frankfurt", AllocationEnd::Refused(401)).contains("credentials"));
        assert!(describe("frankfurt", AllocationEnd::NoResponse).contains("did not answer"));
    }
}
