//! Keeping watch: one question now and then, and what is known of a network from earlier.

use std::time::{Duration, Instant};

use partyline_model::{NatProfile, SocketId};

use crate::{Netcheck, client::Query, lending::BELIEVED, servers::Family, stun::Change, survey::Purpose};

/// How many times as long as others a question to a server that has answered before may stay unanswered.
const REFRESH_PATIENCE: u32 = 4;
/// How often a measurement that a changing mapping spoilt is begun again at once, and when it may be again.
const MOST_RESURVEYS: u32 = 3;
const RESURVEY: Duration = Duration::from_secs(60);

impl Netcheck {
    /// Takes what was measured in this network before, so long ago. It is shown until something contradicts it. To be
    /// called after [`Netcheck::set_local_addresses`] or [`Netcheck::restart`], which forget.
    pub fn load_cached_profile(&mut self, now: Instant, profile: &NatProfile, age: Duration) {
        if self.finished.is_some() || !self.config.enabled {
            return;
        }
        self.profile =
            NatProfile { udp_blocked: None, double_nat: None, carrier_nat: None, ..profile.clone() };
        if let (Some(lifetime), Some(left)) = (profile.lifetime, BELIEVED.checked_sub(age)) {
            self.idle.found = Some((Some(lifetime), now + left));
        }
        self.advance(now);
    }

    /// When the present measurement ended.
    #[must_use]
    pub fn finished_at(&self) -> Option<Instant> {
        self.finished.map(|(at, _)| at)
    }

    pub(crate) fn resurvey(&mut self, now: Instant) {
        // A mapping that dies between two refreshes is what the lifetime's measurement is about to show.
        if !self.idle.is_running() {
            self.measure_again(now);
        }
    }

    /// The same, whatever else is being measured, which begins again then.
    pub(crate) fn measure_again(&mut self, now: Instant) {
        if now.saturating_duration_since(self.surveyed) >= RESURVEY {
            self.resurveys = 0;
        }
        if self.resurveys < MOST_RESURVEYS {
            self.resurveys += 1;
            self.measure(now);
        }
    }

    pub(crate) fn ask_server(&mut self, now: Instant, index: usize, purpose: Purpose) {
        let Some(server) = self.servers.list.get(index) else { return };
        let destination = server.report.address;
        // A mapping that was seen is not given up as lightly as an address that nobody answers at.
        let known = matches!(purpose, Purpose::Refresh(_));
        let patience = self.config.response_timeout * if known { REFRESH_PATIENCE } else { 1 };
        self.survey(destination).note(SocketId::MAIN, destination);
        let (socket, change) = (SocketId::MAIN, Change::Nothing);
        self.client.ask(now, Query { socket, destination, change, expected: destination, purpose, patience });
    }

    /// One question to one server of each family that answers; if none does, to all once more.
    pub(crate) fn refresh(&mut self, now: Instant) {
        if self.finished.is_some_and(|(at, _)| at + BELIEVED <= now) {
            return self.remeasure(now);
        }
        let answering = Family::BOTH.map(|family| self.servers.answering(family).map(|(index, _)| index));
        answering
            .into_iter()
            .flatten()
            .for_each(|index| self.ask_server(now, index, Purpose::Refresh(index)));
        if answering.iter().all(Option::is_none) {
            self.servers.retry_silent(now);
        }
        self.schedule_refresh(now);
    }

    pub(crate) fn schedule_refresh(&mut self, now: Instant) {
        let wanted = self.needed && !self.servers.list.is_empty();
        let pause = self.pause();
        self.refresh = wanted.then(|| now + self.client.jittered(pause));
    }
}
