//! The client: wires lookups, nodes, transactions and votes.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use partyline_timing::TokenBucket;
use partyline_wire::krpc::{Body, Contact, KrpcError, Message, Method, NodeId, Put, Query, Response, Want};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use tracing::{debug, trace};

use crate::{
    address::{AddressPolicy, canonical},
    config::{Config, Families, Family},
    counters::{Counters, Drop, MethodCounters},
    event::{Event, LookupId, Outcome, Reflexive, Transmit},
    health::Health,
    item::{Item, target},
    lookup::{Ask, Carried, Lookup, Purpose, Received, Stage},
    nodes::NodeTable,
    round::Round,
    search::Search,
    secure_id::{is_secure, random_id, secure_id},
    storage::RecentTargets,
    transactions::{MethodName, Overdue, Transaction, Transactions},
    votes::Votes,
};

/// The number of lookups at once. A further one ends at once.
const MAX_LOOKUPS: usize = 64;
/// The nodes that a poll asks.
const POLLED: usize = 4;
/// The nodes whose votes it takes until an address counts as this computer's.
const MIN_VOTES: usize = 3;

/// A client of the BitTorrent DHT in both address families. See the [crate].
#[derive(Debug)]
pub struct Dht {
    policy: AddressPolicy,
    families: Families,
    rng: ChaCha12Rng,
    /// The time of the last input.
    now: Option<Instant>,
    /// The ids of this client's `get` queries, one for each family.
    ids: [NodeId; 2],
    nodes: NodeTable,
    recent: RecentTargets,
    transactions: Transactions,
    health: Health,
    votes: [Votes; 2],
    /// The results of the votes that were last reported.
    reported: [Option<Reflexive>; 2],
    lookups: BTreeMap<LookupId, Lookup>,
    started: u64,
    /// The lookup whose turn it is to send.
    turn: LookupId,
    bucket: TokenBucket,
    /// When the next datagram may be sent, if one waits.
    blocked_until: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Dht {
    /// Returns a client that knows no nodes and sends nothing until something is asked for. It uses IPv4 until
    /// [`Self::set_families`] says otherwise.
    #[must_use]
    pub fn new(seed: [u8; 32], config: Config) -> Self {
        let policy = AddressPolicy { allow_private: config.allow_private };
        let mut rng = ChaCha12Rng::from_seed(seed);
        Self {
            policy,
            families: Families::default(),
            now: None,
            ids: [random_id(&mut rng), random_id(&mut rng)],
            rng,
            nodes: NodeTable::new(policy),
            recent: RecentTargets::default(),
            transactions: Transactions::default(),
            health: Health::default(),
            votes: [Votes::default(), Votes::default()],
            reported: [None, None],
            lookups: BTreeMap::new(),
            started: 0,
            turn: LookupId(0),
            bucket: TokenBucket::new(config.rate),
            blocked_until: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Adds nodes to start lookups from: cached ones, those of links, and resolved bootstrap routers. Lookups under way use
    /// them as well. Addresses that must not be asked are ignored.
    pub fn add_nodes(&mut self, now: Instant, nodes: impl IntoIterator<Item = SocketAddr>) {
        self.now = Some(now);
        for node in nodes.into_iter().map(canonical) {
            if self.nodes.add(node) && self.families.carries(node) {
                self.lookups.values_mut().for_each(|lookup| lookup.add_seed(node));
            }
        }
        self.drive(now);
    }

    /// Returns nodes that have answered lately, the best first, at most 200. They are worth keeping for the next start.
    #[must_use]
    pub fn good_nodes(&self) -> Vec<SocketAddr> {
        self.nodes.good(self.now)
    }

    /// Begins to look up the item of a key and salt at the closest nodes. While no nodes are known, it ends at once.
    pub fn get(&mut self, now: Instant, key: [u8; 32], salt: Vec<u8>) -> LookupId {
        let target = target(&key, &salt);
        let stages = Family::ALL.map(|family| self.search_stage(family, target));
        self.start(now, Lookup::new(now, (key, salt, target), Purpose::Get, stages))
    }

    /// Begins to ask some of the nodes that the last lookup of the target found for items newer than `seen`. If there are
    /// none, or none answers, this is a whole lookup.
    pub fn poll_item(&mut self, now: Instant, key: [u8; 32], salt: Vec<u8>, seen: Option<i64>) -> LookupId {
        let target = target(&key, &salt);
        let known = Family::ALL.map(|family| {
            let usable = self.families.has(family);
            self.recent
                .nodes(&target, family)
                .iter()
                .filter(|_| usable)
                .map(|node| node.address)
                .collect::<Vec<_>>()
        });
        let stages = if known.iter().all(Vec::is_empty) {
            Family::ALL.map(|family| self.search_stage(family, target))
        } else {
            let both = known.iter().all(|nodes| !nodes.is_empty());
            let wanted = if both { POLLED / 2 } else { POLLED };
            known.map(|nodes| self.poll_stage(nodes, wanted))
        };
        self.start(now, Lookup::new(now, (key, salt, target), Purpose::Poll { seen }, stages))
    }

    /// Begins to store an item at the closest nodes. If `cas` is given, nodes that hold an item of a higher sequence number
    /// keep it, which the outcome counts as a conflict. Items found on the way are reported. Nothing is retried.
    pub fn put(&mut self, now: Instant, item: Item, cas: Option<i64>) -> LookupId {
        if !item.is_within_limits() {
            debug!(len = item.value.len(), reason = "too long", "item not stored");
            return self.refuse();
        }
        let (key, salt, target) = (item.key, item.salt.clone(), item.target());
        let stages = [Stage::Finished, Stage::Finished];
        let mut lookup = Lookup::new(now, (key, salt, target), Purpose::Put { item, cas }, stages);
        for family in Family::ALL {
            let usable = self.families.has(family);
            let stage = match self.recent.writable(now, &target, family).filter(|_| usable) {
                Some(nodes) => lookup.store_stage(nodes, Vec::new()),
                None => self.search_stage(family, target),
            };
            lookup.set_stage(family, stage);
        }
        self.start(now, lookup)
    }

    /// Forgets a lookup. No further event mentions it.
    pub fn cancel(&mut self, lookup: LookupId) {
        if self.lookups.remove(&lookup).is_some() {
            debug!(%lookup, "lookup cancelled");
        }
        let of_other = |event: &Event| match event {
            Event::Item { lookup: other, .. } | Event::Done { lookup: other, .. } => *other != lookup,
            Event::ReflexiveChanged | Event::Answering(_) => true,
        };
        self.events.retain(of_other);
    }

    /// Takes a datagram that starts with `d`.
    ///
    /// # Errors
    /// The reason for which it was dropped, which is counted.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) -> Result<(), Drop> {
        self.now = Some(now);
        let source = canonical(source);
        let handled = self.handle_message(now, source, bytes);
        if let Err(reason) = handled {
            self.counters.dropped.count(reason);
            trace!(%source, reason = reason.label(), "datagram dropped");
        }
        self.drive(now);
        handled
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the moment at which [`Self::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lookups = self.lookups.values().map(Lookup::deadline).min();
        [self.transactions.poll_timeout(), self.health.poll_timeout(), self.blocked_until, lookups]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        while let Some(overdue) = self.transactions.pop_overdue(now) {
            self.on_overdue(overdue);
        }
        let changed = self.health.on_timeout(now);
        self.report_health(changed);
        self.drive(now);
    }

    /// Starts over on another network: open queries are void, and votes and write tokens are forgotten. Nodes stay.
    pub fn network_changed(&mut self, now: Instant) {
        self.now = Some(now);
        debug!(lookups = self.lookups.len(), "network changed");
        self.transactions.clear();
        self.transmits.clear();
        self.health.forget_queries();
        self.recent.forget_tokens();
        // Nothing shall connect what is sent here with what was sent there.
        self.ids = [random_id(&mut self.rng), random_id(&mut self.rng)];
        self.votes.iter_mut().for_each(Votes::clear);
        self.report_reflexive();
        let mut lookups = std::mem::take(&mut self.lookups);
        for lookup in lookups.values_mut() {
            for family in lookup.restart() {
                lookup.set_stage(family, self.search_stage(family, lookup.target));
            }
        }
        self.lookups = lookups;
        self.drive(now);
    }

    /// Sets the families on which this computer can send.
    pub fn set_families(&mut self, now: Instant, families: Families) {
        self.now = Some(now);
        self.families = families;
        for family in Family::ALL.into_iter().filter(|family| !families.has(*family)) {
            self.lookups.values_mut().for_each(|lookup| lookup.set_stage(family, Stage::Finished));
        }
        self.drive(now);
    }

    /// Returns the addresses at which nodes see this computer, at most one for each family.
    #[must_use]
    pub fn reflexive(&self) -> Vec<Reflexive> {
        self.votes.iter().filter_map(Votes::result).collect()
    }

    /// Returns the counters.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Starting lookups.
impl Dht {
    fn start(&mut self, now: Instant, lookup: Lookup) -> LookupId {
        self.now = Some(now);
        if self.lookups.len() >= MAX_LOOKUPS {
            debug!(target = %lookup.target, reason = "too many", "lookup refused");
            return self.refuse();
        }
        let id = self.next_id();
        debug!(lookup = %id, target = %lookup.target, purpose = lookup.purpose.label(), "lookup started");
        self.lookups.insert(id, lookup);
        self.drive(now);
        id
    }

    /// Returns the id of a lookup that ends at once.
    fn refuse(&mut self) -> LookupId {
        let lookup = self.next_id();
        self.events.push_back(Event::Done { lookup, outcome: Outcome::default() });
        lookup
    }

    const fn next_id(&mut self) -> LookupId {
        self.started += 1;
        LookupId(self.started)
    }

    fn search_stage(&mut self, family: Family, target: NodeId) -> Stage {
        if !self.families.has(family) {
            return Stage::Finished;
        }
        let start = self.nodes.start(family, &target, &mut self.rng);
        let mut search = Search::new(target, self.policy, start);
        // The nodes that the last search found are the best to start with.
        for node in self.recent.nodes(&target, family) {
            search.add_contact(Contact { id: node.id, address: node.address }, None);
        }
        Stage::Search(search)
    }

    fn poll_stage(&mut self, mut nodes: Vec<SocketAddr>, wanted: usize) -> Stage {
        if nodes.is_empty() {
            return Stage::Finished;
        }
        nodes.sort_by_cached_key(|_| self.rng.next_u32());
        Stage::Poll(Round::new(nodes.into_iter().map(|node| (node, ())), wanted))
    }
}

/// Receiving.
impl Dht {
    fn handle_message(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) -> Result<(), Drop> {
        let message = Message::decode(bytes).map_err(|_: KrpcError| Drop::Malformed)?;
        if matches!(message.body, Body::Query(_)) {
            return Err(Drop::Query);
        }
        let (transaction, rtt) = self.transactions.end(now, source, message.transaction)?;
        trace!(%source, method = ?transaction.method, ?rtt, "response");
        let changed = self.health.on_response(now);
        self.report_health(changed);
        self.count_vote(source, message.ip);
        match message.body {
            Body::Response(response) => {
                increment(&mut self.counters.responses, transaction.method);
                self.nodes.on_response(now, source, response.id, rtt);
                self.on_response(now, transaction, response);
            }
            Body::Error { code } => {
                increment(&mut self.counters.errors, transaction.method);
                debug!(%source, method = ?transaction.method, code, "query refused");
                if let Some(lookup) = self.lookups.get_mut(&transaction.lookup) {
                    lookup.on_error((transaction.method, source), code, &mut self.recent);
                }
            }
            Body::Query(_) => {}
        }
        Ok(())
    }

    fn on_response(&mut self, now: Instant, transaction: Transaction, response: Response<'_>) {
        let Transaction { destination: source, method, lookup: id, .. } = transaction;
        let contacts = response.contacts.iter().filter(|contact| self.may_ask(contact.address)).collect();
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let received = Received { at: now, source, method, response, contacts };
        match lookup.on_response(received, &mut self.recent) {
            Carried::New(item) => {
                debug!(lookup = %id, seq = item.seq, len = item.value.len(), "item found");
                self.events.push_back(Event::Item { lookup: id, item });
            }
            Carried::Invalid => {
                self.counters.invalid_items = self.counters.invalid_items.saturating_add(1);
                debug!(lookup = %id, %source, "invalid item");
            }
            Carried::Known(_) | Carried::Nothing => {}
        }
    }

    /// Returns true if a node that another one named may be asked. Some name this computer itself.
    fn may_ask(&self, address: SocketAddr) -> bool {
        let own = self.reported.iter().flatten().any(|reflexive| reflexive.address == address);
        self.policy.permits_learned(address) && self.families.carries(address) && !own
    }

    fn on_overdue(&mut self, overdue: Overdue) {
        match overdue {
            Overdue::PassOver(transaction) => {
                if let Some(lookup) = self.lookups.get_mut(&transaction.lookup) {
                    lookup.pass_over(transaction.method, transaction.destination);
                }
            }
            Overdue::TimedOut(transaction) => self.on_timed_out(transaction),
        }
    }

    fn on_timed_out(&mut self, transaction: Transaction) {
        let Transaction { destination: node, method, lookup: id, sent_at, .. } = transaction;
        increment(&mut self.counters.timeouts, method);
        trace!(%node, ?method, "query timed out");
        // Where nothing answers, it is the network that fails and not its nodes.
        let at_fault = self.health.has_answered_since(sent_at);
        if at_fault {
            self.nodes.on_failure(node);
        }
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.on_timeout(method, node);
            if at_fault {
                self.recent.remove(&lookup.target, node);
            }
        }
    }

    fn count_vote(&mut self, source: SocketAddr, reported: Option<SocketAddr>) {
        let family = Family::of(source);
        let usable =
            |reported: &SocketAddr| Family::of(*reported) == family && self.policy.permits(*reported);
        if let Some(reported) = reported.map(canonical).filter(usable) {
            self.votes[family.index()].add(self.policy.voter(source), reported);
            self.report_reflexive();
        }
    }

    fn report_reflexive(&mut self) {
        let results = [self.votes[0].result(), self.votes[1].result()];
        // Further votes for the same make no difference.
        let essence = |result: &Option<Reflexive>| {
            result.map(|result| (result.address, result.port_varies, result.votes.min(MIN_VOTES)))
        };
        if results.each_ref().map(essence) == self.reported.each_ref().map(essence) {
            return;
        }
        debug!(v4 = ?results[0], v6 = ?results[1], "reflexive address changed");
        self.reported = results;
        self.events.push_back(Event::ReflexiveChanged);
        for (id, result) in self.ids.iter_mut().zip(results) {
            if let Some(result) = result.filter(|result| result.votes >= MIN_VOTES)
                && !is_secure(id, result.address.ip())
            {
                *id = secure_id(result.address.ip(), &mut self.rng);
            }
        }
    }

    fn report_health(&mut self, changed: Option<bool>) {
        if let Some(answering) = changed {
            debug!(answering, "DHT");
            self.events.push_back(Event::Answering(answering));
        }
    }
}

/// Sending.
impl Dht {
    /// Sends what lookups want and moves them on, until nothing changes.
    fn drive(&mut self, now: Instant) {
        loop {
            self.send_queries(now);
            if !self.advance(now) {
                return;
            }
        }
    }

    fn send_queries(&mut self, now: Instant) {
        loop {
            self.blocked_until = None;
            if self.bucket.available(now) == 0 {
                self.blocked_until = (!self.lookups.is_empty()).then(|| self.bucket.next_free(now, 1));
                return;
            }
            let Some((lookup, destination, ask)) = self.next_query() else { return };
            self.bucket.take(now, 1);
            self.send(now, lookup, destination, &ask);
        }
    }

    /// Returns the next query; lookups take turns.
    fn next_query(&mut self) -> Option<(LookupId, SocketAddr, Ask)> {
        let turn = self.turn;
        let mut wrapped = self.lookups.range_mut(turn..);
        let found = wrapped.find_map(|(id, lookup)| lookup.next().map(|query| (*id, query)));
        let found = found.or_else(|| {
            self.lookups.range_mut(..turn).find_map(|(id, lookup)| lookup.next().map(|query| (*id, query)))
        });
        let (id, (destination, ask)) = found?;
        self.turn = LookupId(id.0 + 1);
        Some((id, destination, ask))
    }

    fn send(&mut self, now: Instant, id: LookupId, destination: SocketAddr, ask: &Ask) {
        let method = ask.method();
        let transaction = self.transactions.begin(now, (destination, id, method), &mut self.rng);
        let Some(bytes) = self.encode(&transaction, id, destination, ask) else { return };
        increment(&mut self.counters.queries, method);
        trace!(lookup = %id, %destination, ?method, "query");
        self.health.on_query(now, destination);
        self.transmits.push_back(Transmit { destination, bytes });
    }

    fn encode(
        &mut self,
        transaction: &[u8],
        id: LookupId,
        destination: SocketAddr,
        ask: &Ask,
    ) -> Option<Vec<u8>> {
        let family = Family::of(destination);
        let put_id = self.put_id(family);
        let want = self.want(family);
        let lookup = self.lookups.get(&id)?;
        let target = lookup.target;
        let (id, method) = match ask {
            Ask::FindNode => (self.ids[family.index()], Method::FindNode { target, want }),
            Ask::Get { seq } => (self.ids[family.index()], Method::Get { target, seq: *seq, want }),
            Ask::Put { token, cas } => {
                let Purpose::Put { item, .. } = &lookup.purpose else { return None };
                (put_id, Method::Put(put(item, target, token, *cas)))
            }
        };
        let query = Query { id, read_only: true, method };
        Some(Message { transaction, ip: None, body: Body::Query(query) }.encode())
    }

    /// Returns a new id for a `put` query. libtorrent takes those that put into its routing table whatever they say (BEP 43);
    /// an id that never returns is soon forgotten there.
    fn put_id(&mut self, family: Family) -> NodeId {
        let own = self.reported[family.index()].filter(|reflexive| reflexive.votes >= MIN_VOTES);
        match own {
            Some(reflexive) => secure_id(reflexive.address.ip(), &mut self.rng),
            None => random_id(&mut self.rng),
        }
    }

    /// Nodes are asked for those of the other family as long as few of it are known.
    fn want(&self, family: Family) -> Want {
        let other = family.other();
        let both = self.families.has(other) && self.nodes.is_short_of(other);
        Want { n4: both, n6: both }
    }

    /// Moves lookups on, and returns true if any of them may want to send now.
    fn advance(&mut self, now: Instant) -> bool {
        let mut moved = false;
        let ids: Vec<LookupId> = self.lookups.keys().copied().collect();
        for id in ids {
            let Some(mut lookup) = self.lookups.remove(&id) else { continue };
            moved |= lookup.advance(now, &mut self.recent);
            if lookup.is_done() && lookup.falls_back() {
                debug!(lookup = %id, reason = "no node answered", "poll becomes a search");
                let target = lookup.target;
                for family in Family::ALL {
                    lookup.set_stage(family, self.search_stage(family, target));
                }
                moved = true;
            }
            if lookup.is_done() {
                self.finish(now, id, &lookup);
            } else {
                self.lookups.insert(id, lookup);
            }
        }
        moved
    }

    fn finish(&mut self, now: Instant, id: LookupId, lookup: &Lookup) {
        let outcome = lookup.outcome(now);
        let purpose = lookup.purpose.label();
        debug!(lookup = %id, purpose, ?outcome, "lookup done");
        let counter = match (&lookup.purpose, outcome) {
            (Purpose::Put { .. }, Outcome { stored: 0, .. }) => &mut self.counters.lookups.not_stored,
            (Purpose::Put { .. }, _) => &mut self.counters.lookups.stored,
            (_, Outcome { answered: 0, .. }) => &mut self.counters.lookups.unanswered,
            _ => &mut self.counters.lookups.answered,
        };
        *counter = counter.saturating_add(1);
        self.events.push_back(Event::Done { lookup: id, outcome });
    }
}

fn put<'a>(item: &'a Item, target: NodeId, token: &'a [u8], cas: Option<i64>) -> Put<'a> {
    Put {
        target: Some(target),
        token,
        key: &item.key,
        salt: &item.salt,
        seq: item.seq,
        cas,
        signature: &item.signature,
        value: &item.value,
    }
}

const fn increment(counters: &mut MethodCounters, method: MethodName) {
    let counter = match method {
        MethodName::FindNode => &mut counters.find_node,
        MethodName::Get => &mut counters.get,
        MethodName::Put => &mut counters.put,
    };
    *counter = counter.saturating_add(1);
}
