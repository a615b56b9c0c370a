//! Whom the tunnel's socket has sent to.
//!
//! A NAT lets answers in from addresses it has sent to, and may remember them for as long as the mapping lives, which
//! our keepalives prolong. So an address that was ever sent to from this port on this network tells nothing about
//! filtering any more. A network is known by the socket's own addresses, port included; one that is come back to is
//! the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::trial::Reference;

/// More than any computer roams through in a session; beyond it nothing counts as untouched.
const MOST_NETWORKS: usize = 64;
const MOST_DESTINATIONS: usize = 256;

/// Destinations by network.
#[derive(Debug, Default)]
pub(crate) struct History {
    here: Vec<SocketAddr>,
    sent: BTreeMap<Vec<SocketAddr>, BTreeSet<SocketAddr>>,
}

impl History {
    pub(crate) fn enter(&mut self, network: &[SocketAddr]) {
        self.here = network.to_vec();
    }

    /// Whether nothing was sent in this network yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.sent.contains_key(&self.here) && !self.is_full()
    }

    pub(crate) fn note(&mut self, destination: SocketAddr) {
        if self.sent.contains_key(&self.here) || self.sent.len() < MOST_NETWORKS {
            let sent = self.sent.entry(self.here.clone()).or_default();
            if sent.len() < MOST_DESTINATIONS {
                sent.insert(destination);
            }
        }
    }

    /// Whether a server's other address and other port have been left alone.
    pub(crate) fn untouched(&self, reference: &Reference) -> bool {
        let touches =
            |sent: &SocketAddr| sent.ip() == reference.other.ip() || *sent == reference.other_port();
        match self.sent.get(&self.here) {
            Some(sent) => sent.len() < MOST_DESTINATIONS && !sent.iter().any(touches),
            None => !self.is_full(),
        }
    }

    fn is_full(&self) -> bool {
        self.sent.len() >= MOST_NETWORKS
    }
}
