//! The whole client against scripted nodes. Lookups in large networks are tested in `tests/network.rs`.

use std::{net::SocketAddr, time::Duration};

use partyline_wire::krpc::{
    Body, Contact, Contacts, Message, Method, NodeId, Query, Response, compact_contacts, error_code,
};

use super::*;

const CONFIG: Config = Config { allow_private: false, rate: DEFAULT_RATE };
const DEFAULT_RATE: Rate = Rate::per_second(64, 64);
const OWN: &str = "203.0.113.1:5000";

#[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([11, number, 0, 1], 6881))
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn item(seq: i64, value: &[u8]) -> Item {
    Item::sign(&key(), b"salt".to_vec(), seq, value.to_vec())
}

/// A node that stores one item.
#[derive(Clone, Default)]
struct Node {
    item: Option<Item>,
    /// Every `cas` that it was sent.
    cas: Vec<Option<i64>>,
    error: Option<i64>,
}

/// A client and the nodes 1 to 8, which know each other.
struct Lab {
    now: std::time::Instant,
    dht: Dht,
    nodes: Vec<Node>,
    queries: Vec<(u8, Vec<u8>)>,
    events: Vec<Event>,
    port: fn(u8) -> u16,
}

impl Lab {
    fn new() -> Self {
        let now = start();
        let mut dht = Dht::new([3; 32], CONFIG);
        dht.add_nodes(now, [address(1)]);
        let nodes = vec![Node::default(); 8];
        Self { now, dht, nodes, queries: Vec::new(), events: Vec::new(), port: |_| 5000 }
    }

    /// Carries queries to the nodes and their responses back, until the client has nothing to send.
    fn run(&mut self) {
        while let Some(transmit) = self.dht.poll_transmit() {
            let number = (1..=8).find(|number| address(*number) == transmit.destination).unwrap();
            self.queries.push((number, transmit.bytes.clone()));
            let response = self.respond(number, &transmit.bytes);
            self.now += Duration::from_millis(5);
            self.dht.handle_datagram(self.now, transmit.destination, &response).unwrap();
        }
        self.events.extend(std::iter::from_fn(|| self.dht.poll_event()));
    }

    fn respond(&mut self, number: u8, query: &[u8]) -> Vec<u8> {
        let message = Message::decode(query).unwrap();
        let Body::Query(Query { method, read_only: true, .. }) = message.body else { panic!("{message:?}") };
        let contacts: Vec<_> =
            (1..=8).map(|number| Contact { id: id(number), address: address(number) }).collect();
        let contacts = compact_contacts(&contacts, false);
        let node = &mut self.nodes[usize::from(number) - 1];
        let held = node.item.clone();
        let mut response = Response {
            contacts: Contacts { nodes: Some(&contacts), nodes6: None },
            token: Some(b"token"),
            ..Response::new(id(number))
        };
        let mut ip: SocketAddr = OWN.parse().unwrap();
        ip.set_port((self.port)(number));
        let body =
            |response| Message { transaction: message.transaction, ip: Some(ip), body: response }.encode();
        match method {
            Method::Put(put) => {
                node.cas.push(put.cas);
                let conflict = held.as_ref().is_some_and(|held| put.cas.is_some_and(|cas| cas != held.seq));
                if let Some(code) = node.error.or(conflict.then_some(error_code::CAS_MISMATCH)) {
                    return body(Body::Error { code });
                }
                node.item = Some(Item {
                    key: *put.key,
                    salt: put.salt.to_vec(),
                    seq: put.seq,
                    value: put.value.to_vec(),
                    signature: *put.signature,
                });
            }
            Method::Get { seq, .. } => {
                if let Some(held) = held.as_ref().filter(|held| seq.is_none_or(|seq| held.seq > seq)) {
                    response.key = Some(&held.key);
                    response.signature = Some(&held.signature);
                    response.value = Some(&held.value);
                    response.seq = Some(held.seq);
                    return body(Body::Response(response));
                }
            }
            _ => response.token = None,
        }
        body(Body::Response(response))
    }

    fn outcome(&self, lookup: LookupId) -> Outcome {
        let mut outcomes = self.events.iter().filter_map(|event| match event {
            Event::Done { lookup: done, outcome } if *done == lookup => Some(*outcome),
            _ => None,
        });
        outcomes.next_back().unwrap()
    }

    fn items(&self, lookup: LookupId) -> Vec<&Item> {
        let items = self.events.iter().filter_map(|event| match event {
            Event::Item { lookup: of, item } if *of == lookup => Some(item),
            _ => None,
        });
        items.collect()
    }

    fn put(&mut self, item: Item, cas: Option<i64>) -> Outcome {
        let lookup = self.dht.put(self.now, item, cas);
        self.run();
        self.outcome(lookup)
    }

    fn get(&mut self) -> LookupId {
        let Item { key, salt, .. } = item(0, b"");
        let lookup = self.dht.get(self.now, key, salt);
        self.run();
        lookup
    }
}

fn id(number: u8) -> NodeId {
    NodeId([number; 20])
}

#[test]
fn nothing_is_sent_until_something_is_asked_for() {
    let mut lab = Lab::new();
    lab.dht.handle_timeout(lab.now + Duration::from_secs(3600));
    assert_eq!((lab.dht.poll_transmit(), lab.dht.poll_event(), lab.dht.poll_timeout()), (None, None, None));
}

#[test]
fn item_that_was_stored_is_found_once() {
    let mut lab = Lab::new();
    let stored = lab.put(item(5, b"value"), None);
    assert_eq!((stored.stored, stored.conflicts, stored.refused), (8, 0, 0));
    let lookup = lab.get();
    assert_eq!(lab.items(lookup), [&item(5, b"value")]);
    let outcome = lab.outcome(lookup);
    assert_eq!((outcome.asked, outcome.answered, outcome.items), (8, 8, 1));
}

#[test]
fn every_distinct_item_is_reported_and_forged_ones_are_not() {
    let mut lab = Lab::new();
    let forged = Item { value: b"forged".to_vec(), ..item(9, b"c") };
    let foreign = Item::sign(&SigningKey::from_bytes(&[8; 32]), b"salt".to_vec(), 9, vec![]);
    for (number, item) in
        [item(5, b"a"), item(5, b"b"), item(4, b"a"), forged, foreign].into_iter().enumerate()
    {
        lab.nodes[number].item = Some(item);
    }
    let lookup = lab.get();
    let mut found: Vec<_> = lab.items(lookup).iter().map(|item| (item.seq, item.value.clone())).collect();
    found.sort();
    assert_eq!(found, [(4, b"a".to_vec()), (5, b"a".to_vec()), (5, b"b".to_vec())]);
    assert_eq!(lab.dht.counters().invalid_items, 1);
}

#[test]
fn fresh_tokens_are_used_without_a_search() {
    let mut lab = Lab::new();
    lab.get();
    let before = lab.queries.len();
    lab.put(item(5, b"value"), None);
    assert_eq!(lab.queries.len() - before, 8);
    lab.now += Duration::from_secs(5 * 60);
    let before = lab.queries.len();
    lab.put(item(6, b"value"), Some(5));
    assert_eq!(lab.queries.len() - before, 16, "tokens are too old");
}

#[test]
fn cas_of_each_node_is_what_the_node_holds() {
    let mut lab = Lab::new();
    lab.nodes[0].item = Some(item(5, b"old"));
    lab.nodes[1].item = Some(item(3, b"older"));
    let outcome = lab.put(item(9, b"new"), Some(5));
    assert_eq!((outcome.stored, outcome.conflicts), (8, 0));
    assert_eq!((&lab.nodes[0].cas[..], &lab.nodes[1].cas[..]), (&[Some(5)][..], &[Some(3)][..]));
    assert_eq!(lab.nodes[2].cas, [None], "it held nothing");
}

#[test]
fn newer_items_are_conflicts_and_stay() {
    let mut lab = Lab::new();
    lab.nodes[0].item = Some(item(7, b"newer"));
    let lookup = lab.dht.put(lab.now, item(9, b"new"), Some(5));
    lab.run();
    let outcome = lab.outcome(lookup);
    assert_eq!((outcome.stored, outcome.conflicts), (7, 1));
    assert_eq!(lab.items(lookup), [&item(7, b"newer")], "the caller learns of what it is to merge");
    assert_eq!(lab.nodes[0].cas, []);
}

#[test]
fn racing_write_is_a_conflict() {
    let mut lab = Lab::new();
    lab.put(item(5, b"first"), None);
    lab.nodes[3].item = Some(item(6, b"raced"));
    let outcome = lab.put(item(7, b"second"), Some(5));
    assert_eq!((outcome.stored, outcome.conflicts), (7, 1));
}

#[test]
fn refusals_are_no_conflicts() {
    let mut lab = Lab::new();
    lab.nodes[4].error = Some(error_code::PROTOCOL);
    let outcome = lab.put(item(5, b"value"), None);
    assert_eq!((outcome.stored, outcome.conflicts, outcome.refused), (7, 0, 1));
}

#[test]
fn every_put_has_a_target_and_an_id_of_its_own() {
    let mut lab = Lab::new();
    lab.put(item(5, b"value"), None);
    let mut ids = std::collections::BTreeSet::new();
    for (_, bytes) in &lab.queries {
        let Body::Query(query) = Message::decode(bytes).unwrap().body else { panic!() };
        if let Method::Put(put) = query.method {
            assert_eq!(put.target, Some(item(5, b"value").target()));
            ids.insert(query.id);
        }
    }
    assert_eq!(ids.len(), 8);
}

#[test]
fn poll_asks_four_nodes_for_newer_items() {
    let mut lab = Lab::new();
    lab.put(item(5, b"value"), None);
    let Item { key, salt, .. } = item(0, b"");
    let poll = |lab: &mut Lab, seen| {
        let lookup = lab.dht.poll_item(lab.now, key, salt.clone(), seen);
        lab.run();
        lookup
    };
    let lookup = poll(&mut lab, Some(5));
    assert_eq!((lab.outcome(lookup).asked, lab.items(lookup).len()), (4, 0));
    lab.nodes.iter_mut().for_each(|node| node.item = Some(item(6, b"newer")));
    let lookup = poll(&mut lab, Some(5));
    assert_eq!((lab.outcome(lookup).asked, lab.items(lookup)), (4, vec![&item(6, b"newer")]));
}

#[test]
fn poll_without_known_nodes_is_a_whole_lookup() {
    let mut lab = Lab::new();
    lab.nodes[7].item = Some(item(6, b"value"));
    let Item { key, salt, .. } = item(0, b"");
    let lookup = lab.dht.poll_item(lab.now, key, salt, None);
    lab.run();
    assert_eq!(lab.items(lookup), [&item(6, b"value")]);
}

#[test]
fn poll_that_no_node_answers_becomes_a_whole_lookup() {
    let mut lab = Lab::new();
    lab.put(item(5, b"value"), None);
    let Item { key, salt, .. } = item(0, b"");
    let lookup = lab.dht.poll_item(lab.now, key, salt, None);
    for _ in 0..8 {
        while lab.dht.poll_transmit().is_some() {}
        lab.now += Duration::from_millis(900);
        lab.dht.handle_timeout(lab.now);
        if lab.dht.counters().timeouts.get >= 8 {
            break;
        }
    }
    lab.run();
    assert!(lab.outcome(lookup).asked > 12);
    assert_eq!(lab.items(lookup).len(), 1);
}

#[test]
fn cancelled_lookup_is_never_heard_of_again() {
    let mut lab = Lab::new();
    let Item { key, salt, .. } = item(0, b"");
    let lookup = lab.dht.get(lab.now, key, salt);
    lab.dht.cancel(lookup);
    lab.run();
    assert!(lab.events.iter().all(|event| !matches!(event, Event::Done { .. })), "{:?}", lab.events);
}

#[test]
fn item_that_is_too_long_ends_at_once() {
    let mut lab = Lab::new();
    let lookup = lab.dht.put(lab.now, item(1, &[0; 1000]), None);
    lab.run();
    assert_eq!((lab.outcome(lookup), lab.queries.len()), (Outcome::default(), 0));
}

#[test]
fn lookups_are_limited() {
    let mut lab = Lab::new();
    let lookups: Vec<_> = (0..70).map(|salt| lab.dht.get(lab.now, [1; 32], vec![salt])).collect();
    let done: Vec<_> = std::iter::from_fn(|| lab.dht.poll_event()).collect();
    assert_eq!(done.len(), 6);
    assert_eq!(done[0], Event::Done { lookup: lookups[64], outcome: Outcome::default() });
}

#[test]
fn rate_is_kept_and_lookups_take_turns() {
    let mut lab = Lab::new();
    lab.dht = Dht::new([3; 32], Config { rate: Rate::per_second(10, 4), ..CONFIG });
    lab.dht.add_nodes(lab.now, (1..=8).map(address));
    let lookups: Vec<_> = (0..2).map(|salt| lab.dht.get(lab.now, [1; 32], vec![salt])).collect();
    let sent = |dht: &mut Dht| std::iter::from_fn(|| dht.poll_transmit()).count();
    assert_eq!(sent(&mut lab.dht), 4);
    for _ in 0..4 {
        let next = lab.dht.poll_timeout().unwrap();
        assert_eq!(next - lab.now, Duration::from_millis(100));
        lab.now = next;
        lab.dht.handle_timeout(next);
        assert_eq!(sent(&mut lab.dht), 1);
    }
    lookups.iter().for_each(|lookup| lab.dht.cancel(*lookup));
}

#[test]
fn datagrams_are_dropped_for_a_reason_that_is_counted() {
    let mut lab = Lab::new();
    let Item { key, salt, .. } = item(0, b"");
    lab.dht.get(lab.now, key, salt);
    let query = lab.dht.poll_transmit().unwrap();
    let response = lab.respond(1, &query.bytes);
    let mut handle = |source, bytes: &[u8]| lab.dht.handle_datagram(lab.now, source, bytes);
    assert_eq!(handle(address(1), b"d1:ye"), Err(Drop::Malformed));
    assert_eq!(handle(address(1), &query.bytes), Err(Drop::Query));
    assert_eq!(handle(address(2), &response), Err(Drop::WrongSource));
    assert_eq!(handle(address(1), &response), Ok(()));
    assert_eq!(handle(address(1), &response), Err(Drop::UnknownTransaction));
    assert_eq!(lab.dht.counters().dropped.each().map(|(_, count)| count).collect::<Vec<_>>(), [1; 4]);
}

#[test]
fn mapped_source_address_is_the_same_node() {
    let mut lab = Lab::new();
    let Item { key, salt, .. } = item(0, b"");
    lab.dht.get(lab.now, key, salt);
    let query = lab.dht.poll_transmit().unwrap();
    let response = lab.respond(1, &query.bytes);
    let mapped: SocketAddr = "[::ffff:11.1.0.1]:6881".parse().unwrap();
    assert_eq!(lab.dht.handle_datagram(lab.now, mapped, &response), Ok(()));
}

#[test]
fn reflexive_address_follows_from_the_votes_of_nodes() {
    let mut lab = Lab::new();
    lab.get();
    let expected = Reflexive { address: OWN.parse().unwrap(), votes: 8, port_varies: false };
    assert_eq!(lab.dht.reflexive(), [expected]);
    assert!(lab.events.contains(&Event::ReflexiveChanged));

    let mut lab = Lab::new();
    lab.port = |number| 5000 + u16::from(number);
    lab.get();
    assert!(lab.dht.reflexive()[0].port_varies);
}

#[test]
fn id_follows_from_the_reflexive_address() {
    let mut lab = Lab::new();
    lab.get();
    lab.queries.clear();
    lab.get();
    for (_, bytes) in &lab.queries {
        let Body::Query(query) = Message::decode(bytes).unwrap().body else { panic!() };
        assert!(secure_id::is_secure(&query.id, "203.0.113.1".parse().unwrap()));
    }
}

#[test]
fn nodes_that_answer_are_good() {
    let mut lab = Lab::new();
    assert_eq!(lab.dht.good_nodes(), []);
    lab.get();
    let mut good = lab.dht.good_nodes();
    good.sort();
    assert_eq!(good, (1..=8).map(address).collect::<Vec<_>>());
}

#[test]
fn change_of_network_voids_queries_votes_and_tokens() {
    let mut lab = Lab::new();
    lab.get();
    let lookup = lab.get();
    let second = lab.dht.put(lab.now, item(5, b"value"), None);
    while lab.dht.poll_transmit().is_some() {}
    lab.dht.network_changed(lab.now);
    assert_eq!(lab.dht.reflexive(), []);
    lab.queries.clear();
    lab.run();
    assert_eq!(lab.outcome(second).stored, 8);
    assert_eq!(lab.queries.len(), 16, "new tokens were asked for");
    assert_eq!(lab.outcome(lookup).answered, 8);
}

#[test]
fn silence_is_reported_and_nodes_stay() {
    let mut lab = Lab::new();
    lab.get();
    let good = lab.dht.good_nodes();
    let Item { key, salt, .. } = item(0, b"");
    lab.dht.get(lab.now, key, salt);
    while let Some(timeout) = lab.dht.poll_timeout() {
        while lab.dht.poll_transmit().is_some() {}
        lab.dht.handle_timeout(timeout);
    }
    let events: Vec<_> = std::iter::from_fn(|| lab.dht.poll_event()).collect();
    assert!(events.contains(&Event::Answering(false)), "{events:?}");
    assert!(lab.events.contains(&Event::Answering(true)));
    let mut still = lab.dht.good_nodes();
    still.sort();
    let mut good = good;
    good.sort();
    assert_eq!(still, good);
}

#[test]
fn family_that_cannot_send_is_not_asked() {
    let mut lab = Lab::new();
    let node: SocketAddr = "[2a00:1::1]:6881".parse().unwrap();
    lab.dht = Dht::new([3; 32], CONFIG);
    lab.dht.add_nodes(lab.now, [node]);
    let Item { key, salt, .. } = item(0, b"");
    lab.dht.get(lab.now, key, salt.clone());
    assert_eq!(lab.dht.poll_transmit(), None);
    lab.dht.set_families(lab.now, Families { v4: false, v6: true });
    lab.dht.get(lab.now, key, salt);
    assert_eq!(lab.dht.poll_transmit().map(|transmit| transmit.destination), Some(node));
    lab.dht.set_families(lab.now, Families { v4: false, v6: false });
    let done =
        std::iter::from_fn(|| lab.dht.poll_event()).filter(|event| matches!(event, Event::Done { .. }));
    assert_eq!(done.count(), 2);
}

#[test]
fn nodes_of_the_other_family_are_learned_and_asked() {
    let mut lab = Lab::new();
    lab.dht.set_families(lab.now, Families { v4: true, v6: true });
    let Item { key, salt, .. } = item(0, b"");
    let lookup = lab.dht.get(lab.now, key, salt);
    let node = Contact { id: id(9), address: "[2a00:1::1]:6881".parse().unwrap() };
    let nodes6 = compact_contacts(&[node], true);
    let mut asked = Vec::new();
    while let Some(query) = lab.dht.poll_transmit() {
        let message = Message::decode(&query.bytes).unwrap();
        let Body::Query(Query { method, .. }) = message.body else { panic!("{message:?}") };
        let (Method::FindNode { want, .. } | Method::Get { want, .. }) = method else { panic!("{method:?}") };
        assert!(want.n4 && want.n6);
        let response = Response {
            contacts: Contacts { nodes: None, nodes6: Some(&nodes6) },
            ..Response::new(if query.destination.is_ipv6() { id(9) } else { id(1) })
        };
        let response = Message { ip: None, body: Body::Response(response), ..message }.encode();
        lab.dht.handle_datagram(lab.now, query.destination, &response).unwrap();
        asked.push(query.destination);
    }
    assert_eq!(asked, [address(1), address(1), node.address], "find_node, and get of both");
    lab.run();
    assert_eq!(lab.outcome(lookup).answered, 3);
}

#[test]
fn node_added_later_is_used_by_a_lookup_under_way() {
    let mut lab = Lab::new();
    let Item { key, salt, .. } = item(0, b"");
    lab.dht.get(lab.now, key, salt);
    lab.dht.add_nodes(lab.now, [address(2), "0.0.0.0:1".parse().unwrap()]);
    let destinations: Vec<_> =
        std::iter::from_fn(|| lab.dht.poll_transmit()).map(|t| t.destination).collect();
    assert_eq!(destinations, [address(1), address(2)]);
}
