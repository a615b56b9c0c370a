//! One request of the caller: to read an item, to poll it, or to store it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_wire::krpc::{Contact, NodeId, Response, error_code};

use crate::{
    config::Family,
    event::Outcome,
    item::Item,
    round::Round,
    search::{Answer, CLOSEST, Search, SearchQuery},
    storage::{RecentTargets, StorageNode},
    transactions::MethodName,
};

/// The time after which a lookup ends with what it has.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of distinct items that one lookup reports.
const MAX_ITEMS: usize = 32;

/// What the caller asked for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// All items that the closest nodes have.
    Get,
    /// Items newer than `seen` that some of the closest nodes have.
    Poll { seen: Option<i64> },
    /// To store an item, where no other one than that of sequence number `cas` is overwritten.
    Put { item: Item, cas: Option<i64> },
}

impl Purpose {
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Poll { .. } => "poll",
            Self::Put { .. } => "put",
        }
    }
}

/// A query that a lookup wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    FindNode,
    Get { seq: Option<i64> },
    Put { token: Vec<u8>, cas: Option<i64> },
}

impl Ask {
    pub(crate) const fn method(&self) -> MethodName {
        match self {
            Self::FindNode => MethodName::FindNode,
            Self::Get { .. } => MethodName::Get,
            Self::Put { .. } => MethodName::Put,
        }
    }
}

/// What a lookup does in one family.
#[derive(Debug)]
pub(crate) enum Stage {
    Search(Search),
    Poll(Round<()>),
    Store(Round<(Vec<u8>, Option<i64>)>),
    Finished,
}

/// A response to one of the lookup's queries, with the nodes that it names and that may be asked.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) at: Instant,
    pub(crate) source: SocketAddr,
    pub(crate) method: MethodName,
    pub(crate) response: Response<'a>,
    pub(crate) contacts: Vec<Contact>,
}

/// What a response to a `get` query carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Nothing,
    Known(i64),
    New(Item),
    Invalid,
}

/// A lookup.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) key: [u8; 32],
    pub(crate) salt: Vec<u8>,
    pub(crate) target: NodeId,
    pub(crate) purpose: Purpose,
    /// One for each family.
    stages: [Stage; 2],
    items: Vec<Item>,
    pub(crate) outcome: Outcome,
    started_at: Instant,
    /// True once a poll that no node answered has become a search.
    fell_back: bool,
}

impl Lookup {
    pub(crate) fn new(
        now: Instant,
        (key, salt, target): ([u8; 32], Vec<u8>, NodeId),
        purpose: Purpose,
        stages: [Stage; 2],
    ) -> Self {
        let outcome = Outcome::default();
        Self {
            key,
            salt,
            target,
            purpose,
            stages,
            items: Vec::new(),
            outcome,
            started_at: now,
            fell_back: false,
        }
    }

    /// Returns the next query, and notes that it is sent.
    pub(crate) fn next(&mut self) -> Option<(SocketAddr, Ask)> {
        let seq = match self.purpose {
            Purpose::Poll { seen } => seen,
            Purpose::Get | Purpose::Put { .. } => None,
        };
        let next = self.stages.iter_mut().find_map(|stage| match stage {
            Stage::Search(search) => search.next().map(|(address, query)| match query {
                SearchQuery::FindNode => (address, Ask::FindNode),
                SearchQuery::Get => (address, Ask::Get { seq }),
            }),
            Stage::Poll(round) => round.next().map(|(address, ())| (address, Ask::Get { seq })),
            Stage::Store(round) => {
                round.next().map(|(address, (token, cas))| (address, Ask::Put { token, cas }))
            }
            Stage::Finished => None,
        });
        self.outcome.asked += u32::from(next.is_some());
        next
    }

    /// Takes a response, and returns the item that it carries.
    pub(crate) fn on_response(&mut self, received: Received<'_>, recent: &mut RecentTargets) -> Carried {
        self.outcome.answered += 1;
        if received.method == MethodName::Put {
            self.on_stored(&received, recent);
            return Carried::Nothing;
        }
        let (source, at) = (received.source, received.at);
        let carried = self.carried(&received.response);
        let seq = match &carried {
            Carried::New(item) => Some(item.seq),
            Carried::Known(seq) => Some(*seq),
            Carried::Nothing | Carried::Invalid => None,
        };
        let token = received.response.token.map(|token| (token.to_vec(), at));
        let node = StorageNode { id: received.response.id, address: source, token, seq };
        if received.method == MethodName::Get {
            recent.update(&self.target, &node);
        }
        self.on_answer(received.method, node, received.contacts);
        carried
    }

    /// Takes an error response.
    pub(crate) fn on_error(
        &mut self,
        (method, source): (MethodName, SocketAddr),
        code: i64,
        recent: &mut RecentTargets,
    ) {
        self.outcome.answered += 1;
        match self.stage(source) {
            Stage::Search(search) => search.on_error(search_query(method), source),
            Stage::Poll(round) => round.on_failure(source),
            Stage::Store(_) if method != MethodName::Put => {}
            Stage::Store(round) if matches!(code, error_code::CAS_MISMATCH | error_code::SEQ_TOO_OLD) => {
                round.on_success(source);
                self.outcome.conflicts += 1;
            }
            Stage::Store(round) => {
                round.on_failure(source);
                self.outcome.refused += 1;
                // Its token is of no use.
                recent.remove(&self.target, source);
            }
            Stage::Finished => {}
        }
    }

    /// Stops waiting for a node, whose response is still taken.
    pub(crate) fn pass_over(&mut self, method: MethodName, node: SocketAddr) {
        match self.stage(node) {
            Stage::Search(search) => search.pass_over(search_query(method), node),
            Stage::Poll(round) => round.pass_over(node),
            Stage::Store(round) if method == MethodName::Put => round.pass_over(node),
            // The query is one of the search before.
            Stage::Store(_) | Stage::Finished => {}
        }
    }

    /// Notes that no response will come any more.
    pub(crate) fn on_timeout(&mut self, method: MethodName, node: SocketAddr) {
        match self.stage(node) {
            Stage::Search(search) => search.on_timeout(search_query(method), node),
            Stage::Poll(round) => round.on_failure(node),
            Stage::Store(round) if method == MethodName::Put => round.on_failure(node),
            Stage::Store(_) | Stage::Finished => {}
        }
    }

    /// Moves on where a stage is over, and returns true if one was.
    pub(crate) fn advance(&mut self, now: Instant, recent: &mut RecentTargets) -> bool {
        let mut moved = false;
        for family in Family::ALL {
            let other = &self.stages[family.other().index()];
            let over = match &self.stages[family.index()] {
                // Nodes of the other family may still name some of this one.
                Stage::Search(search) if !search.has_begun() => {
                    !matches!(other, Stage::Search(other) if other.has_begun())
                }
                Stage::Search(search) => search.is_done(),
                Stage::Poll(round) => round.is_done(),
                Stage::Store(round) => round.is_done(),
                Stage::Finished => false,
            };
            if now >= self.deadline() {
                self.stages[family.index()] = Stage::Finished;
            } else if over {
                self.finish_stage(family, recent);
                moved = true;
            }
        }
        moved
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Finished))
    }

    /// Returns true, once, if this was a poll that no node answered, so that the target is to be searched for.
    pub(crate) fn falls_back(&mut self) -> bool {
        let silent = matches!(self.purpose, Purpose::Poll { .. }) && self.outcome.answered == 0;
        let falls_back = silent && !self.fell_back && self.outcome.asked > 0;
        self.fell_back |= falls_back;
        falls_back
    }

    pub(crate) fn set_stage(&mut self, family: Family, stage: Stage) {
        self.stages[family.index()] = stage;
    }

    /// Adds a node of unknown id to a search.
    pub(crate) fn add_seed(&mut self, node: SocketAddr) {
        if let Stage::Search(search) = self.stage(node) {
            search.add_seed(node);
        }
    }

    /// Starts over in every family that has not finished: on another network, tokens and open queries are void. Returns
    /// the families whose search must be made anew.
    pub(crate) fn restart(&mut self) -> Vec<Family> {
        let mut lost = Vec::new();
        for family in Family::ALL {
            match &mut self.stages[family.index()] {
                Stage::Search(search) => search.restart(),
                Stage::Poll(_) | Stage::Store(_) => lost.push(family),
                Stage::Finished => {}
            }
        }
        lost
    }

    /// Returns the moment at which the lookup ends with what it has.
    pub(crate) fn deadline(&self) -> Instant {
        self.started_at + LOOKUP_TIMEOUT
    }

    /// Returns what came of it.
    pub(crate) fn outcome(&self, now: Instant) -> Outcome {
        Outcome { took: now.saturating_duration_since(self.started_at), ..self.outcome }
    }

    /// Returns the stage in which an item is stored at nodes that a search has found.
    pub(crate) fn store_stage(&mut self, closest: Vec<StorageNode>, spares: Vec<StorageNode>) -> Stage {
        let mut wanted = closest.len().min(2 * CLOSEST);
        let mut nodes = Vec::new();
        for (index, node) in closest.into_iter().chain(spares).enumerate() {
            let (Some((token, _)), Purpose::Put { item, cas }) = (node.token, &self.purpose) else {
                continue;
            };
            match expected_seq(node.seq, item.seq, *cas) {
                Ok(cas) => nodes.push((node.address, (token, cas))),
                // The node would refuse it, so that the caller learns of the conflict without a query.
                Err(Conflict) if index < wanted => {
                    self.outcome.conflicts += 1;
                    wanted -= 1;
                }
                Err(Conflict) => {}
            }
        }
        Stage::Store(Round::new(nodes, wanted))
    }

    fn finish_stage(&mut self, family: Family, recent: &mut RecentTargets) {
        let stage = std::mem::replace(&mut self.stages[family.index()], Stage::Finished);
        let Stage::Search(search) = stage else { return };
        let closest = search.closest();
        recent.set(self.target, family, closest.clone());
        if matches!(self.purpose, Purpose::Put { .. }) && !closest.is_empty() {
            self.stages[family.index()] = self.store_stage(closest, search.spares());
        }
    }

    fn on_answer(&mut self, method: MethodName, node: StorageNode, contacts: Vec<Contact>) {
        let source = node.address;
        let of_family = |contact: &Contact| Family::of(contact.address) == Family::of(source);
        let (contacts, others): (Vec<_>, Vec<_>) = contacts.into_iter().partition(of_family);
        match self.stage(source) {
            Stage::Search(search) => search.on_answer(search_query(method), Answer { node, contacts }),
            Stage::Poll(round) if node.token.is_some() => round.on_success(source),
            Stage::Poll(round) => round.on_failure(source),
            Stage::Store(_) | Stage::Finished => {}
        }
        if let Stage::Search(search) = &mut self.stages[Family::of(source).other().index()] {
            others.into_iter().take(CLOSEST).for_each(|contact| search.add_contact(contact, Some(source)));
        }
    }

    fn on_stored(&mut self, received: &Received<'_>, recent: &mut RecentTargets) {
        let Purpose::Put { item, .. } = &self.purpose else { return };
        let seq = Some(item.seq);
        if let Stage::Store(round) = &mut self.stages[Family::of(received.source).index()] {
            round.on_success(received.source);
            self.outcome.stored += 1;
            recent.set_seq(&self.target, received.source, seq);
        }
    }

    /// Reads and verifies the item in a response. Copies of one that was seen need no verification.
    fn carried(&mut self, response: &Response<'_>) -> Carried {
        let Some(item) = Item::in_response(response, &self.key, &self.salt) else { return Carried::Nothing };
        if self.items.contains(&item) {
            return Carried::Known(item.seq);
        }
        if self.items.len() >= MAX_ITEMS || !item.verify() {
            return Carried::Invalid;
        }
        self.items.push(item.clone());
        self.outcome.items += 1;
        Carried::New(item)
    }

    const fn stage(&mut self, node: SocketAddr) -> &mut Stage {
        match Family::of(node) {
            Family::V4 => &mut self.stages[0],
            Family::V6 => &mut self.stages[1],
        }
    }
}

/// The node holds a newer item than the caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conflict;

/// Returns the `cas` of a query to a node that holds an item of the given sequence number. A node with an older item than
/// the caller expects is to replace that one; one without an item gets none (BEP 44).
const fn expected_seq(held: Option<i64>, seq: i64, cas: Option<i64>) -> Result<Option<i64>, Conflict> {
    match (held, cas) {
        (Some(held), Some(cas)) if held > cas && held != seq => Err(Conflict),
        (Some(held), None) if held > seq => Err(Conflict),
        (Some(held), Some(_)) => Ok(Some(held)),
        _ => Ok(None),
    }
}

const fn search_query(method: MethodName) -> SearchQuery {
    match method {
        MethodName::FindNode => SearchQuery::FindNode,
        MethodName::Get | MethodName::Put => SearchQuery::Get,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_asked_to_replace_the_item_that_it_holds() {
        assert_eq!(expected_seq(None, 9, Some(5)), Ok(None));
        assert_eq!(expected_seq(Some(5), 9, Some(5)), Ok(Some(5)));
        assert_eq!(expected_seq(Some(3), 9, Some(5)), Ok(Some(3)));
        assert_eq!(expected_seq(Some(7), 9, Some(5)), Err(Conflict));
        assert_eq!(expected_seq(Some(9), 9, Some(5)), Ok(Some(9)), "stored before");
        assert_eq!(expected_seq(Some(7), 9, None), Ok(None));
        assert_eq!(expected_seq(Some(10), 9, None), Err(Conflict));
    }
}
