//! The end of a round, and what is told of it.

use std::time::Instant;

use partyline_model::AttemptOutcome;
use partyline_wire::punch::{Body, EndReason};

use super::{
    Record,
    round::{Outcome, Round, Stage, signal},
};
use crate::{
    api::Via,
    peer::{Env, Peer},
};

impl Round {
    /// Gives everything back but what carries packets, and tells the other side.
    pub(crate) fn close(&mut self, peer: &Peer, env: &mut Env<'_>, outcome: Outcome) {
        for id in self.probes.sent.keys().chain(&self.asked) {
            env.open_checks.remove(id);
        }
        for id in &self.requested {
            if !peer.pairs.iter().any(|pair| pair.path.via == Via::Socket(*id)) {
                env.sockets.close(*id, env.events);
            }
        }
        let ending = match outcome {
            Outcome::Connected => EndReason::Connected,
            Outcome::Failed => EndReason::Failed,
            Outcome::Refused | Outcome::Busy | Outcome::Superseded => return,
        };
        signal(peer, env, self.number, Body::End(ending));
    }

    pub(crate) fn record(&self, now: Instant, outcome: AttemptOutcome) -> Record {
        let took = now.saturating_duration_since(self.began);
        let packets = self.probes.count;
        let note = match (&self.stage, outcome) {
            (Stage::Opening { .. } | Stage::Sampling(_), _) => "Getting ready.".into(),
            (Stage::Offering { .. }, AttemptOutcome::Trying) => "Waiting for the member to get ready.".into(),
            (Stage::Offering { .. } | Stage::Waiting(_), _) => "The member did not take part.".into(),
            (Stage::Meeting(_), _) => format!("Sent {packets} packets to ports foretold by both sides."),
            (Stage::Open(opening), _) => {
                format!("Opened {} ports towards {}.", self.senders.len(), opening.target().ip())
            }
            (Stage::Spray(spraying, _), _) => format!("Tried {} random ports of the member.", spraying.sent),
        };
        Record { outcome, took, note }
    }
}
