//! Reduces a failing scenario while it still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    judge::Wrong,
    outcome::Outcome,
    play::play,
    scenario::{Event, Scenario},
};

/// The number of reduced scenarios that are tried at most.
const MAX_TRIES: usize = 200;

/// Plays a scenario. A panic is an outcome too.
#[must_use]
pub fn survive(scenario: &Scenario) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| play(scenario))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Outcome { wrong: vec![Wrong::Panic(words.unwrap_or_default())], ..Outcome::default() }
    })
}

/// Removes whatever the failure does not need.
#[must_use]
pub fn shrink(scenario: &Scenario) -> Scenario {
    let mut best = scenario.clone();
    let mut tries = 0;
    loop {
        let smaller = smaller(&best).into_iter().find(|candidate| {
            tries += 1;
            tries <= MAX_TRIES && !survive(candidate).wrong.is_empty()
        });
        let Some(smaller) = smaller else { return best };
        best = smaller;
    }
}

/// Returns scenarios that each lack one thing.
fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    if scenario.members.len() > 2 {
        all.extend((1..scenario.members.len()).rev().map(|who| without_member(scenario, who)));
    }
    for event in 0..scenario.events.len() {
        let mut less = scenario.clone();
        less.events.remove(event);
        all.push(less);
    }
    for home in 0..scenario.homes.len() {
        let mut calm = scenario.clone();
        let Some(line) = calm.homes.get_mut(home) else { continue };
        (line.jitter_ms, line.loss, line.twice, line.latency_ms) = (0, 0, 0, 10);
        let mut plain = scenario.clone();
        (plain.homes[home].v6, plain.homes[home].opens_ports) = (None, false);
        all.extend([calm, plain].into_iter().filter(|less| less != scenario));
    }
    for who in 0..scenario.members.len() {
        let mut exact = scenario.clone();
        exact.members[who].skew_s = 0;
        all.extend(Some(exact).filter(|less| less != scenario));
    }
    all.extend(with_fewer_cards(scenario));
    all
}

/// Returns scenarios that each lack a virtual card, or the faults of another VPN.
fn with_fewer_cards(scenario: &Scenario) -> Vec<Scenario> {
    let cards = scenario.members.iter().enumerate();
    let cards = cards.flat_map(|(who, person)| (0..person.cards.len()).map(move |card| (who, card)));
    let pulled = cards.map(|(who, card)| {
        let mut less = scenario.clone();
        less.members[who].cards.remove(card);
        less
    });
    let calmed = (0..scenario.vpns.len()).map(|vpn| {
        let mut calm = scenario.clone();
        (calm.vpns[vpn].jitter_ms, calm.vpns[vpn].loss, calm.vpns[vpn].multicast) = (0, 0, false);
        calm
    });
    pulled.chain(calmed.filter(|less| less != scenario)).collect()
}

fn without_member(scenario: &Scenario, gone: usize) -> Scenario {
    let mut less = scenario.clone();
    less.members.remove(gone);
    let stays = |event: Event| Some(Event { what: event.what.without(gone)?, ..event });
    less.events = less.events.into_iter().filter_map(stays).collect();
    less
}
