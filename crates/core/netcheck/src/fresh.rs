//! The end of a survey: what sockets that have sent nothing yet show, one after the other.

use std::{net::SocketAddr, time::Instant};

use partyline_model::Mapping;

use crate::{
    client::{Client, Heard},
    hairpin::Hairpin,
    infer::{self, Samples},
    survey::{Purpose, Question, Stage, Survey, observation, plain},
};

impl Survey {
    /// Asks one server from each spare socket in turn.
    pub(crate) fn ask_spare(
        &mut self,
        now: Instant,
        next: u8,
        client: &mut Client<Purpose>,
    ) -> Option<Stage> {
        if self.question == Question::Open {
            return None;
        }
        let spare = self.terms.spares.get(usize::from(next)).filter(|_| self.wants_spares());
        match (self.first_seen(), spare) {
            (Some(server), Some((socket, _))) => {
                let query = plain(*socket, server.destination, Purpose::Spare(next), self.terms.patience);
                self.question = Question::Open;
                client.ask(now, query);
                Some(Stage::Spares(next + 1))
            }
            _ => {
                self.conclude_allocation();
                Some(self.hairpin(now).map_or(Stage::Done, Stage::Hairpin))
            }
        }
    }

    /// Over IPv6 there is nothing to allocate or to turn around.
    fn wants_spares(&self) -> bool {
        self.first_seen().is_some_and(|seen| seen.destination.is_ipv4())
    }

    pub(crate) fn sample(&mut self, index: u8, heard: &Heard<Purpose>) {
        let spare = self.terms.spares.get(usize::from(index));
        if let (Some((socket, local_port)), Some(seen)) = (spare, observation(heard)) {
            self.fresh.push((*socket, seen.reflexive));
            self.samples.push(Samples { local_port: *local_port, complete: true, observations: vec![seen] });
        }
    }

    fn conclude_allocation(&mut self) {
        let Some(local_port) = self.terms.local_port else {
            self.gaps.push("allocation needs the socket's own port");
            return;
        };
        let complete =
            self.terms.fresh && self.asked.iter().all(|asked| self.observations.contains_key(asked));
        let observations = self.observations.values().copied().collect();
        self.samples.push(Samples { local_port, complete, observations });
        self.allocation = infer::allocation(&self.samples);
        if self.allocation.is_none() {
            self.gaps.push("allocation needs three fresh mappings in a known order");
        }
    }

    /// A test with two sockets, if there are two and a NAT is between them and the servers.
    fn hairpin(&self, now: Instant) -> Option<Hairpin> {
        let own: SocketAddr = self.first_seen()?.reflexive;
        let other = self.fresh.last()?;
        (own.ip() == other.1.ip() && own.is_ipv4())
            .then(|| Hairpin::new(now, (self.terms.socket, own), *other))
    }

    /// That nothing came back counts only where it had to be let in and needed no new mapping, for which the table may
    /// have had no room.
    pub(crate) fn conclude_hairpin(&mut self, turned: bool) {
        let opened = self.mapping == Some(Mapping::EndpointIndependent);
        self.hairpin = (turned || opened).then_some(turned);
    }
}
