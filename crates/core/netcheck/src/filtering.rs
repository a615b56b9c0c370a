//! Whose packets a mapping lets in (RFC 5780, section 4.4): with which server that is tested, and whether what it did
//! not answer is to be believed.
//!
//! A server is asked to answer from its other port and from its other address, to which our socket has sent nothing
//! ([`crate::trial`]). If no answer came, the NAT is opened for those, and the server has to show that it can answer
//! from there at all.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{Filtering, Mapping};

use crate::{
    PortPair,
    client::Client,
    observer::Watch,
    pair::{PairTest, Step},
    stun::Change,
    survey::{Meeting, Purpose, Survey},
    trial::{Goal, Reference, Trial, Verdict},
};

/// What could not be told, and why.
pub(crate) const NO_REFERENCE: &str = "no STUN server with two addresses: filtering cannot be tested";
pub(crate) const LOSSY: &str = "too many packets were lost to test filtering";
pub(crate) const UNFIT: &str = "a STUN server did not answer from where it was asked to";
pub(crate) const UNPROVEN: &str = "the STUN server's silence could not be told from the NAT's filtering";

/// A test, and what it found so far.
#[derive(Debug, Default)]
pub(crate) struct FilteringTest {
    stage: Stage,
    /// Counts the trials, so that answers to one are not taken for another's.
    trials: u8,
    /// With whom.
    pub(crate) reference: Option<Reference>,
    /// What filtering is if the server's silence can be believed.
    closed: Option<Filtering>,
    /// Whether a member was asked, or could not be.
    watched: bool,
    /// What a member lends.
    pub(crate) pair: Option<PortPair>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Waiting,
    Trying(Trial),
    /// The server was silent; the NAT is opened for it once that disturbs nobody. So many questions are open.
    Opening {
        asked: bool,
        open: u8,
    },
    Proving(Trial),
    /// No server can tell, and a first one has to see the socket before a member can send to it.
    Introducing {
        open: u8,
    },
    Watching(Watch),
    /// A member lends two ports.
    Judging(Box<PairTest>),
    Done,
}

impl FilteringTest {
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    pub(crate) const fn is_under_way(&self) -> bool {
        !self.is_done() && !self.is_waiting()
    }

    /// Whether the socket may talk to the server's other addresses now.
    pub(crate) const fn is_tried(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. } | Stage::Proving(_) | Stage::Done)
    }

    /// What a member was asked to send, while it is awaited.
    pub(crate) const fn watch(&self) -> Option<Watch> {
        match self.stage {
            Stage::Watching(watch) => Some(watch),
            _ => None,
        }
    }

    pub(crate) const fn is_watched(&self) -> bool {
        self.watched
    }

    pub(crate) const fn pair_test(&mut self) -> Option<&mut PairTest> {
        match &mut self.stage {
            Stage::Judging(test) => Some(test),
            _ => None,
        }
    }

    /// A server was to see a mapping that a member judges by.
    pub(crate) fn seen(&mut self, answered: bool) {
        self.pair_test().into_iter().for_each(|test| test.seen(answered));
    }

    /// Nothing more is to be found.
    pub(crate) fn finish(&mut self) {
        self.stage = Stage::Done;
    }

    /// A question to another address was answered, or never will be.
    pub(crate) fn opened(&mut self) {
        if let Stage::Opening { open, .. } | Stage::Introducing { open } = &mut self.stage {
            *open = open.saturating_sub(1);
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match &self.stage {
            Stage::Trying(trial) | Stage::Proving(trial) => trial.poll_timeout(now),
            Stage::Watching(watch) => Some(watch.until).filter(|until| *until > now),
            Stage::Judging(test) => test.poll_timeout(now),
            Stage::Waiting | Stage::Opening { .. } | Stage::Introducing { .. } | Stage::Done => None,
        }
    }
}

impl Survey {
    /// True if there may be more to do.
    pub(crate) fn step_filtering(
        &mut self,
        now: Instant,
        meeting: Meeting,
        client: &mut Client<Purpose>,
    ) -> bool {
        let number = self.filtering.trials;
        let next = match &mut self.filtering.stage {
            Stage::Waiting => self.next_trial(now, meeting),
            Stage::Trying(trial) => {
                trial.step(now, number, client);
                trial.verdict(now).map(|verdict| self.after_trial(verdict))
            }
            Stage::Opening { asked: false, .. } => self.open(now, client),
            Stage::Opening { open: 0, .. } => Some(self.prove(now)),
            Stage::Proving(trial) => {
                trial.step(now, number, client);
                trial.verdict(now).map(|verdict| self.believe(verdict == Verdict::Proven))
            }
            Stage::Introducing { open: 0 } => {
                Some(self.watch(now, client).map_or(Stage::Done, Stage::Watching))
            }
            &mut Stage::Watching(watch) => self.after_watch(now, watch, client),
            Stage::Judging(_) => self.judge(now, client),
            Stage::Opening { .. } | Stage::Introducing { .. } | Stage::Done => None,
        };
        let over = match next {
            Some(Stage::Done) => true,
            // Members may come while the other tests still go on.
            None => self.filtering.is_done() && !self.is_done(),
            Some(_) => false,
        };
        let next = if over && self.may_watch() { Some(self.introduce(now, client)) } else { next };
        let moved = next.is_some();
        self.filtering.stage = next.unwrap_or_else(|| std::mem::take(&mut self.filtering.stage));
        moved
    }

    /// A member's packet did not come yet. Once somebody lends two ports, and the other tests are over, they tell more.
    fn after_watch(&mut self, now: Instant, watch: Watch, client: &mut Client<Purpose>) -> Option<Stage> {
        if let Some(test) = self.pair_test(now, client) {
            return Some(Stage::Judging(Box::new(test)));
        }
        (watch.until <= now && !self.awaits_pair()).then_some(Stage::Done)
    }

    fn judge(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Stage> {
        let Stage::Judging(mut test) = std::mem::take(&mut self.filtering.stage) else { return None };
        match self.step_pair(now, &mut test, client) {
            Step::Over(found) => {
                found.into_iter().for_each(|filtering| self.told_by_member(filtering));
                Some(Stage::Done)
            }
            Step::Moved => Some(Stage::Judging(test)),
            Step::Waits => {
                self.filtering.stage = Stage::Judging(test);
                None
            }
        }
    }

    /// Lets a server see the socket, so that a member can be asked to send there; that is all there is left to try.
    fn introduce(&mut self, now: Instant, client: &mut Client<Purpose>) -> Stage {
        self.filtering.watched = true;
        let Some(server) = self.contacts.iter().copied().find(SocketAddr::is_ipv4) else {
            return Stage::Done;
        };
        let unseen = self.seen_of(self.roles.filtering).is_empty();
        if unseen {
            self.ask(now, (self.roles.filtering, server), Purpose::Open, client);
        }
        Stage::Introducing { open: unseen.into() }
    }

    /// A trial with the first server that is left for it. `None` while one may still turn up.
    fn next_trial(&mut self, now: Instant, meeting: Meeting) -> Option<Stage> {
        let asked: Vec<_> = self.asked_by(self.roles.filtering).copied().collect();
        let alone =
            |r: &Reference| asked.iter().all(|sent| sent.ip() != r.other.ip() && *sent != r.other_port());
        let fit = |(reference, untouched): &&mut (Reference, bool)| *untouched && alone(reference);
        if let Some((reference, untouched)) = self.references.iter_mut().find(fit) {
            *untouched = false;
            let reference = *reference;
            self.filtering.reference = Some(reference);
            self.note(self.roles.filtering, reference.server);
            return Some(Stage::Trying(self.trial(now, reference, Goal::Measure)));
        }
        if meeting.met && self.references.is_empty() {
            self.gaps.push(NO_REFERENCE);
        }
        meeting.met.then_some(Stage::Done)
    }

    fn trial(&mut self, now: Instant, reference: Reference, goal: Goal) -> Trial {
        self.filtering.trials = self.filtering.trials.wrapping_add(1);
        Trial::new(now, self.roles.filtering, reference, goal)
    }

    fn after_trial(&mut self, verdict: Verdict) -> Stage {
        self.filtering.closed = match verdict {
            Verdict::Closed { port_open: true } => Some(Filtering::AddressDependent),
            Verdict::Closed { port_open: false } => Some(Filtering::AddressAndPortDependent),
            Verdict::Open => {
                self.found.filtering = Some(Filtering::EndpointIndependent);
                return Stage::Done;
            }
            Verdict::Lossy => {
                self.gaps.push(LOSSY);
                return Stage::Done;
            }
            Verdict::Unfit | Verdict::Proven => {
                self.gaps.push(UNFIT);
                return Stage::Waiting;
            }
        };
        Stage::Opening { asked: false, open: 0 }
    }

    pub(crate) fn heard_in_trial(
        &mut self,
        now: Instant,
        number: u8,
        round: u8,
        change: Change,
        honoured: bool,
    ) {
        let test = &mut self.filtering;
        match &mut test.stage {
            Stage::Trying(trial) | Stage::Proving(trial) if number == test.trials => {
                trial.heard(now, round, change, honoured);
            }
            _ => {
                // If it comes after all, its absence proved nothing.
                let port_closed = test.closed == Some(Filtering::AddressAndPortDependent);
                let expected = change == Change::Nothing || (change == Change::Port && !port_closed);
                test.closed = test.closed.filter(|_| expected || !honoured);
            }
        }
    }

    /// Talks to the server's other addresses, once no other test needs the order in which mappings are made.
    fn open(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<Stage> {
        let independent = self.found.mapping == Some(Mapping::EndpointIndependent);
        if !self.mapping.is_done() || !(independent || self.ports.is_done()) {
            return None;
        }
        let port = self.filtering.closed == Some(Filtering::AddressAndPortDependent);
        let reference = self.filtering.reference?;
        let targets = [Some(reference.other), port.then(|| reference.other_port())];
        let mut open = 0;
        for target in targets.into_iter().flatten() {
            if !self.has_asked(self.roles.filtering, target) {
                self.ask(now, (self.roles.filtering, target), Purpose::Open, client);
                open += 1;
            }
        }
        Some(Stage::Opening { asked: true, open })
    }

    /// How the server's silence is to be believed. Answers from elsewhere can reach the mapping that was asked from
    /// only if that mapping has been opened for them, that is, if the NAT used it towards there as well.
    fn prove(&mut self, now: Instant) -> Stage {
        let (Some(reference), Some(closed)) = (self.filtering.reference, self.filtering.closed) else {
            return self.believe(false);
        };
        let port = closed == Filtering::AddressAndPortDependent;
        let seen = self.seen_of(self.roles.filtering);
        let alive = |address: SocketAddr| seen.iter().any(|o| o.destination == address);
        let alive = alive(reference.other) && (!port || alive(reference.other_port()));
        let goal = match self.found.mapping {
            Some(Mapping::EndpointIndependent) => Goal::Prove { port, address: true },
            Some(Mapping::AddressDependent) if port && alive => Goal::Prove { port, address: false },
            dependent => return self.believe(alive && dependent.is_some()),
        };
        Stage::Proving(self.trial(now, reference, goal))
    }

    fn believe(&mut self, proven: bool) -> Stage {
        self.found.filtering = self.filtering.closed.filter(|_| proven);
        if self.found.filtering.is_none() {
            self.gaps.push(UNPROVEN);
        }
        Stage::Done
    }
}
