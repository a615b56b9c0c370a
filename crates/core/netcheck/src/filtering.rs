//! The part of a survey that tests filtering: with which server, and whether what it did not answer is to be believed.

use std::{net::SocketAddr, time::Instant};

use partyline_model::{Filtering, Mapping};

use crate::{
    stun::Change,
    survey::{Stage, Survey},
    trial::{Goal, Reference, Trial, Verdict},
};

impl Survey {
    /// A test with the first server that is left for it.
    pub(crate) fn next_filter_test(&mut self, now: Instant) -> Option<Stage> {
        let asked = &self.asked;
        let alone =
            |r: &Reference| asked.iter().all(|sent| sent.ip() != r.other.ip() && *sent != r.other_port());
        let fit = |(reference, untouched): &&mut (Reference, bool)| *untouched && alone(reference);
        let (reference, untouched) = self.references.iter_mut().find(fit)?;
        *untouched = false;
        let reference = *reference;
        self.reference = Some(reference);
        self.note(self.terms.socket, reference.server);
        Some(Stage::Filter(self.trial(now, reference, Goal::Measure)))
    }

    fn trial(&mut self, now: Instant, reference: Reference, goal: Goal) -> Trial {
        self.trials = self.trials.wrapping_add(1);
        Trial::new(now, self.terms.socket, reference, goal)
    }

    pub(crate) fn after_filter(&mut self, now: Instant, verdict: Verdict) -> Stage {
        match verdict {
            Verdict::Open => self.filtering = Some(Filtering::EndpointIndependent),
            Verdict::Closed { port_open: true } => self.closed = Some(Filtering::AddressDependent),
            Verdict::Closed { port_open: false } => self.closed = Some(Filtering::AddressAndPortDependent),
            Verdict::Lossy => self.gaps.push("too many packets were lost to test filtering"),
            Verdict::Unfit | Verdict::Proven => {
                self.gaps.push("a STUN server did not answer from where it was asked to");
                return self.next_filter_test(now).unwrap_or(Stage::Map);
            }
        }
        Stage::Map
    }

    pub(crate) fn heard_in_trial(&mut self, number: u8, round: u8, change: Change, honoured: bool) {
        match &mut self.stage {
            Stage::Filter(trial) | Stage::Prove(trial) if number == self.trials => {
                trial.heard(round, change, honoured)
            }
            _ => {
                // If it comes after all, its absence proved nothing.
                let port_closed = self.closed == Some(Filtering::AddressAndPortDependent);
                let expected = change == Change::Nothing || (change == Change::Port && !port_closed);
                self.closed = self.closed.filter(|_| expected || !honoured);
            }
        }
    }

    /// How the server's silence is to be believed. Answers from elsewhere can reach the mapping that was asked from
    /// only if that mapping has been opened for them, that is, if the NAT used it towards there as well.
    pub(crate) fn prove(&mut self, now: Instant) -> Stage {
        let (Some(reference), Some(closed)) = (self.reference, self.closed) else { return Stage::Spares(0) };
        let port = closed == Filtering::AddressAndPortDependent;
        let alive = |address: SocketAddr| self.observations.contains_key(&address);
        let alive = alive(reference.other) && (!port || alive(reference.other_port()));
        let goal = match self.mapping {
            Some(Mapping::EndpointIndependent) => Goal::Prove { port, address: true },
            Some(Mapping::AddressDependent) if port && alive => Goal::Prove { port, address: false },
            dependent => {
                self.believe(alive && dependent.is_some());
                return Stage::Spares(0);
            }
        };
        Stage::Prove(self.trial(now, reference, goal))
    }

    pub(crate) fn believe(&mut self, proven: bool) {
        self.filtering = self.closed.filter(|_| proven);
        if self.filtering.is_none() {
            self.gaps.push("the STUN server's silence could not be told from the NAT's filtering");
        }
    }
}
