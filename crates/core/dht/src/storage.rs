//! Nodes that can store items, and those that recent searches found.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_wire::krpc::NodeId;

use crate::config::Family;

/// The age up to which a write token is used. Nodes accept tokens for at least five minutes.
const TOKEN_LIFETIME: Duration = Duration::from_secs(4 * 60);
/// The number of targets whose nodes are remembered.
const MAX_TARGETS: usize = 64;

/// A node that answered a `get` query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageNode {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    /// The write token and its time; `None` if the node cannot store.
    pub(crate) token: Option<(Vec<u8>, Instant)>,
    /// The sequence number of the valid item that the node returned.
    pub(crate) seq: Option<i64>,
}

impl StorageNode {
    fn has_fresh_token(&self, now: Instant) -> bool {
        self.token.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) <= TOKEN_LIFETIME)
    }
}

/// The nodes closest to a target in both families.
#[derive(Debug, Default)]
struct Target {
    used: u64,
    nodes: [Vec<StorageNode>; 2],
}

/// The closest nodes that the last searches found.
#[derive(Debug, Default)]
pub(crate) struct RecentTargets {
    targets: BTreeMap<NodeId, Target>,
    used: u64,
}

impl RecentTargets {
    /// Replaces the nodes of a target in one family. An empty result keeps the former ones.
    pub(crate) fn set(&mut self, target: NodeId, family: Family, nodes: Vec<StorageNode>) {
        if nodes.is_empty() {
            return;
        }
        self.used += 1;
        let entry = self.targets.entry(target).or_default();
        entry.used = self.used;
        entry.nodes[family.index()] = nodes;
        if self.targets.len() > MAX_TARGETS
            && let Some(oldest) =
                self.targets.iter().min_by_key(|(_, entry)| entry.used).map(|(target, _)| *target)
        {
            self.targets.remove(&oldest);
        }
    }

    /// Takes a response of a node to a later query.
    pub(crate) fn update(&mut self, target: &NodeId, node: &StorageNode) {
        let Some(entry) = self.targets.get_mut(target) else { return };
        let nodes = &mut entry.nodes[Family::of(node.address).index()];
        if let Some(known) = nodes.iter_mut().find(|known| known.address == node.address) {
            let seq = node.seq.or(known.seq);
            *known = StorageNode { seq, ..node.clone() };
        }
    }

    /// Notes that a node has stored an item.
    pub(crate) fn set_seq(&mut self, target: &NodeId, address: SocketAddr, seq: Option<i64>) {
        let nodes = self.targets.get_mut(target).map(|entry| &mut entry.nodes[Family::of(address).index()]);
        if let Some(node) = nodes.and_then(|nodes| nodes.iter_mut().find(|node| node.address == address)) {
            node.seq = seq;
        }
    }

    /// Forgets a node that did not answer.
    pub(crate) fn remove(&mut self, target: &NodeId, address: SocketAddr) {
        if let Some(entry) = self.targets.get_mut(target) {
            entry.nodes[Family::of(address).index()].retain(|node| node.address != address);
        }
    }

    /// Returns the nodes of a target in one family, the closest first.
    pub(crate) fn nodes(&self, target: &NodeId, family: Family) -> &[StorageNode] {
        self.targets.get(target).map_or(&[], |entry| &entry.nodes[family.index()])
    }

    /// Returns the nodes of a target in one family if enough of them would accept an item now without another search.
    pub(crate) fn writable(&self, now: Instant, target: &NodeId, family: Family) -> Option<Vec<StorageNode>> {
        let nodes = self.nodes(target, family);
        let fresh: Vec<_> = nodes.iter().filter(|node| node.has_fresh_token(now)).cloned().collect();
        // A quarter of them may have gone.
        (!fresh.is_empty() && fresh.len() * 4 >= nodes.len() * 3).then_some(fresh)
    }

    /// Forgets all tokens, which are bound to this computer's address.
    pub(crate) fn forget_tokens(&mut self) {
        let nodes = self.targets.values_mut().flat_map(|entry| &mut entry.nodes).flatten();
        nodes.for_each(|node| node.token = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn node(number: u8, at: Instant) -> StorageNode {
        StorageNode {
            id: NodeId([number; 20]),
            address: SocketAddr::from(([11, 0, number, 1], 6881)),
            token: Some((vec![number], at)),
            seq: None,
        }
    }

    const TARGET: NodeId = NodeId([9; 20]);

    #[test]
    fn nodes_are_writable_while_most_tokens_are_fresh() {
        let (now, mut recent) = (start(), RecentTargets::default());
        assert_eq!(recent.writable(now, &TARGET, Family::V4), None);
        recent.set(TARGET, Family::V4, (0..8).map(|number| node(number, now)).collect());
        assert_eq!(
            recent.writable(now + TOKEN_LIFETIME, &TARGET, Family::V4).map(|nodes| nodes.len()),
            Some(8)
        );
        let late = now + TOKEN_LIFETIME + Duration::from_secs(1);
        (0..5).for_each(|number| recent.update(&TARGET, &node(number, late)));
        assert_eq!(recent.writable(late, &TARGET, Family::V4), None);
        recent.update(&TARGET, &node(5, late));
        assert_eq!(recent.writable(late, &TARGET, Family::V4).map(|nodes| nodes.len()), Some(6));
        recent.forget_tokens();
        assert_eq!(recent.writable(late, &TARGET, Family::V4), None);
        assert_eq!(recent.writable(late, &TARGET, Family::V6), None);
    }

    #[test]
    fn few_targets_are_remembered() {
        let (now, mut recent) = (start(), RecentTargets::default());
        for number in 0..=MAX_TARGETS as u8 {
            recent.set(NodeId([number; 20]), Family::V4, vec![node(1, now)]);
        }
        assert_eq!(recent.nodes(&NodeId([0; 20]), Family::V4), []);
        assert_eq!(recent.nodes(&NodeId([1; 20]), Family::V4).len(), 1);
        recent.remove(&NodeId([1; 20]), node(1, now).address);
        assert_eq!(recent.nodes(&NodeId([1; 20]), Family::V4), []);
    }

    #[test]
    fn search_without_result_keeps_the_former_nodes() {
        let (now, mut recent) = (start(), RecentTargets::default());
        recent.set(TARGET, Family::V4, vec![node(1, now)]);
        recent.set(TARGET, Family::V4, vec![]);
        assert_eq!(recent.nodes(&TARGET, Family::V4).len(), 1);
    }
}
