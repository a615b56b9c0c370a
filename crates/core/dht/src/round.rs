//! Queries to known nodes, of which a number must succeed.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

/// Asks nodes in order until a number of them succeeded: one for each that does not, another one is asked.
#[derive(Debug)]
pub(crate) struct Round<T> {
    queue: VecDeque<(SocketAddr, T)>,
    /// Nodes whose response is still taken; true if the round no longer waits for it.
    outstanding: BTreeMap<SocketAddr, bool>,
    wanted: usize,
    succeeded: usize,
}

impl<T> Round<T> {
    pub(crate) fn new(nodes: impl IntoIterator<Item = (SocketAddr, T)>, wanted: usize) -> Self {
        Self { queue: nodes.into_iter().collect(), outstanding: BTreeMap::new(), wanted, succeeded: 0 }
    }

    /// Returns the next node to ask, if another one is needed.
    pub(crate) fn next(&mut self) -> Option<(SocketAddr, T)> {
        if self.succeeded + self.waiting() >= self.wanted {
            return None;
        }
        let (address, payload) = self.queue.pop_front()?;
        self.outstanding.insert(address, false);
        Some((address, payload))
    }

    pub(crate) fn on_success(&mut self, address: SocketAddr) {
        if self.outstanding.remove(&address).is_some() {
            self.succeeded += 1;
        }
    }

    pub(crate) fn on_failure(&mut self, address: SocketAddr) {
        self.outstanding.remove(&address);
    }

    pub(crate) fn pass_over(&mut self, address: SocketAddr) {
        if let Some(passed_over) = self.outstanding.get_mut(&address) {
            *passed_over = true;
        }
    }

    /// Returns true if the round is over. While nothing has succeeded, it waits for all that may still come.
    pub(crate) fn is_done(&self) -> bool {
        let needs_more = self.succeeded < self.wanted && !self.queue.is_empty();
        self.waiting() == 0 && !needs_more && (self.succeeded > 0 || self.outstanding.is_empty())
    }

    fn waiting(&self) -> usize {
        self.outstanding.values().filter(|passed_over| !**passed_over).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> SocketAddr {
        SocketAddr::from(([11, 0, 0, number], 6881))
    }

    fn round(nodes: u8, wanted: usize) -> Round<()> {
        Round::new((0..nodes).map(|number| (node(number), ())), wanted)
    }

    fn asked(round: &mut Round<()>) -> usize {
        std::iter::from_fn(|| round.next()).count()
    }

    #[test]
    fn as_many_are_asked_as_are_wanted() {
        let mut round = round(9, 4);
        assert_eq!(asked(&mut round), 4);
        (0..4).for_each(|number| round.on_success(node(number)));
        assert!(round.is_done() && round.next().is_none());
    }

    #[test]
    fn another_node_is_asked_for_each_that_fails() {
        let mut round = round(6, 4);
        assert_eq!(asked(&mut round), 4);
        round.on_failure(node(0));
        round.pass_over(node(1));
        assert_eq!(asked(&mut round), 2);
        (2..6).for_each(|number| round.on_success(node(number)));
        assert!(round.is_done(), "the node that was passed over is not waited for");
    }

    #[test]
    fn without_any_success_late_responses_are_waited_for() {
        let mut round = round(1, 4);
        assert_eq!(asked(&mut round), 1);
        round.pass_over(node(0));
        assert!(!round.is_done());
        round.on_success(node(0));
        assert!(round.is_done());
    }

    #[test]
    fn empty_round_is_done() {
        assert!(round(0, 4).is_done());
    }
}
