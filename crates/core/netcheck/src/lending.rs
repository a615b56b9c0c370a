//! The sockets that are lent: asked for at the beginning, given back when the last measurement that needs them is over.

use std::time::{Duration, Instant};

use partyline_model::SocketId;

use crate::{
    Event, Netcheck,
    client::Heard,
    lifetime::{Lifetime, Lived},
    servers::Family,
    survey::{Continuity, Purpose},
};

/// How long what was measured is believed.
pub(crate) const BELIEVED: Duration = Duration::from_secs(86_400);

/// The lifetime of an idle mapping on this network.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    running: Option<Lifetime>,
    /// What was found, and until when that is good.
    pub(crate) found: Option<(Option<Duration>, Instant)>,
    pub(crate) gap: Option<&'static str>,
}

impl Idle {
    /// The sockets are gone; what was found stays.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().and_then(Lifetime::poll_timeout)
    }

    pub(crate) fn heard(&mut self, now: Instant, heard: &Heard<Purpose>) -> Continuity {
        match (&mut self.running, heard.purpose, heard.answer) {
            (Some(running), Purpose::Greet(index), Some(answer)) => running.seen(now, index, answer.mapped),
            (Some(running), ..) => running.is_unfit(),
            (None, ..) => {}
        }
        Continuity::Same
    }

    pub(crate) fn unseen(&mut self, index: u8) {
        self.running.iter_mut().for_each(|running| running.unseen(index));
    }

    pub(crate) fn arrived(&mut self, socket: SocketId, index: u8) {
        self.running.iter_mut().for_each(|running| running.arrived(socket, index));
    }

    fn conclude(&mut self, now: Instant, lived: Lived) {
        self.running = None;
        (self.found, self.gap) = match lived {
            Lived::AtLeast(span) => (Some((Some(span), now + BELIEVED)), None),
            Lived::Shorter => (Some((None, now + BELIEVED)), Some("idle mappings live less than 14 seconds")),
            Lived::Unfit => (
                Some((None, now + BELIEVED)),
                Some("no STUN server helps to measure how long idle mappings live"),
            ),
        };
    }
}

impl Netcheck {
    /// Takes the sockets that were lent, or asks for some.
    pub(crate) fn borrow(&mut self) {
        let wanted = self.config.enabled && !self.servers.list.is_empty();
        if wanted && !self.probe_sockets.is_empty() {
            self.lend();
        } else if wanted && self.config.probe_sockets > 0 {
            self.requested = (0..self.config.probe_sockets.into()).map(SocketId::probe).collect();
            self.events.push_back(Event::OpenProbeSockets { ids: self.requested.clone() });
        }
    }

    pub(crate) fn lend(&mut self) {
        let opened = std::mem::take(&mut self.probe_sockets);
        self.surveys.iter_mut().for_each(|survey| survey.lend(&opened));
    }

    pub(crate) fn finish(&mut self, now: Instant) {
        if self.finished.is_some() || self.servers.list.is_empty() || !self.is_over(now) {
            return;
        }
        self.finished = Some((now, self.packets()));
        self.idle.found = self.idle.found.filter(|(_, until)| *until > now);
        if self.idle.found.is_none() && self.needed {
            self.idle.running = self.new_lifetime(now);
        }
        self.give_back();
    }

    /// Whether nothing more is to be expected. A family whose servers do not answer holds the other up for a moment only.
    fn is_over(&self, now: Instant) -> bool {
        let done = |family: Family| self.surveys[family as usize].is_done();
        let idle = |family: Family| {
            !self.surveys[family as usize].has_begun() && self.servers.is_spent(now, family, self.most())
        };
        let over = Family::BOTH.into_iter().all(|family| done(family) || idle(family));
        let any = Family::BOTH.into_iter().any(done) || self.servers.all_silent(self.most());
        over && any
    }

    fn give_back(&mut self) {
        if !self.idle.is_running() {
            self.close_probe_sockets();
        }
    }

    pub(crate) fn close_probe_sockets(&mut self) {
        let ids = std::mem::take(&mut self.requested);
        if !ids.is_empty() {
            self.events.push_back(Event::CloseProbeSockets { ids });
        }
    }

    /// Where there is no NAT, or no server that answers to another port, there is nothing to measure.
    fn new_lifetime(&self, now: Instant) -> Option<Lifetime> {
        let survey = &self.surveys[Family::V4 as usize];
        let (reference, roles) = (survey.reference()?, &survey.roles);
        let outside = survey.seen_of(roles.mapping).first()?.reflexive.ip();
        let behind = !survey.terms.local.contains(&outside) && !roles.fresh.is_empty();
        let idle: Vec<_> = roles.fresh.iter().copied().chain([roles.filtering]).collect();
        behind
            .then(|| Lifetime::new(now, reference.server, roles.mapping, &idle, self.config.response_timeout))
    }

    pub(crate) fn measure_idle(&mut self, now: Instant) {
        let Some(lived) = self.idle.running.as_mut().and_then(|running| running.step(now, &mut self.client))
        else {
            return;
        };
        self.idle.conclude(now, lived);
        self.give_back();
    }
}
