//! Destinations that the main socket has sent to.
//!
//! A NAT lets packets in from addresses it has sent to, and may remember them for as long as the mapping lives, which
//! keepalives prolong. So an address that was ever sent to from this port on this network shows nothing about filtering
//! any more. A network is known by the socket's own addresses, port included; one that the computer comes back to is the
//! same network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use tracing::debug;

use crate::context::Reference;

/// More networks than a computer roams through in a session; beyond them nothing counts as untouched.
const MAX_NETWORKS: usize = 64;
const MAX_DESTINATIONS: usize = 256;

/// Destinations by network.
#[derive(Debug, Default)]
pub(crate) struct DestinationHistory {
    current: Vec<SocketAddr>,
    sent: BTreeMap<Vec<SocketAddr>, BTreeSet<SocketAddr>>,
}

impl DestinationHistory {
    pub(crate) fn enter_network(&mut self, local: &[SocketAddr]) {
        self.current = local.to_vec();
        let known = self.sent.contains_key(&self.current);
        debug!(count = self.sent.len(), known, "network entered");
    }

    /// Returns true if nothing was sent on the current network.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.sent.contains_key(&self.current) && !self.is_full()
    }

    pub(crate) fn on_sent(&mut self, destination: SocketAddr) {
        if self.sent.contains_key(&self.current) || self.sent.len() < MAX_NETWORKS {
            let sent = self.sent.entry(self.current.clone()).or_default();
            if sent.len() < MAX_DESTINATIONS {
                sent.insert(destination);
            }
        }
    }

    /// Returns true if nothing was sent to a server's other address and port on the current network.
    pub(crate) fn is_untouched(&self, reference: &Reference) -> bool {
        match self.sent.get(&self.current) {
            Some(sent) => {
                sent.len() < MAX_DESTINATIONS && !sent.iter().any(|sent| reference.is_touched_by(*sent))
            }
            None => !self.is_full(),
        }
    }

    fn is_full(&self) -> bool {
        self.sent.len() >= MAX_NETWORKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nat::reference;

    fn network(number: u8) -> Vec<SocketAddr> {
        vec![([192, 168, number, 7], 41_641).into()]
    }

    #[test]
    fn sending_to_the_other_address_or_port_touches_a_server() {
        let (plain, port, address) = (reference().server, reference().other_port(), reference().other_ip());
        for (destination, untouched) in [(plain, true), (port, false), (address, false)] {
            let mut history = DestinationHistory::default();
            history.enter_network(&network(1));
            history.on_sent(destination);
            assert_eq!(history.is_untouched(&reference()), untouched, "{destination}");
            assert!(!history.is_fresh());
        }
    }

    #[test]
    fn network_that_is_entered_again_is_the_same_one() {
        let mut history = DestinationHistory::default();
        history.enter_network(&network(1));
        history.on_sent(reference().other);
        history.enter_network(&network(2));
        assert!(history.is_fresh() && history.is_untouched(&reference()));
        history.enter_network(&network(1));
        assert!(!history.is_fresh() && !history.is_untouched(&reference()));
    }

    #[test]
    fn beyond_the_limits_nothing_counts_as_untouched() {
        let mut history = DestinationHistory::default();
        for number in 0..=u8::try_from(MAX_NETWORKS).expect("few") {
            history.enter_network(&network(number));
            history.on_sent(reference().server);
        }
        assert!(!history.is_fresh() && !history.is_untouched(&reference()));
        history.enter_network(&network(0));
        (0..=255).for_each(|last| history.on_sent(([11, 1, 1, last], 1).into()));
        assert!(!history.is_untouched(&reference()));
    }
}
