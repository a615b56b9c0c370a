//! The published mappings and states of all protocols.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    Counters, Flow, Health, Mapping, MethodState, Protocol, breaker::CircuitBreaker, error::MappingError,
};

/// Publishes the mappings and states of all protocols to any number of observers.
#[derive(Debug, Clone)]
pub(crate) struct StatusBoard {
    mappings: watch::Sender<Vec<Mapping>>,
    states: watch::Sender<Vec<MethodState>>,
}

impl StatusBoard {
    /// Returns a board without mappings on which all these protocols are pending.
    pub(crate) fn new(methods: &[Protocol]) -> Self {
        let states = methods.iter().copied().map(MethodState::pending).collect();
        Self { mappings: watch::Sender::new(Vec::new()), states: watch::Sender::new(states) }
    }

    /// Observes the mappings, best first.
    pub(crate) fn mappings(&self) -> watch::Receiver<Vec<Mapping>> {
        self.mappings.subscribe()
    }

    /// Observes the states.
    pub(crate) fn states(&self) -> watch::Receiver<Vec<MethodState>> {
        self.states.subscribe()
    }

    /// Publishes or withdraws a protocol's mapping and returns the one before. A renewal notifies observers as well.
    pub(crate) fn set_mapping(&self, method: Protocol, mapping: Option<Mapping>) -> Option<Mapping> {
        let previous = self.mappings.borrow().iter().find(|m| m.method == method).cloned();
        if previous.is_some() || mapping.is_some() {
            self.mappings.send_modify(|mappings| {
                mappings.retain(|m| m.method != method);
                mappings.extend(mapping);
                mappings.sort_by_key(|m| (m.double_nat, m.method));
            });
        }
        previous
    }

    /// Publishes that a protocol holds a mapping.
    pub(crate) fn set_mapped(&self, method: Protocol, counters: Counters) {
        self.set_state(MethodState { health: Health::Mapped, counters, ..MethodState::pending(method) });
    }

    /// Publishes a failure. The flows stay until the router was asked about them again.
    pub(crate) fn set_failed(
        &self,
        method: Protocol,
        breaker: &CircuitBreaker,
        (error, retry_after): (&MappingError, Duration),
        counters: Counters,
    ) {
        let health = if breaker.is_open() { Health::CircuitOpen } else { Health::Retrying };
        self.set_state(MethodState {
            method,
            health,
            failures: breaker.failures(),
            problem: Some(error.summary()),
            retry_after: Some(retry_after),
            flows: self.state(method).map(|state| state.flows).unwrap_or_default(),
            counters,
        });
    }

    /// Publishes the flows that the router keeps.
    pub(crate) fn set_flows(&self, method: Protocol, flows: Vec<Flow>) {
        if let Some(state) = self.state(method) {
            self.set_state(MethodState { flows, ..state });
        }
    }

    fn state(&self, method: Protocol) -> Option<MethodState> {
        self.states.borrow().iter().find(|state| state.method == method).cloned()
    }

    fn set_state(&self, new: MethodState) {
        self.states.send_if_modified(|states| match states.iter_mut().find(|old| old.method == new.method) {
            Some(old) if *old != new => {
                *old = new;
                true
            }
            _ => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(method: Protocol, double_nat: bool) -> Mapping {
        Mapping { method, external: ([11, 0, 0, 1], 41_641).into(), lifetime: None, double_nat }
    }

    #[test]
    fn mapping_behind_one_nat_comes_before_one_behind_two() {
        let board = StatusBoard::new(&[Protocol::Pcp, Protocol::Upnp]);
        board.set_mapping(Protocol::Pcp, Some(mapping(Protocol::Pcp, true)));
        board.set_mapping(Protocol::Upnp, Some(mapping(Protocol::Upnp, false)));
        let order: Vec<_> = board.mappings().borrow().iter().map(|mapping| mapping.method).collect();
        assert_eq!(order, [Protocol::Upnp, Protocol::Pcp]);
    }

    #[test]
    fn renewal_notifies_and_withdrawing_nothing_does_not() {
        let board = StatusBoard::new(&[Protocol::Pcp]);
        let mut mappings = board.mappings();
        assert_eq!(board.set_mapping(Protocol::Pcp, None), None);
        assert!(!mappings.has_changed().unwrap());
        board.set_mapping(Protocol::Pcp, Some(mapping(Protocol::Pcp, false)));
        mappings.mark_unchanged();
        let before = board.set_mapping(Protocol::Pcp, Some(mapping(Protocol::Pcp, false)));
        assert_eq!(before, Some(mapping(Protocol::Pcp, false)));
        assert!(mappings.has_changed().unwrap());
    }

    #[test]
    fn third_failure_opens_the_circuit_and_flows_stay_until_set_again() {
        let board = StatusBoard::new(&[Protocol::Pcp]);
        let (mut breaker, states) = (CircuitBreaker::new(1), board.states());
        let (remote, external) = (([11, 0, 0, 9], 3478).into(), ([11, 0, 0, 1], 41_641).into());
        board.set_flows(Protocol::Pcp, vec![Flow { remote, external, lifetime: Duration::from_secs(60) }]);
        for expected in [Health::Retrying, Health::Retrying, Health::CircuitOpen] {
            let delay = breaker.on_failure();
            let error = MappingError::NoResponse;
            board.set_failed(Protocol::Pcp, &breaker, (&error, delay), Counters::default());
            let state = states.borrow()[0].clone();
            assert_eq!((state.health, state.retry_after, state.flows.len()), (expected, Some(delay), 1));
        }
        board.set_mapped(Protocol::Pcp, Counters::default());
        let state = states.borrow()[0].clone();
        assert_eq!((state.health, state.failures, state.problem), (Health::Mapped, 0, None));
        assert!(state.flows.is_empty());
    }
}
