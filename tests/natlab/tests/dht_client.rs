//! Our DHT client on real sockets, behind NATs, with nodes that are not ours.

#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    slice,
    time::{Duration, Instant},
};

use natlab::{
    Lab, Line, RouterOptions,
    dht::{Dht, Makeup},
};
use partyline_dht::{Config, Event, Item, LookupId, Outcome, SigningKey};

/// Number of nodes that store an item.
const COPIES: u32 = 8;

/// A client in a home of its own.
struct Client {
    socket: UdpSocket,
    dht: partyline_dht::Dht,
    public: Ipv4Addr,
}

impl Client {
    /// Adds a home to the lab, whose computer knows the routers of the DHT and one other node.
    fn at_home(lab: &Lab, name: &str, options: RouterOptions, dht: &Dht<'_>) -> Self {
        let options = RouterOptions { line: Some(Line::FAR), ..options };
        let site = lab.site(name, options).unwrap();
        let socket = site.host(name).unwrap().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let mut client = Self {
            socket: socket.unwrap().unwrap(),
            dht: partyline_dht::Dht::new([name.as_bytes()[0]; 32], Config::default()),
            public: site.public_v4().unwrap(),
        };
        let known = dht.router_addresses().iter().copied().chain(dht.nodes().last());
        client.dht.add_nodes(Instant::now(), known.map(|node| (node, Dht::PORT).into()));
        client
    }

    /// Sends and receives until the lookup ends. Returns the items found and the outcome.
    fn finish(&mut self, lookup: LookupId) -> (Vec<Item>, Outcome) {
        let mut items = Vec::new();
        loop {
            while let Some(transmit) = self.dht.poll_transmit() {
                self.socket.send_to(&transmit.bytes, transmit.destination).unwrap();
            }
            while let Some(event) = self.dht.poll_event() {
                match event {
                    Event::Item { lookup: found, item } if found == lookup => items.push(item),
                    Event::Done { lookup: done, outcome } if done == lookup => return (items, outcome),
                    _ => {}
                }
            }
            self.receive();
        }
    }

    fn receive(&mut self) {
        let timeout = self.dht.poll_timeout().map_or(Duration::ZERO, |at| at - Instant::now());
        self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 2048];
        if let Ok((length, source)) = self.socket.recv_from(&mut bytes) {
            let _ = self.dht.handle_datagram(Instant::now(), source, &bytes[..length]);
        }
        self.dht.handle_timeout(Instant::now());
    }

    fn put(&mut self, item: &Item, cas: Option<i64>) -> Outcome {
        let lookup = self.dht.put(Instant::now(), item.clone(), cas);
        self.finish(lookup).1
    }

    fn get(&mut self, key: &SigningKey) -> Vec<Item> {
        let lookup = self.dht.get(Instant::now(), key.verifying_key().to_bytes(), Vec::new());
        self.finish(lookup).0
    }
}

fn item(key: &SigningKey, seq: i64, value: &str) -> Item {
    Item::sign(key, Vec::new(), seq, value.as_bytes().to_vec())
}

/// Two clients write and read one item.
fn write_and_read(lab: &Lab, dht: &Dht<'_>) -> SigningKey {
    let key = SigningKey::from_bytes(&[9; 32]);
    let [mut anna, mut ben] =
        ["anna", "ben"].map(|name| Client::at_home(lab, name, RouterOptions::HOME, dht));
    assert_eq!(anna.get(&key), []);
    let (first, second) = (item(&key, 1, "first"), item(&key, 2, "second"));

    let stored = anna.put(&first, None);
    assert!(stored.stored >= COPIES - 1, "{stored:?}");
    assert_eq!(ben.get(&key), [first]);
    let stored = ben.put(&second, Some(1));
    assert!(stored.stored >= COPIES - 1 && stored.conflicts == 0, "{stored:?}");
    let refused = anna.put(&item(&key, 2, "another"), Some(1));
    assert!(refused.stored == 0 && refused.conflicts >= COPIES - 1, "{refused:?}");
    assert_eq!(anna.get(&key), slice::from_ref(&second));

    let poll = |anna: &mut Client, seen| {
        let lookup = anna.dht.poll_item(Instant::now(), second.key, Vec::new(), Some(seen));
        anna.finish(lookup)
    };
    assert_eq!(poll(&mut anna, 1).0, slice::from_ref(&second));
    let (items, outcome) = poll(&mut anna, 2);
    assert!(items.is_empty() && outcome.answered > 0, "{items:?}, {outcome:?}");

    for client in [&anna, &ben] {
        let reflexive = client.dht.reflexive();
        let [seen] = reflexive[..] else { panic!("{reflexive:?}") };
        let port = client.socket.local_addr().unwrap().port();
        assert_eq!((seen.address.ip(), seen.address.port()), (IpAddr::V4(client.public), port));
        assert!(seen.votes >= 3 && !seen.port_varies, "{seen:?}");
    }
    key
}

#[test]
fn item_is_written_and_read_at_nodes_of_libtorrent() {
    let lab = Lab::new().unwrap();
    let dht = Dht::start(&lab, Makeup { mainline: 0, ..Makeup::USUAL }).unwrap();
    let key = write_and_read(&lab, &dht);
    let public: String = key.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let other = lab.server("other").unwrap();
    assert_eq!(dht.get(&other, &public).unwrap(), "2 b'second'\n");
}

#[test]
fn item_is_written_and_read_at_nodes_of_mainline() {
    let lab = Lab::new().unwrap();
    let dht = Dht::start(&lab, Makeup { libtorrent: 6, mainline: 30, seed: 2 }).unwrap();
    write_and_read(&lab, &dht);
}

#[test]
fn symmetric_nat_shows_by_ports_that_vary() {
    let lab = Lab::new().unwrap();
    let dht = Dht::start(&lab, Makeup { mainline: 0, ..Makeup::USUAL }).unwrap();
    let mut client = Client::at_home(&lab, "sam", RouterOptions::SYMMETRIC, &dht);
    client.get(&SigningKey::from_bytes(&[8; 32]));
    let reflexive = client.dht.reflexive();
    assert!(reflexive.iter().any(|seen| seen.port_varies), "{reflexive:?}");
}

#[test]
fn newest_item_is_read_among_hostile_nodes() {
    let lab = Lab::new().unwrap();
    let dht = Dht::start(&lab, Makeup { mainline: 0, ..Makeup::USUAL }).unwrap();
    let hostile = dht.add_hostile(16).unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let home = |name| Client::at_home(&lab, name, RouterOptions::HOME, &dht);
    let (mut anna, mut ben) = (home("anna"), home("ben"));
    anna.dht.add_nodes(Instant::now(), hostile.nodes().iter().map(|node| (*node, Dht::PORT).into()));
    for other in 100..110 {
        anna.get(&SigningKey::from_bytes(&[other; 32]));
    }
    hostile.all_asked().unwrap();
    let (first, second) = (item(&key, 1, "first"), item(&key, 2, "second"));
    assert!(anna.put(&first, None).stored > 0);
    assert!(ben.put(&second, None).stored > 0);
    let found = anna.get(&key);
    assert!(found.contains(&second), "{found:?}");
}
