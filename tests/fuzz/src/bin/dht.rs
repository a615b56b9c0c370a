//! A DHT client whose queries are answered by hostile nodes, at any time and in any order.
#![no_main]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use partyline_dht::{Config, Dht, Families, Item, SigningKey, Transmit};
use partyline_fuzz::pieces;
use partyline_wire::krpc::Message;

/// Datagrams and queries of one input that are kept for later responses.
const MAX_OPEN: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::now();
    let mut dht = Dht::new([7; 32], Config { allow_private: true, ..Config::default() });
    dht.set_families(now, Families { v4: true, v6: true });
    dht.add_nodes(now, (1..=6).map(node));
    let item = Item::sign(&SigningKey::from_bytes(&[1; 32]), b"salt".to_vec(), 5, vec![7; 40]);
    let mut open: Vec<Transmit> = Vec::new();
    for (kind, message) in pieces(bytes) {
        match kind >> 4 {
            0 => drop(dht.get(now, item.key, item.salt.clone())),
            1 => drop(dht.poll_item(now, item.key, item.salt.clone(), Some(i64::from(kind)))),
            2 => drop(dht.put(now, item.clone(), (kind & 1 == 1).then_some(4))),
            3 => dht.network_changed(now),
            4 => dht.set_families(now, Families { v4: kind & 1 == 1, v6: kind & 2 == 2 }),
            5 => dht.add_nodes(now, [node(kind)]),
            6 => now += Duration::from_millis(200 * u64::from(kind & 15)),
            7 => drop(dht.handle_datagram(now, node(kind), message)),
            _ => respond(&mut dht, now, &open, kind, message),
        }
        if dht.poll_timeout().is_some_and(|timeout| timeout <= now) {
            dht.handle_timeout(now);
        }
        open.extend(std::iter::from_fn(|| dht.poll_transmit()));
        open.drain(..open.len().saturating_sub(MAX_OPEN));
        while dht.poll_event().is_some() {}
    }
    assert!(dht.good_nodes().len() <= 200);
    // Whatever was said, everything ends.
    for _ in 0..10_000 {
        let Some(timeout) = dht.poll_timeout() else { return };
        now = now.max(timeout);
        dht.handle_timeout(now);
        while dht.poll_transmit().is_some() {}
    }
    panic!("the client never comes to rest");
});

/// Answers one of the last queries: with the message as the rest of a response that has the right transaction id, so that the
/// fuzzer need not guess it.
fn respond(dht: &mut Dht, now: Instant, open: &[Transmit], kind: u8, message: &[u8]) {
    let Some(query) = open.iter().rev().nth(usize::from(kind & 15)) else { return };
    let Ok(asked) = Message::decode(&query.bytes) else { return };
    let body: &[u8] = if kind & 0x40 == 0 { b"1:y1:r1:r" } else { b"1:y1:e1:e" };
    let end: &[u8] = if kind & 0x20 == 0 { b"e" } else { b"" };
    let response = [b"d1:t4:", asked.transaction, body, message, end].concat();
    let _ = dht.handle_datagram(now, query.destination, &response);
}

fn node(number: u8) -> SocketAddr {
    if number & 1 == 0 {
        SocketAddr::from(([11, number, 0, 1], 6881))
    } else {
        SocketAddr::from(([0x2a00, u16::from(number), 0, 0, 0, 0, 0, 1], 6881))
    }
}
