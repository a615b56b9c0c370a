//! The iterative search for the nodes closest to a target, in one address family.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use partyline_wire::krpc::{Contact, NodeId};

use crate::{address::AddressPolicy, secure_id::is_secure, storage::StorageNode};

/// The number of nodes that store an item: the closest ones.
pub(crate) const CLOSEST: usize = 8;
/// The number of the closest with which a search that finds no more ends without waiting for slow nodes.
const ENOUGH: usize = 4;
/// Nodes with an id that follows from their address (BEP 42) that are among them. If the closest have fewer, the closest
/// such nodes are added, so that chosen ids alone cannot hide an item.
const MIN_SECURE: usize = 6;
/// Nodes of one network that count.
const MAX_PER_NETWORK: usize = 2;
/// Queries in flight.
const PARALLEL: usize = 6;
/// Queries in flight until the first answer, and while most nodes do not answer, so that dead nodes cost little time.
const MAX_PARALLEL: usize = 12;
/// Queries of one search at most.
const MAX_QUERIES: usize = 160;
/// Nodes remembered at most: the closest.
const MAX_CANDIDATES: usize = 256;
/// Nodes taken from one response. Kademlia's bucket size is 8; some implementations send more.
const MAX_CONTACTS: usize = 16;
/// A node is distrusted if more than this number of nodes that it named did not answer, and more than three quarters of all.
const MAX_DEAD_CONTACTS: usize = 4;

/// A query that a search wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchQuery {
    /// For nodes that are not known to have BEP 44, such as bootstrap routers.
    FindNode,
    Get,
}

/// What a node's response to a search has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) node: StorageNode,
    pub(crate) contacts: Vec<Contact>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not asked yet.
    Fresh,
    /// Asked and waited for.
    Asked,
    /// Asked and no longer waited for, but its response still counts.
    PassedOver,
    /// It can store the item.
    Answered(StorageNode),
    /// It answers, but has no BEP 44.
    Unsupported,
    /// It did not answer.
    Failed,
}

#[derive(Debug)]
struct Candidate {
    distance: NodeId,
    address: SocketAddr,
    secure: bool,
    /// The node that named it; `None` if it was known before.
    source: Option<SocketAddr>,
    state: State,
}

impl Candidate {
    /// Returns true if it is, or may turn out to be, one of the closest that can store the item.
    const fn counts(&self) -> bool {
        matches!(self.state, State::Fresh | State::Asked | State::Answered(_))
    }

    const fn is_outstanding(&self) -> bool {
        matches!(self.state, State::Asked | State::PassedOver)
    }
}

/// What became of the nodes that one node named.
#[derive(Debug, Default)]
struct Record {
    dead: usize,
    alive: usize,
}

impl Record {
    const fn is_trusted(&self) -> bool {
        self.dead <= MAX_DEAD_CONTACTS + 3 * self.alive
    }
}

/// The nodes that count among the closest now.
#[derive(Debug, Default)]
struct Window {
    /// The closest one that is to be asked.
    fresh: Option<usize>,
    /// The number of those that are waited for.
    waiting: usize,
    counted: usize,
    closest: Vec<usize>,
}

/// A search.
#[derive(Debug)]
pub(crate) struct Search {
    target: NodeId,
    policy: AddressPolicy,
    /// The closest first.
    candidates: Vec<Candidate>,
    /// Nodes of unknown id that were not asked yet.
    seeds: VecDeque<SocketAddr>,
    /// Nodes that were asked by `find_node`; true if they are no longer waited for.
    asked_seeds: BTreeMap<SocketAddr, bool>,
    records: BTreeMap<SocketAddr, Record>,
    queries: usize,
    answered: bool,
}

impl Search {
    pub(crate) fn new(
        target: NodeId,
        policy: AddressPolicy,
        (contacts, seeds): (Vec<Contact>, Vec<SocketAddr>),
    ) -> Self {
        let mut search = Self {
            target,
            policy,
            candidates: Vec::new(),
            seeds: seeds.into(),
            asked_seeds: BTreeMap::new(),
            records: BTreeMap::new(),
            queries: 0,
            answered: false,
        };
        contacts.into_iter().for_each(|contact| search.add_contact(contact, None));
        search
    }

    /// Adds a node of unknown id.
    pub(crate) fn add_seed(&mut self, address: SocketAddr) {
        let known = self.seeds.contains(&address)
            || self.asked_seeds.contains_key(&address)
            || self.position(address).is_some();
        if !known && self.seeds.len() < MAX_CANDIDATES {
            self.seeds.push_back(address);
        }
    }

    /// Adds a node that another one named.
    pub(crate) fn add_contact(&mut self, contact: Contact, source: Option<SocketAddr>) {
        if let Some(position) = self.position(contact.address) {
            self.replace_source(position, source);
            return;
        }
        let candidate = Candidate {
            distance: contact.id.distance(&self.target),
            address: contact.address,
            secure: is_secure(&contact.id, contact.address.ip()),
            source,
            state: State::Fresh,
        };
        self.insert(candidate);
        if self.candidates.len() > MAX_CANDIDATES
            && let Some(farthest) = self.candidates.iter().rposition(|candidate| !candidate.is_outstanding())
        {
            self.candidates.remove(farthest);
        }
    }

    /// Returns the next query, and notes that it is sent.
    pub(crate) fn next(&mut self) -> Option<(SocketAddr, SearchQuery)> {
        if self.queries >= MAX_QUERIES || self.in_flight() >= self.parallel() {
            return None;
        }
        let trusted = self.window(true, CLOSEST);
        let short = trusted.counted < CLOSEST;
        let fresh = trusted.fresh.or_else(|| match short {
            true => self.window(false, CLOSEST).fresh,
            false => self.window(true, CLOSEST + self.expected_losses(trusted.waiting)).fresh,
        });
        if let Some(fresh) = fresh {
            self.queries += 1;
            let candidate = &mut self.candidates[fresh];
            candidate.state = State::Asked;
            return Some((candidate.address, SearchQuery::Get));
        }
        let seed = if short || !self.answered { self.seeds.pop_front() } else { None }?;
        self.queries += 1;
        self.asked_seeds.insert(seed, false);
        Some((seed, SearchQuery::FindNode))
    }

    /// Takes a response.
    pub(crate) fn on_answer(&mut self, query: SearchQuery, answer: Answer) {
        self.answered = true;
        let Answer { node, contacts } = answer;
        let address = node.address;
        match query {
            SearchQuery::FindNode => {
                self.asked_seeds.remove(&address);
                self.add_contact(Contact { id: node.id, address }, None);
            }
            SearchQuery::Get => self.on_candidate(node),
        }
        for contact in contacts.into_iter().take(MAX_CONTACTS) {
            self.add_contact(contact, Some(address));
        }
    }

    /// Takes an error response. A node without the method may still name others.
    pub(crate) fn on_error(&mut self, query: SearchQuery, address: SocketAddr) {
        self.answered = true;
        if query == SearchQuery::FindNode {
            self.asked_seeds.remove(&address);
        } else if let Some(position) = self.outstanding(address) {
            self.candidates[position].state = State::Unsupported;
            self.credit(position, true);
            self.seeds.push_front(address);
        }
    }

    /// Stops waiting for a node.
    pub(crate) fn pass_over(&mut self, query: SearchQuery, address: SocketAddr) {
        if query == SearchQuery::FindNode {
            self.asked_seeds.entry(address).and_modify(|passed_over| *passed_over = true);
        } else if let Some(position) = self.outstanding(address) {
            self.candidates[position].state = State::PassedOver;
            self.credit(position, false);
        }
    }

    /// Notes that no response will come any more.
    pub(crate) fn on_timeout(&mut self, query: SearchQuery, address: SocketAddr) {
        if query == SearchQuery::FindNode {
            self.asked_seeds.remove(&address);
        } else if let Some(position) = self.outstanding(address) {
            self.candidates[position].state = State::Failed;
        }
    }

    /// Returns true if a node was asked, or one can be asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.queries > 0 || !self.candidates.is_empty() || !self.seeds.is_empty()
    }

    /// Returns true if the closest nodes have answered, or nothing is left to ask or to wait for.
    pub(crate) fn is_done(&self) -> bool {
        let trusted = self.window(true, CLOSEST);
        let is_exhausted = self.queries >= MAX_QUERIES;
        if trusted.waiting > 0 || trusted.fresh.is_some() && !is_exhausted {
            return false;
        }
        if trusted.closest.len() >= CLOSEST {
            return true;
        }
        let left = !self.seeds.is_empty() || self.window(false, CLOSEST).fresh.is_some();
        if self.in_flight() > 0 || left && !is_exhausted {
            return false;
        }
        // Nodes that were passed over are worth waiting for only while there is little else.
        let outstanding =
            !self.asked_seeds.is_empty() || self.candidates.iter().any(Candidate::is_outstanding);
        trusted.closest.len() >= ENOUGH || !outstanding
    }

    /// Returns the closest nodes that answered and can store the item, the closest first.
    pub(crate) fn closest(&self) -> Vec<StorageNode> {
        let closest = self.window(true, CLOSEST).closest.into_iter();
        closest.filter_map(|index| self.storage_node(index)).cloned().collect()
    }

    /// Returns further nodes that can store the item, to be used where one of the closest does not.
    pub(crate) fn spares(&self) -> Vec<StorageNode> {
        let closest = self.window(true, CLOSEST).closest;
        let spares = (0..self.candidates.len()).filter(|index| !closest.contains(index));
        spares.filter_map(|index| self.storage_node(index)).take(CLOSEST / 2).cloned().collect()
    }

    /// Starts over with all nodes that are known, since the network is another.
    pub(crate) fn restart(&mut self) {
        let asked = std::mem::take(&mut self.asked_seeds);
        self.seeds.extend(asked.into_keys());
        self.candidates.iter_mut().for_each(|candidate| candidate.state = State::Fresh);
        self.records.clear();
        self.queries = 0;
        self.answered = false;
    }

    fn storage_node(&self, index: usize) -> Option<&StorageNode> {
        match &self.candidates.get(index)?.state {
            State::Answered(node) => Some(node),
            _ => None,
        }
    }

    fn on_candidate(&mut self, node: StorageNode) {
        let Some(position) = self.outstanding(node.address) else { return };
        let distance = node.id.distance(&self.target);
        let honest = self.candidates[position].distance == distance;
        self.credit(position, honest);
        let mut candidate = self.candidates.remove(position);
        // What counts is the id that the node has, not the one that another node claims for it.
        candidate.distance = distance;
        candidate.secure = is_secure(&node.id, node.address.ip());
        candidate.state = if node.token.is_some() { State::Answered(node) } else { State::Unsupported };
        self.insert(candidate);
    }

    fn insert(&mut self, candidate: Candidate) {
        let position = self.candidates.partition_point(|other| other.distance <= candidate.distance);
        self.candidates.insert(position, candidate);
    }

    fn position(&self, address: SocketAddr) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.address == address)
    }

    /// Returns the position of a candidate whose response is still taken.
    fn outstanding(&self, address: SocketAddr) -> Option<usize> {
        self.position(address).filter(|position| self.candidates[*position].is_outstanding())
    }

    /// Notes whether a node was alive, to the credit of the node that named it.
    fn credit(&mut self, position: usize, alive: bool) {
        if let Some(source) = self.candidates[position].source {
            let record = self.records.entry(source).or_default();
            *if alive { &mut record.alive } else { &mut record.dead } += 1;
        }
    }

    /// A node that a trusted node names as well is no longer the word of a distrusted one.
    fn replace_source(&mut self, position: usize, source: Option<SocketAddr>) {
        if self.trusts(source) && !self.trusts(self.candidates[position].source) {
            self.candidates[position].source = source;
        }
    }

    fn trusts(&self, source: Option<SocketAddr>) -> bool {
        source.and_then(|source| self.records.get(&source)).is_none_or(Record::is_trusted)
    }

    fn parallel(&self) -> usize {
        let silent = self.count(|state| matches!(state, State::PassedOver | State::Failed));
        let alive = self.count(|state| matches!(state, State::Answered(_) | State::Unsupported));
        if self.answered && silent < alive.max(1) { PARALLEL } else { MAX_PARALLEL }
    }

    fn in_flight(&self) -> usize {
        let seeds = self.asked_seeds.values().filter(|passed_over| !**passed_over).count();
        seeds + self.count(|state| *state == State::Asked)
    }

    fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.candidates.iter().filter(|candidate| is(&candidate.state)).count()
    }

    /// Returns how many of the nodes that are waited for will turn out to be dead or unable to store, if they are like those
    /// before. As many further ones are asked ahead of time.
    fn expected_losses(&self, waiting: usize) -> usize {
        let lost =
            self.count(|state| matches!(state, State::PassedOver | State::Failed | State::Unsupported));
        let useful = self.count(|state| matches!(state, State::Answered(_)));
        (waiting * lost).div_ceil(useful.max(1)).min(CLOSEST)
    }

    /// Finds the closest nodes as far as they are known: `size` of all, and the closest of those with secure ids.
    fn window(&self, trusted_only: bool, size: usize) -> Window {
        let (mut window, mut secure) = (Window::default(), 0);
        let mut networks: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (index, candidate) in
            self.candidates.iter().enumerate().filter(|(_, candidate)| candidate.counts())
        {
            if window.counted >= size && secure >= MIN_SECURE {
                break;
            }
            let fresh = candidate.state == State::Fresh;
            if window.counted >= size && !candidate.secure
                || fresh && trusted_only && !self.trusts(candidate.source)
            {
                continue;
            }
            if let Some(network) = self.policy.network(candidate.address.ip()) {
                let used = networks.entry(network).or_default();
                *used += 1;
                if *used > MAX_PER_NETWORK {
                    continue;
                }
            }
            window.counted += 1;
            secure += usize::from(candidate.secure);
            match candidate.state {
                State::Fresh => window.fresh = window.fresh.or(Some(index)),
                State::Asked => window.waiting += 1,
                _ => window.closest.push(index),
            }
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: NodeId = NodeId([0; 20]);
    const PUBLIC: AddressPolicy = AddressPolicy { allow_private: false };

    /// Returns a node at the given distance, in a network of its own. Its id does not follow from its address.
    fn contact(distance: u8) -> Contact {
        let mut id = TARGET;
        id.0[0] = distance;
        let address = (1..=255).map(|part| SocketAddr::from(([11, distance, part, 1], 6881)));
        let address = address.into_iter().find(|address| !is_secure(&id, address.ip())).unwrap();
        Contact { id, address }
    }

    /// Returns a node that has an id which follows from its address, farther away than all others.
    fn secure_contact(number: u8) -> Contact {
        let address = SocketAddr::from(([12, number, 0, 1], 6881));
        let mut rng = rand_chacha::ChaCha12Rng::from_seed([number; 32]);
        let id = std::iter::repeat_with(|| crate::secure_id::secure_id(address.ip(), &mut rng));
        Contact { id: id.into_iter().find(|id| id.0[0] >= 0x80).unwrap_or_default(), address }
    }

    use rand_core::SeedableRng as _;

    fn search(contacts: impl IntoIterator<Item = Contact>) -> Search {
        Search::new(TARGET, PUBLIC, (contacts.into_iter().collect(), Vec::new()))
    }

    fn answer(contact: Contact, contacts: Vec<Contact>) -> Answer {
        Answer { node: node(contact, true), contacts }
    }

    fn node(contact: Contact, can_store: bool) -> StorageNode {
        let token = can_store.then(|| (vec![1], origin()));
        StorageNode { id: contact.id, address: contact.address, token, seq: None }
    }

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    fn origin() -> std::time::Instant {
        std::time::Instant::now()
    }

    fn asked(search: &mut Search) -> Vec<SocketAddr> {
        std::iter::from_fn(|| search.next()).map(|(address, _)| address).collect()
    }

    fn addresses(contacts: impl IntoIterator<Item = Contact>) -> Vec<SocketAddr> {
        contacts.into_iter().map(|contact| contact.address).collect()
    }

    #[test]
    fn closest_are_asked_first_and_six_at_a_time() {
        let mut search = search((10..40).rev().map(contact));
        assert_eq!(asked(&mut search), addresses((10..18).map(contact)), "the window until the first answer");
        search.on_answer(SearchQuery::Get, answer(contact(10), (1..9).map(contact).collect()));
        assert_eq!(asked(&mut search), [], "seven are in flight");
        search.on_answer(SearchQuery::Get, answer(contact(11), vec![]));
        search.on_answer(SearchQuery::Get, answer(contact(12), vec![]));
        assert_eq!(asked(&mut search), addresses([contact(1)]));
    }

    #[test]
    fn search_ends_when_the_eight_closest_have_answered() {
        let mut search = search((1..30).map(contact));
        for distance in 1..9 {
            assert!(!search.is_done(), "{distance}");
            asked(&mut search);
            search.on_answer(SearchQuery::Get, answer(contact(distance), vec![]));
        }
        assert!(search.is_done());
        let closest: Vec<_> = search.closest().iter().map(|node| node.address).collect();
        assert_eq!(closest, addresses((1..9).map(contact)));
    }

    #[test]
    fn slow_node_is_passed_over_and_its_late_answer_counts() {
        let mut search = search((1..10).map(contact));
        asked(&mut search);
        search.pass_over(SearchQuery::Get, contact(1).address);
        assert_eq!(asked(&mut search), addresses([contact(9)]));
        for distance in 2..10 {
            search.on_answer(SearchQuery::Get, answer(contact(distance), vec![]));
        }
        assert!(search.is_done(), "the slow node is not waited for");
        search.on_answer(SearchQuery::Get, answer(contact(1), vec![]));
        assert_eq!(search.closest()[0].address, contact(1).address);
    }

    #[test]
    fn with_too_few_answers_slow_nodes_are_waited_for() {
        let mut search = search([contact(1)]);
        asked(&mut search);
        search.pass_over(SearchQuery::Get, contact(1).address);
        assert!(!search.is_done());
        search.on_timeout(SearchQuery::Get, contact(1).address);
        assert!(search.is_done() && search.closest().is_empty());
    }

    #[test]
    fn node_without_the_method_is_asked_for_nodes_and_stores_nothing() {
        let mut search = search([contact(9)]);
        asked(&mut search);
        search.on_error(SearchQuery::Get, contact(9).address);
        assert_eq!(search.next(), Some((contact(9).address, SearchQuery::FindNode)));
        search.on_answer(
            SearchQuery::FindNode,
            Answer { node: node(contact(9), false), contacts: vec![contact(3)] },
        );
        assert_eq!(search.next(), Some((contact(3).address, SearchQuery::Get)));
        search.on_answer(SearchQuery::Get, Answer { node: node(contact(3), false), contacts: vec![] });
        assert!(search.is_done() && search.closest().is_empty());
    }

    #[test]
    fn seed_gets_an_id_by_its_answer() {
        let mut search = Search::new(TARGET, PUBLIC, (vec![], vec![contact(5).address]));
        assert_eq!(search.next(), Some((contact(5).address, SearchQuery::FindNode)));
        search.on_answer(SearchQuery::FindNode, Answer { node: node(contact(5), false), contacts: vec![] });
        assert_eq!(search.next(), Some((contact(5).address, SearchQuery::Get)));
    }

    #[test]
    fn two_nodes_of_one_network_count() {
        let sybils = (1..9).map(|distance| Contact {
            address: SocketAddr::from(([11, 66, 66, distance], 6881)),
            ..contact(distance)
        });
        let mut search = search(sybils.chain((20..40).map(contact)));
        let mut expected =
            vec![SocketAddr::from(([11, 66, 66, 1], 6881)), SocketAddr::from(([11, 66, 66, 2], 6881))];
        expected.extend(addresses((20..26).map(contact)));
        assert_eq!(asked(&mut search), expected);
    }

    #[test]
    fn chosen_ids_do_not_displace_all_secure_ones() {
        let secure = || (0..6).map(secure_contact);
        let mut search = search((1..20).map(contact).chain(secure()));
        let mut asked_secure = 0;
        while let Some((address, _)) = search.next() {
            let all = (1..20).map(contact).chain(secure());
            let contact = all.into_iter().find(|contact| contact.address == address).unwrap();
            asked_secure += usize::from(secure().any(|secure| secure.address == address));
            search.on_answer(SearchQuery::Get, answer(contact, vec![]));
        }
        assert!(search.is_done());
        assert_eq!((asked_secure, search.closest().len()), (MIN_SECURE, CLOSEST + MIN_SECURE));
    }

    #[test]
    fn node_that_names_dead_ones_is_no_longer_believed() {
        let mut search = search((50..60).map(contact));
        asked(&mut search);
        let dead: Vec<_> = (1..30).map(contact).collect();
        search.on_answer(SearchQuery::Get, answer(contact(50), dead));
        let mut wasted = 0;
        for distance in 51..58 {
            search.on_answer(SearchQuery::Get, answer(contact(distance), vec![]));
            for address in asked(&mut search)
                .into_iter()
                .filter(|address| addresses((1..30).map(contact)).contains(address))
            {
                search.pass_over(SearchQuery::Get, address);
                wasted += 1;
            }
        }
        assert!((MAX_DEAD_CONTACTS..=MAX_DEAD_CONTACTS + PARALLEL).contains(&wasted), "{wasted}");
        assert!(search.is_done());
    }

    #[test]
    fn claimed_id_gives_way_to_the_real_one() {
        let mut search = search([contact(1), contact(7)]);
        asked(&mut search);
        let real = Contact { address: contact(1).address, ..contact(90) };
        search.on_answer(SearchQuery::Get, answer(real, vec![]));
        search.on_answer(SearchQuery::Get, answer(contact(7), vec![]));
        let closest: Vec<_> = search.closest().iter().map(|node| node.address).collect();
        assert_eq!(closest, [contact(7).address, contact(1).address]);
    }

    #[test]
    fn candidates_and_queries_are_bounded() {
        let mut search = search([]);
        let many = |high: u8| {
            (0..=255).map(move |low| {
                let mut id = TARGET;
                (id.0[0], id.0[1]) = (high, low);
                Contact { id, address: SocketAddr::from(([11, high, low, 1], 6881)) }
            })
        };
        (0..8).rev().flat_map(many).for_each(|contact| search.add_contact(contact, None));
        assert_eq!(search.candidates.len(), MAX_CANDIDATES);
        let mut queries = 0;
        while let Some((address, query)) = search.next() {
            search.pass_over(query, address);
            search.on_timeout(query, address);
            queries += 1;
        }
        assert_eq!((queries, search.is_done()), (MAX_QUERIES, true));
    }

    #[test]
    fn where_half_of_the_nodes_are_dead_further_ones_are_asked_ahead() {
        let mut search = search((1..40).map(contact));
        asked(&mut search);
        for distance in 1..9 {
            if distance % 2 == 0 {
                search.on_answer(SearchQuery::Get, answer(contact(distance), vec![]));
            } else {
                search.pass_over(SearchQuery::Get, contact(distance).address);
            }
        }
        // Four are missing, and as many again are expected to be dead.
        assert_eq!(asked(&mut search), addresses((9..17).map(contact)));
    }

    #[test]
    fn with_half_of_the_answers_slow_nodes_are_not_waited_for() {
        let mut search = search((1..6).map(contact));
        asked(&mut search);
        search.pass_over(SearchQuery::Get, contact(1).address);
        for distance in 2..6 {
            assert!(!search.is_done());
            search.on_answer(SearchQuery::Get, answer(contact(distance), vec![]));
        }
        assert!(search.is_done());
    }

    #[test]
    fn restart_asks_all_again() {
        let mut search = search((1..4).map(contact));
        assert_eq!(asked(&mut search).len(), 3);
        search.on_answer(SearchQuery::Get, answer(contact(1), vec![]));
        search.on_timeout(SearchQuery::Get, contact(2).address);
        search.restart();
        assert_eq!(asked(&mut search), addresses((1..4).map(contact)));
    }
}
