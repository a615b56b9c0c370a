//! The other side's words about rounds.

use std::time::Duration;

use partyline_wire::{
    probe::TransactionId,
    punch::{Body, EndReason, PunchAction, PunchPlan, Signal},
};

use super::{
    Outcome, permits, prepare,
    round::{Round, signal},
};
use crate::{
    api::Path,
    peer::{Env, Peer},
    strategy::Side,
};

/// The least time between two rounds that the other side may ask for.
const LEAST_GAP: Duration = Duration::from_millis(400);

impl Peer {
    /// Takes a signal of this peer.
    pub(crate) fn on_signal(&mut self, env: &mut Env<'_>, message: Signal) {
        let mut punch = std::mem::take(&mut self.punch);
        let ours = punch.round.as_ref().is_some_and(|round| round.number() == message.attempt);
        match message.body {
            Body::Offer(terms) if ours => {
                if let Some(round) = punch.round.as_ref().filter(|round| !round.is_ours()) {
                    round.repeat(self, env);
                }
                drop(terms);
            }
            Body::Offer(terms) => self.consider(env, &mut punch, message.attempt, terms),
            Body::Answer(terms) if ours => {
                if let Some(round) = &mut punch.round {
                    round.answered(env.now, terms);
                }
            }
            Body::ProbeReceived(id) if ours => {
                if let Some(round) = &mut punch.round {
                    round.was_heard(TransactionId(id));
                }
            }
            // That the other side is connected shows by its packets.
            Body::End(EndReason::Failed) if ours => punch.end(self, env, Outcome::Refused),
            Body::End(EndReason::Unavailable) if ours => punch.end(self, env, Outcome::Busy),
            Body::Answer(_) | Body::ProbeReceived(_) | Body::End(_) => {}
        }
        self.punch = punch;
    }

    /// Takes part in a round that the other side proposes, if possible.
    fn consider(&mut self, env: &mut Env<'_>, punch: &mut super::Punch, number: u32, terms: PunchPlan) {
        if self.has_direct() {
            return signal(self, env, number, Body::End(EndReason::Connected));
        }
        if let Some(round) = &punch.round {
            // Both proposed: the controlling side's round counts.
            if round.is_ours() && self.controlling {
                return;
            }
            punch.end(self, env, Outcome::Superseded);
        }
        let me = Side::of(env.nat, env.local);
        let part = match terms.action {
            PunchAction::Predict => PunchAction::Predict,
            PunchAction::Open { .. } => prepare::spray(&me),
            PunchAction::Spray { .. } => prepare::OPEN,
        };
        let soon = punch.ended.is_some_and(|ended| env.now < ended + LEAST_GAP);
        let method = if part == PunchAction::Predict {
            partyline_model::Method::Predict
        } else {
            partyline_model::Method::Spray
        };
        if !permits(env.config, method) {
            return signal(self, env, number, Body::End(EndReason::Failed));
        }
        let round = (!soon).then(|| Round::prepare(self, env, me, part, (number, Some(terms)))).flatten();
        match round {
            Some(round) => punch.round = Some(round),
            None => signal(self, env, number, Body::End(EndReason::Unavailable)),
        }
    }

    /// A probe of the peer's came in on this path.
    pub(crate) fn punch_heard(&mut self, env: &mut Env<'_>, path: Path, id: TransactionId) {
        if let Some(mut round) = self.punch.take_round() {
            round.heard(self, env, path, id);
            self.punch.put_round(round);
        }
    }
}
