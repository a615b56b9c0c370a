//! One operation of a client.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_dht::{Dht, Event, Item, LookupId, Outcome};

use super::network::DhtNetwork;

/// The address at which the nodes see the client.
const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), 5000);

/// What came of an operation.
#[derive(Debug)]
pub struct Run {
    /// What the client says.
    pub outcome: Outcome,
    /// All items that were found, each with the time at which it arrived.
    pub items: Vec<(Duration, Item)>,
    /// Datagrams sent.
    pub packets: usize,
    /// When it ended.
    pub ended_at: Instant,
}

/// Lets time pass until a lookup ends.
///
/// # Panics
/// If the client waits for nothing although its lookup has not ended.
pub fn run_lookup(network: &mut DhtNetwork, dht: &mut Dht, started_at: Instant, lookup: LookupId) -> Run {
    let mut now = started_at;
    let mut arrivals: BTreeMap<(Instant, usize), (SocketAddr, Vec<u8>)> = BTreeMap::new();
    let (mut packets, mut items) = (0, Vec::new());
    loop {
        while let Some(transmit) = dht.poll_transmit() {
            packets += 1;
            if let Some((delay, response)) = network.deliver(CLIENT, transmit.destination, &transmit.bytes) {
                arrivals.insert((now + delay, packets), (transmit.destination, response));
            }
        }
        while let Some(event) = dht.poll_event() {
            match event {
                Event::Item { lookup: of, item } if of == lookup => items.push((now - started_at, item)),
                Event::Done { lookup: done, outcome } if done == lookup => {
                    return Run { outcome, items, packets, ended_at: now };
                }
                _ => {}
            }
        }
        let timeout = dht.poll_timeout().expect("a lookup has a deadline");
        match arrivals.first_entry().filter(|arrival| arrival.key().0 <= timeout) {
            Some(arrival) => {
                let ((at, _), (source, bytes)) = arrival.remove_entry();
                now = at;
                // Garbage is dropped.
                let _ = dht.handle_datagram(now, source, &bytes);
            }
            None => {
                now = now.max(timeout);
                dht.handle_timeout(now);
            }
        }
    }
}
