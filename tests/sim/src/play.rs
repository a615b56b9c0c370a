//! Plays a scenario to its end, waits until the party has come to rest, and judges it.

use std::time::Duration;

use crate::{
    judge::{Wrong, allows, route},
    outcome::{Outcome, Pair},
    packet,
    scenario::Scenario,
    stage::Stage,
};

/// The shortest and the longest wait after the last event.
const MIN_REST: Duration = Duration::from_secs(5);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(400);
/// The pause between two looks, and between two rounds of packets.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often packets that must arrive are tried.
const MAX_ROUNDS: usize = 30;

/// Plays a scenario from its beginning to its judgement.
#[must_use]
pub fn play(scenario: &Scenario) -> Outcome {
    let mut stage = Stage::new(scenario);
    stage.act_all();
    Conclusion { stage, wrong: Vec::new() }.conclude()
}

/// The end of a scenario.
struct Conclusion<'a> {
    stage: Stage<'a>,
    wrong: Vec<Wrong>,
}

impl Conclusion<'_> {
    fn conclude(mut self) -> Outcome {
        let rest = self.come_to_rest();
        let messages = self.stage.world.wires.trace.messages;
        let lasted = self.stage.world.now().instant - self.stage.start;
        self.wrong = self.faults();
        if self.wrong.is_empty() {
            self.exchange();
        }
        Outcome {
            pairs: self.pairs(),
            rest,
            messages,
            lasted,
            trace: self.stage.world.wires.trace.hash(),
            members: self.stage.scenario.members.len(),
            copies: self.stage.copies.settled(),
            outages: self.stage.outages,
            wrong: self.wrong,
        }
    }

    /// Waits until nothing is wrong any more and no watch goes on. Returns how long the former took.
    fn come_to_rest(&mut self) -> Duration {
        let since = self.stage.world.now().instant;
        self.stage.run_until(since + MIN_REST);
        let mut right = None;
        loop {
            let now = self.stage.world.now().instant;
            let waited = now - since;
            right = self.faults().is_empty().then(|| right.unwrap_or(waited));
            if waited >= SETTLE_TIMEOUT || right.is_some() && self.stage.watch.is_none() {
                self.stage.watch = None;
                return right.unwrap_or(waited);
            }
            self.stage.run_until(now + RETRY_INTERVAL);
        }
    }

    /// Returns all ordered pairs of members.
    fn ordered_pairs(&self) -> Vec<(usize, usize)> {
        let present = self.stage.present();
        let pairs = present.iter().flat_map(|one| present.iter().map(move |other| (*one, *other)));
        let member = |computer: &usize| self.stage.copies.member(*computer);
        pairs.filter(|(one, other)| member(one) != member(other)).collect()
    }

    /// Returns what is wrong as the members' views show it.
    fn faults(&self) -> Vec<Wrong> {
        let pairs = self.ordered_pairs().into_iter();
        let mut faults: Vec<Wrong> = pairs.filter_map(|(who, other)| self.fault(who, other)).collect();
        let ghosts = self.stage.unexcused_ghosts().into_iter();
        faults.extend(ghosts.map(|(who, other)| Wrong::Ghost(who, other)));
        let copies = self.stage.unsettled_copies().into_iter();
        faults.extend(copies.map(|(who, count)| Wrong::Copies(who, count)));
        faults
    }

    fn fault(&self, who: usize, other: usize) -> Option<Wrong> {
        let Some(kind) = self.stage.view(who, other) else { return Some(Wrong::Missing(who, other)) };
        let route = route(self.stage.scenario, self.stage.homes[who], self.stage.homes[other]);
        (!allows(route, kind)).then_some(Wrong::Path(who, other, route, Some(kind)))
    }

    fn pairs(&self) -> Vec<Pair> {
        let unordered = self.ordered_pairs().into_iter().filter(|(one, other)| one < other);
        let pair = |(one, other): (usize, usize)| Pair {
            route: route(self.stage.scenario, self.stage.homes[one], self.stage.homes[other]),
            kind: self.stage.view(one, other),
            has_vpn: self.stage.scenario.share_vpn(one, other),
            times: self.stage.contacts.times(one, other),
        };
        unordered.map(pair).collect()
    }

    /// Sends packets between all members, on lines that now lose nothing, and checks that each arrives exactly once.
    fn exchange(&mut self) {
        self.stage.world.network().hosts.iter_mut().for_each(|host| host.line.loss = 0.0);
        let mut open = self.ordered_pairs();
        for round in 0..MAX_ROUNDS {
            if open.is_empty() {
                break;
            }
            let mut sent = Vec::new();
            self.stage.world.members.iter_mut().for_each(|member| member.received.clear());
            for (from, to) in open {
                let payload = format!("{from} to {to}, {round}").into_bytes();
                let target = self.stage.world.address(to);
                self.stage.world.send_packet(from, target, &payload);
                sent.push((from, to, payload));
            }
            self.stage.run_until(self.stage.world.now().instant + RETRY_INTERVAL);
            open = self.check(sent);
        }
        self.wrong.extend(open.into_iter().map(|(from, to)| Wrong::Mute(from, to)));
    }

    /// Returns the pairs whose packet did not arrive.
    fn check(&mut self, sent: Vec<(usize, usize, Vec<u8>)>) -> Vec<(usize, usize)> {
        let mut open = Vec::new();
        for (from, to, payload) in sent {
            let received = self.stage.world.members[to].received.iter();
            let payloads = received.filter_map(|(_, bytes)| packet::open(bytes)).map(|(_, got)| got);
            match payloads.filter(|got| *got == payload).count() {
                0 => open.push((from, to)),
                1 => {}
                _ => self.wrong.push(Wrong::Twice(from, to)),
            }
        }
        open
    }
}
