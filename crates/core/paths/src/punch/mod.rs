//! Crossing two NATs together: when, by which method, and what came of it.
//!
//! The announced addresses are checked in any case ([`crate::pair`]). Where [`crate::strategy`] says that this is not
//! enough, the side with the better NAT proposes a [`round::Round`]; rounds that fail are repeated with growing
//! pauses ([`breaker`]), and begin afresh when something about either network changes.

mod breaker;
mod budget;
mod closing;
mod meet;
mod prepare;
mod round;
mod sample;
mod sockets;
mod spray;
mod talk;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{AttemptOutcome, CandidateKind, Method};
use partyline_wire::{probe::TransactionId, punch::PunchAction};
use rand_core::RngCore;

use crate::{
    api::{Config, Event, Path, SocketId, Via},
    pair::{Pair, State},
    peer::{Env, Peer},
    strategy::{self, Plan, Reason, Side, Who},
};

use breaker::Breaker;
pub(crate) use budget::Budget;
use round::{Outcome, Round};
pub(crate) use sample::{indication, question};
pub(crate) use sockets::Sockets;
pub(crate) use spray::PortOrder;
pub(crate) use traffic::Traffic;

/// How long measurements are waited for before everything is tried without them.
const GRACE: Duration = Duration::from_millis(2500);
/// How much later the side that does not lead proposes, should the other not.
const SECOND: Duration = Duration::from_secs(4);
/// How long a round waits for sockets that others use, half or half as long again.
const BUSY: Duration = Duration::from_secs(2);
/// How long a path by an extra socket stays beside a better one.
const KEEP_SPARE: Duration = Duration::from_secs(10);

/// All about punching towards one peer.
#[derive(Debug, Default)]
pub(crate) struct Punch {
    round: Option<Round>,
    breakers: BTreeMap<Method, Breaker>,
    /// What the last attempts came to.
    log: BTreeMap<Method, Record>,
    /// What is known of both sides, and since when.
    sides: Option<(Side, Side)>,
    since: Option<Instant>,
    /// When the last round ended.
    ended: Option<Instant>,
    /// When there may be another one, after one that had to wait for others.
    resumes: Option<Instant>,
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) took: Duration,
    pub(crate) note: String,
}

impl Punch {
    /// The kind of a path that the peer's packets show, if a round is what they come from.
    pub(crate) fn kind_of(&self, path: Path) -> Option<CandidateKind> {
        let round = self.round.as_ref()?;
        let extra = path.via != Via::Socket(SocketId::MAIN) && matches!(path.via, Via::Socket(_));
        (extra || round.is_target(path)).then(|| round.kind())
    }

    /// Where the mapping by which a path was found was opened to, while the round runs in which that happens.
    pub(crate) fn opened_to(&self, path: Path) -> BTreeSet<SocketAddr> {
        self.round.as_ref().map(|round| round.opened_to(path)).unwrap_or_default()
    }

    /// Where a probe of the running round went.
    pub(crate) fn probed(&self, id: TransactionId) -> Option<(Path, Instant)> {
        self.round.as_ref()?.probed(id)
    }

    /// Lines of the answer to "why this path?".
    pub(crate) fn records(&self, now: Instant) -> BTreeMap<Method, Record> {
        let mut records = self.log.clone();
        if let Some(round) = &self.round {
            records.insert(round.method(), round.record(now, AttemptOutcome::Trying));
        }
        for (method, breaker) in &self.breakers {
            if let (Some(record), Some(failures)) = (records.get_mut(method), breaker.open())
                && record.outcome == AttemptOutcome::NoAnswer
                && let Some(until) = breaker.pause(now)
            {
                let seconds = (until - now).as_secs() + 1;
                record.note =
                    format!("{} It failed {failures} times; again in {seconds} s.", record.note.trim_end());
            }
        }
        records
    }

    /// Why nothing is worth trying, if so.
    pub(crate) fn hopeless(&self) -> Option<Reason> {
        match self.sides.map(|(me, peer)| strategy::plan(&me, &peer)) {
            Some(Plan::Relay(reason)) => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn take_round(&mut self) -> Option<Round> {
        self.round.take()
    }

    pub(crate) fn put_round(&mut self, round: Round) {
        self.round = Some(round);
    }

    /// A server may have answered a sample.
    pub(crate) fn sampled(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        self.round.as_mut().is_some_and(|round| round.sampled(now, id, bytes))
    }

    /// Everything may be different now.
    pub(crate) fn start_over(&mut self) {
        self.breakers.clear();
        self.since = None;
    }

    fn drive(&mut self, peer: &mut Peer, env: &mut Env<'_>) -> Option<Instant> {
        if peer.has_direct() {
            self.end(peer, env, Outcome::Connected);
            return None;
        }
        if let Some(round) = &mut self.round {
            match round.drive(peer, env) {
                Ok(next) => return next,
                Err(outcome) => self.end(peer, env, outcome),
            }
        }
        self.begin(peer, env)
    }

    /// Ends the running round, if there is one.
    fn end(&mut self, peer: &mut Peer, env: &mut Env<'_>, outcome: Outcome) {
        let Some(mut round) = self.round.take() else { return };
        round.close(peer, env, outcome);
        let method = round.method();
        let result = match outcome {
            Outcome::Connected => AttemptOutcome::Worked,
            Outcome::Failed | Outcome::Refused => AttemptOutcome::NoAnswer,
            Outcome::Busy => return self.rest(env),
            Outcome::Superseded => return,
        };
        let found = |pair: &Pair| pair.kind == round.kind() && pair.state == State::Valid;
        let worked = peer.pairs.iter().any(found);
        // What checks of the announced addresses found meanwhile is no success of the round, and no failure either.
        if worked || outcome != Outcome::Connected {
            let took = env.now.saturating_duration_since(round.began);
            env.events.push_back(Event::Attempted { method, succeeded: worked, took });
        }
        if outcome == Outcome::Connected {
            self.breakers.remove(&method);
        } else {
            let spread = f64::from(env.rng.next_u32()) / f64::from(u32::MAX);
            self.breakers.entry(method).or_default().failed(env.now, spread);
        }
        self.ended = Some(env.now);
        self.log.insert(method, round.record(env.now, result));
    }

    /// Waits a little before the next round, because one of the two has no sockets left for it.
    fn rest(&mut self, env: &mut Env<'_>) {
        let spread = f64::from(env.rng.next_u32()) / f64::from(u32::MAX);
        self.resumes = Some(env.now + BUSY.mul_f64(0.5 + spread));
    }

    /// Proposes a round if it is time for one; says when to look again.
    fn begin(&mut self, peer: &mut Peer, env: &mut Env<'_>) -> Option<Instant> {
        let sides = (Side::of(env.nat, env.local), Side::of(&peer.nat, &peer.candidates));
        if self.sides != Some(sides) {
            self.sides = Some(sides);
            self.breakers.clear();
            self.since.get_or_insert(env.now);
        }
        let since = *self.since.get_or_insert(env.now);
        let (me, them) = sides;
        if peer.candidates.is_empty() || !env.config.direct {
            return None;
        }
        let (methods, ready) = match strategy::plan(&me, &them) {
            Plan::Predict => (vec![(Method::Predict, Who::Me)], since),
            Plan::Spray(opener) => (vec![(Method::Spray, opener)], since),
            Plan::Either(opener) => (vec![(Method::Predict, opener), (Method::Spray, opener)], since + GRACE),
            Plan::Checks | Plan::Relay(_) => return None,
        };
        let leads = strategy::leads(&me, &them, peer.controlling);
        let delay = if leads { Duration::ZERO } else { SECOND };
        let mut next: Option<Instant> = None;
        for (method, opener) in methods.into_iter().filter(|(method, _)| permits(env.config, *method)) {
            let pause = self.breakers.get(&method).and_then(|breaker| breaker.pause(env.now));
            let at =
                [pause, self.ended, self.resumes].into_iter().flatten().fold(ready, Instant::max) + delay;
            if at <= env.now {
                return self.propose(peer, env, me, (method, opener));
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        next
    }

    fn propose(
        &mut self,
        peer: &mut Peer,
        env: &mut Env<'_>,
        me: Side,
        (method, opener): (Method, Who),
    ) -> Option<Instant> {
        let part = match (method, opener) {
            (Method::Spray, Who::Me) => prepare::OPEN,
            (Method::Spray, Who::Peer) => prepare::spray(&me),
            _ => PunchAction::Predict,
        };
        let number = env.rng.next_u32();
        let Some(round) = Round::prepare(peer, env, me, part, (number, None)) else {
            self.rest(env);
            return self.resumes;
        };
        self.round = Some(round);
        self.drive(peer, env)
    }
}

impl Peer {
    /// Does what punching has to do; returns when it wants to go on.
    pub(crate) fn drive_punch(&mut self, env: &mut Env<'_>) -> Option<Instant> {
        self.reap(env);
        self.watch_traffic(env);
        let mut punch = std::mem::take(&mut self.punch);
        let next = punch.drive(self, env);
        self.punch = punch;
        next
    }

    /// Sockets that were asked for are open, or could not be opened.
    pub(crate) fn sockets_opened(&mut self, env: &mut Env<'_>, opened: &[(SocketId, Option<u16>)]) {
        match &mut self.punch.round {
            Some(round) => round.opened(env, opened),
            None => opened.iter().for_each(|(id, _)| env.sockets.close(*id, env.events)),
        }
    }

    /// Whether some direct path carries packets both ways.
    pub(crate) fn has_direct(&self) -> bool {
        self.pairs.iter().any(|pair| pair.is_direct() && pair.state == State::Valid)
    }

    /// Gives up paths by extra sockets that have failed or are not used, and with the last path the socket.
    fn reap(&mut self, env: &mut Env<'_>) {
        let selected = self.selected;
        let settled = self.is_direct_selected();
        let over = |pair: &Pair| {
            let idle = selected != Some(pair.path)
                && settled
                && pair.began.is_none_or(|began| began + KEEP_SPARE <= env.now);
            is_extra(pair.path) && (pair.state == State::Failed || idle)
        };
        let gone: Vec<Pair> = self.pairs.extract_if(.., |pair| over(pair)).collect();
        for pair in &gone {
            crate::pairing::forget(pair, env);
            self.release(env, pair.path.via);
        }
    }

    /// Closes an extra socket if nothing uses it.
    fn release(&self, env: &mut Env<'_>, via: Via) {
        let Via::Socket(id) = via else { return };
        let used = self.pairs.iter().any(|pair| pair.path.via == via)
            || self.punch.round.as_ref().is_some_and(|round| round.holds(id));
        if !used {
            env.sockets.close(id, env.events);
        }
    }

    fn is_direct_selected(&self) -> bool {
        self.selected.and_then(|path| self.pair(path)).is_some_and(Pair::is_direct)
    }
}

/// Whether a path leaves by a socket of its own.
pub(crate) fn is_extra(path: Path) -> bool {
    matches!(path.via, Via::Socket(id) if id != SocketId::MAIN)
}

/// Whether a method is switched on.
pub(crate) fn permits(config: &Config, method: Method) -> bool {
    config.direct
        && match method {
            Method::Predict => config.methods.predict,
            Method::Spray => config.methods.spray,
            _ => true,
        }
}
