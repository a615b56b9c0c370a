//! The address at which nodes see this computer (BEP 42).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use crate::event::Reflexive;

/// The number of votes that are kept. Older ones may be of a mapping that has expired.
const MAX_VOTES: usize = 32;
/// The number of newest votes that decide, so that a mapping which has changed is noticed after a few responses.
const RECENT_VOTES: usize = 6;
/// The number of different ports among the newest votes that one lying node and one change of the mapping cannot explain.
const VARYING_PORTS: usize = 4;

/// Votes of one family, one for each voter.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// The oldest first.
    votes: VecDeque<(SocketAddr, SocketAddr)>,
}

impl Votes {
    /// Takes the address that a voter, a node or a network of nodes, reports. It replaces the voter's earlier vote.
    pub(crate) fn add(&mut self, voter: SocketAddr, reported: SocketAddr) {
        self.votes.retain(|(other, _)| *other != voter);
        self.votes.push_back((voter, reported));
        if self.votes.len() > MAX_VOTES {
            self.votes.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.votes.clear();
    }

    /// Returns the address with the most of the newest votes: first the IP address, then its port; the newest among equals.
    pub(crate) fn result(&self) -> Option<Reflexive> {
        let newest = self.votes.len().saturating_sub(RECENT_VOTES);
        let recent = || self.votes.iter().skip(newest).map(|(_, reported)| *reported);
        let ip = most_frequent(recent().map(|reported| reported.ip()))?;
        let address = most_frequent(recent().filter(|reported| reported.ip() == ip))?;
        let votes = self.votes.iter().filter(|(_, reported)| *reported == address).count();
        let ports: BTreeSet<u16> =
            recent().filter(|reported| reported.ip() == ip).map(|reported| reported.port()).collect();
        Some(Reflexive { address, votes, port_varies: ports.len() >= VARYING_PORTS })
    }
}

/// Returns the value that occurs most often; the one that occurs last among equals.
fn most_frequent<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, (usize, usize)> = BTreeMap::new();
    for (index, value) in values.enumerate() {
        let (count, last) = counts.entry(value).or_default();
        (*count, *last) = (*count + 1, index);
    }
    counts.into_iter().max_by_key(|(_, rank)| *rank).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(reported: &[&str]) -> Votes {
        let mut votes = Votes::default();
        for (index, reported) in reported.iter().enumerate() {
            votes.add(SocketAddr::from(([11, 0, index as u8, 0], 0)), reported.parse().unwrap());
        }
        votes
    }

    fn result(reported: &[&str]) -> (String, usize, bool) {
        let Reflexive { address, votes, port_varies } = votes(reported).result().unwrap();
        (address.to_string(), votes, port_varies)
    }

    #[test]
    fn liar_does_not_win_against_two() {
        let reported = ["203.0.113.1:5", "198.51.100.9:7", "203.0.113.1:5"];
        assert_eq!(result(&reported), ("203.0.113.1:5".into(), 2, false));
        assert_eq!(Votes::default().result(), None);
    }

    #[test]
    fn network_has_one_vote() {
        let mut votes = votes(&["203.0.113.1:5", "203.0.113.1:5"]);
        for port in 100..110 {
            votes.add(SocketAddr::from(([66, 0, 0, 0], 0)), SocketAddr::from(([198, 51, 100, 9], port)));
        }
        assert_eq!(votes.result().unwrap().address, "203.0.113.1:5".parse().unwrap());
    }

    #[test]
    fn port_varies_only_if_many_nodes_see_others() {
        let one = |port: &str| format!("203.0.113.1:{port}");
        let seen = |ports: &[&str]| {
            let reported: Vec<String> = ports.iter().map(|port| one(port)).collect();
            result(&reported.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(seen(&["1", "2", "3", "4"]), (one("4"), 1, true));
        // A change of the mapping and one lie.
        assert_eq!(seen(&["1", "1", "1", "2", "9", "2", "2"]), (one("2"), 3, false));
        // The port was kept for the last six.
        assert_eq!(seen(&["1", "2", "3", "4", "5", "5", "5", "5", "5"]), (one("5"), 5, false));
    }

    #[test]
    fn old_votes_are_forgotten() {
        let mut votes = Votes::default();
        for index in 0..100 {
            votes.add(SocketAddr::from(([11, 0, index, 0], 0)), SocketAddr::from(([203, 0, 113, 1], 5)));
        }
        assert_eq!(votes.result().unwrap().votes, MAX_VOTES);
    }
}
