//! The nodes that lookups start from.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_wire::krpc::{Contact, NodeId};
use rand_core::RngCore;

use crate::{address::AddressPolicy, config::Family};

/// The maximum number of nodes remembered.
const MAX_NODES: usize = 1024;
/// The maximum number of nodes of one network that are remembered.
const MAX_PER_NETWORK: usize = 4;
/// The maximum number of nodes that are worth keeping for the next start.
const MAX_GOOD_NODES: usize = 200;
/// How long ago a good node has answered at most.
const GOOD_FOR: Duration = Duration::from_secs(2 * 60 * 60);
/// Queries in a row that a node leaves unanswered before it is forgotten.
const MAX_FAILURES: u8 = 3;
/// Known nodes with which a lookup starts: those closest to its target.
const START_CONTACTS: usize = 16;
/// Nodes of unknown id with which a lookup starts.
const START_SEEDS: usize = 64;

#[derive(Debug, Clone, Default)]
struct Known {
    id: Option<NodeId>,
    answered_at: Option<Instant>,
    answers: u32,
    /// Queries in a row that were not answered.
    failures: u8,
    rtt: Duration,
    /// Larger for what was added later.
    number: u64,
}

impl Known {
    /// Returns the order in which nodes are kept: the last are forgotten first.
    fn rank(&self) -> impl Ord + use<> {
        (self.answered_at.is_none(), self.failures, Reverse(self.answered_at), Reverse(self.number))
    }
}

/// All nodes that were named by the caller, or that have answered.
#[derive(Debug)]
pub(crate) struct NodeTable {
    policy: AddressPolicy,
    nodes: BTreeMap<SocketAddr, Known>,
    added: u64,
}

impl NodeTable {
    pub(crate) const fn new(policy: AddressPolicy) -> Self {
        Self { policy, nodes: BTreeMap::new(), added: 0 }
    }

    /// Adds a node that the caller named, and returns true if it may be asked.
    pub(crate) fn add(&mut self, address: SocketAddr) -> bool {
        let permitted = self.policy.permits(address);
        if permitted && !self.nodes.contains_key(&address) {
            self.insert(address, Known::default());
        }
        permitted
    }

    /// Notes a node's response. A node that was not known before is remembered unless its network has enough.
    pub(crate) fn on_response(&mut self, now: Instant, address: SocketAddr, id: NodeId, rtt: Duration) {
        if !self.nodes.contains_key(&address) {
            if self.in_network(address) >= MAX_PER_NETWORK {
                return;
            }
            self.insert(address, Known::default());
        }
        if let Some(known) = self.nodes.get_mut(&address) {
            known.id = Some(id);
            known.answered_at = Some(now);
            known.answers = known.answers.saturating_add(1);
            known.failures = 0;
            known.rtt = rtt;
        }
    }

    /// Notes that a node did not answer while others did.
    pub(crate) fn on_failure(&mut self, address: SocketAddr) {
        if let Some(known) = self.nodes.get_mut(&address) {
            known.failures += 1;
            if known.failures >= MAX_FAILURES {
                self.nodes.remove(&address);
            }
        }
    }

    /// Returns nodes that have answered lately, the most reliable and then the fastest first.
    pub(crate) fn good(&self, now: Option<Instant>) -> Vec<SocketAddr> {
        let lately = |known: &Known| {
            let age = known.answered_at.zip(now).map(|(at, now)| now.saturating_duration_since(at));
            known.failures == 0 && age.is_some_and(|age| age <= GOOD_FOR)
        };
        let mut good: Vec<_> = self.nodes.iter().filter(|(_, known)| lately(known)).collect();
        // Beyond a few answers a node is as reliable as it gets.
        good.sort_by_key(|(_, known)| (Reverse(known.answers.min(4)), known.rtt));
        good.into_iter().map(|(address, _)| *address).take(MAX_GOOD_NODES).collect()
    }

    /// Returns true if few nodes of a family have answered, so that others are asked for more.
    pub(crate) fn is_short_of(&self, family: Family) -> bool {
        let answered = |(address, known): &(&SocketAddr, &Known)| {
            Family::of(**address) == family && known.answered_at.is_some()
        };
        self.nodes.iter().filter(answered).take(8).count() < 8
    }

    /// Returns the nodes of a family from which a lookup starts: those of known ids that are closest to the target, and the
    /// others in a random order.
    pub(crate) fn start(
        &self,
        family: Family,
        target: &NodeId,
        rng: &mut impl RngCore,
    ) -> (Vec<Contact>, Vec<SocketAddr>) {
        let of_family = || self.nodes.iter().filter(|(address, _)| Family::of(**address) == family);
        let mut contacts: Vec<(u8, Contact)> = of_family()
            .filter_map(|(address, known)| {
                Some((known.failures, Contact { id: known.id?, address: *address }))
            })
            .collect();
        contacts.sort_by_key(|(failures, contact)| (*failures, contact.id.distance(target)));
        let mut seeds: Vec<_> = of_family()
            .filter(|(_, known)| known.id.is_none())
            .map(|(address, known)| (known.failures, rng.next_u32(), *address))
            .collect();
        seeds.sort_unstable();
        (
            contacts.into_iter().map(|(_, contact)| contact).take(START_CONTACTS).collect(),
            seeds.into_iter().map(|(_, _, address)| address).take(START_SEEDS).collect(),
        )
    }

    fn insert(&mut self, address: SocketAddr, known: Known) {
        if self.nodes.len() >= MAX_NODES
            && let Some(last) =
                self.nodes.iter().max_by_key(|(_, known)| known.rank()).map(|(address, _)| *address)
        {
            self.nodes.remove(&last);
        }
        self.added += 1;
        self.nodes.insert(address, Known { number: self.added, ..known });
    }

    fn in_network(&self, address: SocketAddr) -> usize {
        let network = self.policy.network(address.ip());
        let same = |other: &&SocketAddr| network.is_some() && self.policy.network(other.ip()) == network;
        self.nodes.keys().filter(same).count()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn table() -> NodeTable {
        NodeTable::new(AddressPolicy { allow_private: false })
    }

    fn node(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([11, high, low, 1], 6881))
    }

    #[test]
    fn nodes_that_answer_are_kept_longest() {
        let (now, mut table) = (start(), table());
        for number in 0..10 {
            table.on_response(now, node(number), NodeId::default(), RTT);
        }
        for number in 10..3000 {
            assert!(table.add(node(number)));
        }
        assert_eq!((table.nodes.len(), table.good(Some(now)).len()), (MAX_NODES, 10));
    }

    #[test]
    fn good_nodes_come_by_reliability_and_then_by_speed() {
        let (now, mut table) = (start(), table());
        for (number, answers, ms) in [(1, 1, 5), (2, 2, 90), (3, 2, 30), (4, 9, 80)] {
            for _ in 0..answers {
                table.on_response(now, node(number), NodeId::default(), Duration::from_millis(ms));
            }
        }
        assert_eq!(table.good(Some(now)), [node(4), node(3), node(2), node(1)]);
        table.on_failure(node(4));
        assert_eq!(table.good(Some(now))[0], node(3));
        assert_eq!(table.good(Some(now + GOOD_FOR * 2)), []);
        for number in 10..400 {
            table.on_response(now, node(number), NodeId::default(), RTT);
        }
        assert_eq!(table.good(Some(now)).len(), MAX_GOOD_NODES);
    }

    #[test]
    fn node_is_forgotten_after_failures_in_a_row() {
        let (now, mut table) = (start(), table());
        table.add(node(1));
        (1..MAX_FAILURES).for_each(|_| table.on_failure(node(1)));
        table.on_response(now, node(1), NodeId::default(), RTT);
        (1..MAX_FAILURES).for_each(|_| table.on_failure(node(1)));
        assert_eq!(table.nodes.len(), 1);
        table.on_failure(node(1));
        assert_eq!(table.nodes.len(), 0);
    }

    #[test]
    fn few_nodes_of_one_network_are_learned() {
        let (now, mut table) = (start(), table());
        for port in 2000..2100 {
            table.on_response(now, SocketAddr::from(([11, 0, 0, 1], port)), NodeId::default(), RTT);
        }
        assert_eq!(table.nodes.len(), MAX_PER_NETWORK);
    }

    #[test]
    fn lookups_start_close_to_their_target() {
        let (now, mut table) = (start(), table());
        let mut rng = ChaCha12Rng::from_seed([1; 32]);
        for number in 0..100 {
            let mut id = [0; 20];
            id[0] = number as u8;
            table.on_response(now, node(number), NodeId(id), RTT);
        }
        table.add(node(200));
        let mut target = NodeId::default();
        target.0[0] = 33;
        let (contacts, seeds) = table.start(Family::V4, &target, &mut rng);
        assert_eq!((contacts.len(), contacts[0].address), (START_CONTACTS, node(33)));
        assert_eq!(seeds, [node(200)]);
        assert_eq!(table.start(Family::V6, &target, &mut rng), (vec![], vec![]));
    }
}
