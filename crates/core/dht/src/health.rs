//! Whether the DHT answers at all.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The time without any response after which the DHT does not answer.
const SILENCE: Duration = Duration::from_secs(5);
/// The number of different nodes that must have been asked meanwhile.
const MIN_NODES: usize = 3;

/// Watches for the first response, and for silence.
#[derive(Debug, Default)]
pub(crate) struct Health {
    answering: Option<bool>,
    last_response: Option<Instant>,
    /// When the first query since the last response was sent.
    waiting_since: Option<Instant>,
    /// The nodes asked since the last response; no more than matter.
    asked: BTreeSet<SocketAddr>,
}

impl Health {
    pub(crate) fn on_query(&mut self, now: Instant, destination: SocketAddr) {
        self.waiting_since.get_or_insert(now);
        if self.asked.len() < MIN_NODES {
            self.asked.insert(destination);
        }
    }

    /// Takes a response, and returns the new state if it changed.
    pub(crate) fn on_response(&mut self, now: Instant) -> Option<bool> {
        self.last_response = Some(now);
        self.forget_queries();
        self.set(true)
    }

    /// Returns the new state if it changed.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Option<bool> {
        self.silent_at().filter(|at| *at <= now).and_then(|_| self.set(false))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.silent_at().filter(|_| self.answering != Some(false))
    }

    /// Returns true if any node has responded after that moment, so that a node that did not is at
    /// fault itself.
    pub(crate) fn has_answered_since(&self, sent_at: Instant) -> bool {
        self.last_response.is_some_and(|at| at > sent_at)
    }

    /// Forgets what was asked before, since it went to another network.
    pub(crate) fn forget_queries(&mut self) {
        self.waiting_since = None;
        self.asked.clear();
    }

    fn silent_at(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| self.asked.len() >= MIN_NODES).map(|since| since + SILENCE)
    }

    fn set(&mut self, answering: bool) -> Option<bool> {
        let changed = self.answering != Some(answering);
        self.answering = Some(answering);
        changed.then_some(answering)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn node(number: u8) -> SocketAddr {
        SocketAddr::from(([11, 0, 0, number], 6881))
    }

    #[test]
    fn silence_of_several_nodes_for_five_seconds_is_reported_once() {
        let (start, mut health) = (start(), Health::default());
        let at = |ms| start + Duration::from_millis(ms);
        health.on_query(start, node(1));
        health.on_query(start, node(1));
        health.on_query(at(10), node(2));
        assert_eq!((health.poll_timeout(), health.on_timeout(at(60_000))), (None, None));
        health.on_query(at(4_000), node(3));
        assert_eq!(health.poll_timeout(), Some(at(5_000)));
        assert_eq!((health.on_timeout(at(4_999)), health.on_timeout(at(5_000))), (None, Some(false)));
        assert_eq!((health.poll_timeout(), health.on_timeout(at(9_000))), (None, None));
    }

    #[test]
    fn first_response_ends_the_silence() {
        let (start, mut health) = (start(), Health::default());
        assert_eq!((health.on_response(start), health.on_response(start)), (Some(true), None));
        (1..4).for_each(|number| health.on_query(start, node(number)));
        assert_eq!(health.on_timeout(start + SILENCE), Some(false));
        assert_eq!(health.on_response(start + SILENCE), Some(true));
        assert_eq!(health.poll_timeout(), None);
    }
}
