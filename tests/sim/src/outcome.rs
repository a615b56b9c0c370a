//! How a scenario ends: waiting for rest, and the judgement.

use std::time::Duration;

use partyline_model::PathKind;

use crate::{
    judge::{Route, Wrong, allows, is_relayed, route},
    packet,
    stage::Stage,
    watch::Outage,
};

/// What is waited at least, and at most, after the last thing happened.
const REST: Duration = Duration::from_secs(5);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(400);
const AGAIN: Duration = Duration::from_secs(2);
/// How often packets are tried that must arrive.
const ROUNDS: usize = 30;

/// How long a pair took, from the moment both were online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairTimes {
    /// Until packets could flow in both directions.
    pub first: Option<Duration>,
    /// Until they went directly in both.
    pub direct: Option<Duration>,
}

/// A pair at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// What is possible.
    pub route: Route,
    /// What it became.
    pub kind: Option<PathKind>,
    /// How long it took.
    pub times: PairTimes,
}

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What must not be.
    pub wrong: Vec<Wrong>,
    /// All pairs of those who were there at the end.
    pub pairs: Vec<Pair>,
    /// How long it took to come to rest after the last thing happened.
    pub rest: Duration,
    /// Messages sent, by UDP or to servers.
    pub messages: u64,
    /// How long it lasted.
    pub lasted: Duration,
    /// The same for every run of the same scenario.
    pub trace: u64,
    /// How many took part.
    pub members: usize,
    /// How long packets did not arrive after trouble, one for each direction.
    pub outages: Vec<Outage>,
}

impl Pair {
    /// Whether packets go directly.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.kind.is_some_and(|kind| !is_relayed(kind))
    }
}

impl Stage<'_> {
    pub(crate) fn conclude(mut self) -> Outcome {
        let rest = self.come_to_rest();
        let (messages, lasted) = (self.world.trace.messages, self.world.now.instant - self.start);
        self.wrong = self.faults();
        if self.wrong.is_empty() {
            self.exchange();
        }
        Outcome {
            pairs: self.pairs(),
            rest,
            messages,
            lasted,
            trace: self.world.trace.hash(),
            members: self.present.len(),
            outages: self.outages,
            wrong: self.wrong,
        }
    }

    /// Waits until nothing is wrong any more and everything was watched; says how long the former took.
    fn come_to_rest(&mut self) -> Duration {
        let since = self.world.now.instant;
        self.run_until(since + REST);
        let mut right = None;
        loop {
            let waited = self.world.now.instant - since;
            right = self.faults().is_empty().then(|| right.unwrap_or(waited));
            if waited >= SETTLE_TIMEOUT || right.is_some() && self.watch.is_none() {
                self.watch = None;
                return right.unwrap_or(waited);
            }
            self.run_until(self.world.now.instant + AGAIN);
        }
    }

    fn there(&self) -> Vec<usize> {
        (0..self.present.len()).filter(|who| self.present[*who]).collect()
    }

    /// What is wrong as the members show it.
    fn faults(&self) -> Vec<Wrong> {
        let there = self.there();
        let others = |who: &usize| there.iter().map(move |other| (*who, *other)).collect::<Vec<_>>();
        let pairs = there.iter().flat_map(others).filter(|(who, other)| who != other);
        let mut faults: Vec<Wrong> = pairs.filter_map(|(who, other)| self.fault(who, other)).collect();
        let ghosts = self.ghosts().into_iter().filter(|ghost| !self.excused.contains(ghost));
        faults.extend(ghosts.map(|(who, other)| Wrong::Ghost(who, other)));
        faults
    }

    fn fault(&self, who: usize, other: usize) -> Option<Wrong> {
        let Some(kind) = self.view(who, other) else { return Some(Wrong::Missing(who, other)) };
        let route = route(self.scenario, self.homes[who], self.homes[other]);
        (!allows(route, kind)).then_some(Wrong::Path(who, other, route, Some(kind)))
    }

    fn pairs(&self) -> Vec<Pair> {
        let there = self.there();
        let mut pairs = Vec::new();
        for (at, one) in there.iter().enumerate() {
            for other in &there[at + 1..] {
                let route = route(self.scenario, self.homes[*one], self.homes[*other]);
                let times = self.times.get(&(*one, *other)).copied().unwrap_or_default();
                pairs.push(Pair { route, kind: self.view(*one, *other), times });
            }
        }
        pairs
    }

    /// Sends packets between all, on lines that lose nothing any more, and sees whether they arrive exactly once.
    fn exchange(&mut self) {
        self.world.members.iter_mut().for_each(|member| member.line.loss = 0.0);
        let there = self.there();
        let all = |one: &usize| there.iter().map(move |other| (*one, *other)).collect::<Vec<_>>();
        let mut open: Vec<(usize, usize)> = there.iter().flat_map(all).filter(|(a, b)| a != b).collect();
        for round in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let mut sent = Vec::new();
            self.world.members.iter_mut().for_each(|member| member.received.clear());
            for (from, to) in open {
                let payload = format!("{from} to {to}, {round}").into_bytes();
                let target = self.world.address(to);
                self.world.send_packet(from, target, &payload);
                sent.push((from, to, payload));
            }
            self.run_until(self.world.now.instant + AGAIN);
            open = self.check(sent);
        }
        self.wrong.extend(open.into_iter().map(|(from, to)| Wrong::Mute(from, to)));
    }

    /// Which packets did not arrive.
    fn check(&mut self, sent: Vec<(usize, usize, Vec<u8>)>) -> Vec<(usize, usize)> {
        let mut open = Vec::new();
        for (from, to, payload) in sent {
            let received = self.world.members[to].received.iter();
            let heard =
                received.filter_map(|(_, bytes)| packet::open(bytes)).filter(|(_, got)| *got == payload);
            match heard.count() {
                0 => open.push((from, to)),
                1 => {}
                _ => self.wrong.push(Wrong::Twice(from, to)),
            }
        }
        open
    }
}
