//! The engine's UDP sockets: the main one, and those that the node opens by id to punch holes, to probe the NAT, or to
//! lend a second port.
//!
//! The loop itself receives on the main socket. Every other socket has a task that passes on what arrives. Hundreds
//! may be open for seconds while a NAT is punched, so they share one receive batch, which a task holds only while one
//! system call fills it; idle sockets cost no memory to speak of.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use partyline_net::{BindError, Nat64Prefix, Outgoing, RecvBatch, UdpCounters, UdpEndpoint};
use partyline_node::SocketId;
use tokio::{sync::mpsc, task::JoinHandle};

/// Arrivals that may wait for the loop.
const QUEUE: usize = 256;

/// Datagrams that arrived on a socket other than the main one, in one system call.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub socket: SocketId,
    /// Distinguishes sockets that had the same id, one after the other.
    generation: u64,
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// All UDP sockets of one engine.
pub(crate) struct Sockets {
    pub main: UdpEndpoint,
    others: HashMap<SocketId, OpenSocket>,
    generations: u64,
    /// What closed sockets have counted.
    retired: UdpCounters,
    batch: Arc<Mutex<RecvBatch>>,
    arrivals: mpsc::Sender<Arrivals>,
    /// The NAT64 by which IPv4 addresses are reached, where there is no other way.
    nat64: Option<Nat64Prefix>,
}

struct OpenSocket {
    endpoint: Arc<UdpEndpoint>,
    generation: u64,
    reader: JoinHandle<()>,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Sockets {
    /// The main socket alone, and the queue in which what arrives on later ones will appear.
    pub(crate) fn new(main: UdpEndpoint) -> (Self, mpsc::Receiver<Arrivals>) {
        let (arrivals, inbox) = mpsc::channel(QUEUE);
        let batch = Arc::new(Mutex::new(RecvBatch::new()));
        (
            Self {
                main,
                others: HashMap::new(),
                generations: 0,
                retired: UdpCounters::default(),
                batch,
                arrivals,
                nat64: None,
            },
            inbox,
        )
    }

    /// Opens sockets in place of open ones with the same ids. Returns the local port of each, or `None` for one that
    /// could not be opened.
    pub(crate) fn open(&mut self, ids: &[SocketId]) -> Vec<(SocketId, Option<u16>)> {
        let opened: Vec<_> = ids.iter().map(|id| (*id, self.open_one(*id))).collect();
        tracing::debug!(count = opened.len(), "opened UDP sockets");
        opened
    }

    fn open_one(&mut self, id: SocketId) -> Option<u16> {
        self.retire(id);
        let endpoint = bind(id, self.nat64.is_some())
            .inspect_err(|error| tracing::warn!(socket = id.0, %error, "a UDP socket could not be opened"))
            .ok()?;
        let port = endpoint.port();
        self.generations += 1;
        let (endpoint, generation) = (Arc::new(endpoint), self.generations);
        let (reading, batch) = (Arc::clone(&endpoint), Arc::clone(&self.batch));
        let reader = tokio::spawn(read(reading, batch, (id, generation), self.arrivals.clone()));
        self.others.insert(id, OpenSocket { endpoint, generation, reader });
        Some(port)
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        if self.retire(id) {
            tracing::trace!(socket = id.0, "closed a UDP socket");
        }
    }

    fn retire(&mut self, id: SocketId) -> bool {
        let open = self.others.remove(&id);
        if let Some(open) = &open {
            self.retired += open.endpoint.counters();
        }
        open.is_some()
    }

    /// Closes the main socket in favour of another one.
    pub(crate) fn replace_main(&mut self, main: UdpEndpoint) {
        self.retired += self.main.counters();
        self.main = main;
    }

    /// Returns what all sockets have counted, closed ones included.
    pub(crate) fn counters(&self) -> UdpCounters {
        let mut sum = self.retired;
        sum += self.main.counters();
        self.others.values().for_each(|open| sum += open.endpoint.counters());
        sum
    }

    /// Returns how many sockets are open, the main one included.
    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Takes the prefix of the network's NAT64, or that it has none or needs none.
    pub(crate) fn set_nat64(&mut self, prefix: Option<Nat64Prefix>) {
        if self.nat64 != prefix {
            tracing::info!(?prefix, was = ?self.nat64, "the NAT64 that reaches IPv4 addresses changed");
            self.nat64 = prefix;
        }
    }

    /// Returns where datagrams for an address have to be sent.
    pub(crate) fn outward(&self, to: SocketAddr) -> SocketAddr {
        self.nat64.map_or(to, |prefix| prefix.outward(to))
    }

    /// Returns the address that a datagram's source is known by.
    pub(crate) fn inward(&self, from: SocketAddr) -> SocketAddr {
        self.nat64.map_or(from, |prefix| prefix.inward(from))
    }

    /// Sends without waiting. A datagram that cannot be sent is dropped, as a full network would; the endpoint counts it.
    pub(crate) fn send(&self, id: SocketId, outgoing: &Outgoing<'_>) {
        let endpoint = match id {
            SocketId::MAIN => Some(&self.main),
            _ => self.others.get(&id).map(|open| &*open.endpoint),
        };
        match endpoint.map(|endpoint| endpoint.try_send(outgoing)) {
            Some(Ok(())) => {}
            Some(Err(reason)) => {
                tracing::trace!(socket = id.0, to = %outgoing.to, ?reason, "dropped outgoing datagrams");
            }
            None => tracing::trace!(socket = id.0, reason = "not open", "dropped outgoing datagrams"),
        }
    }

    /// True if these datagrams arrived on a socket that is still open.
    pub(crate) fn is_current(&self, arrivals: &Arrivals) -> bool {
        self.others.get(&arrivals.socket).is_some_and(|open| open.generation == arrivals.generation)
    }
}

/// Probe sockets measure the NATs of both address families; punching and second ports are about IPv4, which a NAT64
/// reaches over IPv6.
fn bind(id: SocketId, nat64: bool) -> Result<UdpEndpoint, BindError> {
    if id.is_probe() || nat64 { UdpEndpoint::bind(0) } else { UdpEndpoint::open_v4() }
}

async fn read(
    endpoint: Arc<UdpEndpoint>,
    batch: Arc<Mutex<RecvBatch>>,
    (socket, generation): (SocketId, u64),
    queue: mpsc::Sender<Arrivals>,
) {
    while endpoint.readable().await.is_ok() {
        let Some(datagrams) = take(&endpoint, &batch) else { break };
        let arrivals = Arrivals { socket, generation, datagrams };
        if !arrivals.datagrams.is_empty() && queue.send(arrivals).await.is_err() {
            return;
        }
    }
    tracing::debug!(socket = socket.0, "lost a UDP socket");
}

/// The datagrams that have arrived; `None` if the socket is lost.
fn take(endpoint: &UdpEndpoint, batch: &Mutex<RecvBatch>) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
    let mut batch = batch.lock().unwrap_or_else(PoisonError::into_inner);
    if !endpoint.try_recv(&mut batch).ok()? {
        return Some(Vec::new());
    }
    Some(batch.datagrams().map(|datagram| (datagram.from, datagram.bytes.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> (Sockets, mpsc::Receiver<Arrivals>) {
        Sockets::new(UdpEndpoint::bind(0).unwrap())
    }

    fn loopback(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test]
    async fn hundreds_open_receive_and_close() {
        let (mut sockets, mut inbox) = sockets();
        let ids: Vec<SocketId> = (1..=256).map(SocketId).collect();
        let ports = sockets.open(&ids);
        assert!(ports.iter().all(|(_, port)| port.is_some()));
        let to = |id: usize| loopback(ports[id].1.unwrap());
        sockets.send(ids[0], &Outgoing::one(to(255), b"hello"));
        let arrived = inbox.recv().await.unwrap();
        assert_eq!((arrived.socket, sockets.is_current(&arrived)), (ids[255], true));
        assert_eq!(arrived.datagrams, [(to(0), b"hello".to_vec())]);
        sockets.close(ids[255]);
        sockets.open(&ids[255..]);
        assert!(!sockets.is_current(&arrived), "arrived on an earlier socket of this id");
    }

    #[tokio::test]
    async fn addresses_are_translated_only_while_there_is_a_nat64() {
        let (mut sockets, _inbox) = sockets();
        let (plain, made_up) =
            ("198.51.100.7:5000".parse().unwrap(), "[64:ff9b::c633:6407]:5000".parse().unwrap());
        assert_eq!((sockets.outward(plain), sockets.inward(made_up)), (plain, made_up));
        let prefix = Nat64Prefix::of_well_known("64:ff9b::c000:aa".parse().unwrap());
        sockets.set_nat64(prefix);
        assert_eq!((sockets.outward(plain), sockets.inward(made_up)), (made_up, plain));
        assert_eq!(sockets.outward(loopback(1)), loopback(1));
        sockets.set_nat64(None);
        assert_eq!(sockets.outward(plain), plain);
    }

    #[tokio::test]
    async fn opening_an_id_again_replaces_its_socket() {
        let (mut sockets, mut inbox) = sockets();
        let id = SocketId::probe(0);
        let [(_, Some(first))] = sockets.open(&[id])[..] else { panic!("one socket") };
        sockets.send(SocketId::MAIN, &Outgoing::one(loopback(first), b"early"));
        let early = inbox.recv().await.unwrap();
        let [(_, Some(second))] = sockets.open(&[id])[..] else { panic!("one socket") };
        assert!(!sockets.is_current(&early));
        sockets.send(SocketId::MAIN, &Outgoing::one(loopback(second), b"late"));
        let late = inbox.recv().await.unwrap();
        assert!(sockets.is_current(&late));
        assert_eq!(late.datagrams, [(loopback(sockets.main.port()), b"late".to_vec())]);
    }

    #[tokio::test]
    async fn counters_outlive_their_sockets() {
        let (mut sockets, mut inbox) = sockets();
        let ports = sockets.open(&[SocketId(1), SocketId(2)]);
        sockets.send(SocketId(1), &Outgoing::one(loopback(ports[1].1.unwrap()), b"counted"));
        inbox.recv().await.unwrap();
        sockets.close(SocketId(1));
        sockets.close(SocketId(2));
        sockets.replace_main(UdpEndpoint::bind(0).unwrap());
        let counters = sockets.counters();
        assert_eq!((counters.sent_datagrams, counters.sent_bytes), (1, 7));
        assert_eq!((counters.received_datagrams, counters.received_bytes), (1, 7));
        assert_eq!(sockets.count(), 1);
    }

    #[tokio::test]
    async fn sending_from_a_closed_socket_drops_the_datagram() {
        let (mut sockets, mut inbox) = sockets();
        let ports = sockets.open(&[SocketId(1), SocketId(2)]);
        let to = loopback(ports[1].1.unwrap());
        sockets.close(SocketId(1));
        sockets.send(SocketId(1), &Outgoing::one(to, b"closed"));
        sockets.send(SocketId::MAIN, &Outgoing::one(to, b"open"));
        assert_eq!(inbox.recv().await.unwrap().datagrams[0].1, b"open");
    }
}
