//! Sockets that punching asks for: hundreds for seconds, and perhaps one that then carries a path.
//!
//! Each has a task that passes on what comes. They share one receive batch, which is taken only while one system call
//! fills it, so that hundreds of sockets cost no memory to speak of.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use partyline_net::{Outgoing, RecvBatch, UdpEndpoint};
use partyline_node::SocketId;
use tokio::{sync::mpsc, task::JoinHandle};

const QUEUE: usize = 256;

/// Datagrams that came to one of the sockets in one system call.
#[derive(Debug)]
pub(crate) struct SocketDatagrams {
    pub id: SocketId,
    /// Tells sockets apart that had the same number, one after the other.
    run: u64,
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// All of them.
pub(crate) struct Sockets {
    open: HashMap<SocketId, Open>,
    runs: u64,
    batch: Arc<Mutex<RecvBatch>>,
    arrivals: mpsc::Sender<SocketDatagrams>,
}

struct Open {
    socket: Arc<UdpEndpoint>,
    run: u64,
    reader: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Sockets {
    /// None yet, and where their datagrams will come.
    pub(crate) fn new() -> (Self, mpsc::Receiver<SocketDatagrams>) {
        let (arrivals, inbox) = mpsc::channel(QUEUE);
        let batch = Arc::new(Mutex::new(RecvBatch::new()));
        (Self { open: HashMap::new(), runs: 0, batch, arrivals }, inbox)
    }

    /// Opens sockets; says which got which port.
    pub(crate) fn open(&mut self, ids: &[SocketId]) -> Vec<(SocketId, Option<u16>)> {
        ids.iter().map(|id| (*id, self.open_one(*id))).collect()
    }

    fn open_one(&mut self, id: SocketId) -> Option<u16> {
        let opened = UdpEndpoint::open_v4();
        let socket = opened.inspect_err(|error| tracing::warn!(%error, "no socket to punch with")).ok()?;
        let port = socket.port();
        self.runs += 1;
        let socket = Arc::new(socket);
        let reader = tokio::spawn(read(
            Arc::clone(&socket),
            Arc::clone(&self.batch),
            (id, self.runs),
            self.arrivals.clone(),
        ));
        self.open.insert(id, Open { socket, run: self.runs, reader });
        Some(port)
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        self.open.remove(&id);
    }

    /// Sends; what cannot be sent is as good as lost on the way.
    pub(crate) fn send(&self, id: SocketId, outgoing: &Outgoing<'_>) {
        if let Some(open) = self.open.get(&id) {
            let _ = open.socket.try_send(outgoing);
        }
    }

    /// Whether these came to a socket that is still open.
    pub(crate) fn is_current(&self, arrived: &SocketDatagrams) -> bool {
        self.open.get(&arrived.id).is_some_and(|open| open.run == arrived.run)
    }
}

async fn read(
    socket: Arc<UdpEndpoint>,
    batch: Arc<Mutex<RecvBatch>>,
    (id, run): (SocketId, u64),
    arrivals: mpsc::Sender<SocketDatagrams>,
) {
    while socket.readable().await.is_ok() {
        let Some(datagrams) = take(&socket, &batch) else { return };
        let arrived = SocketDatagrams { id, run, datagrams };
        if !arrived.datagrams.is_empty() && arrivals.send(arrived).await.is_err() {
            return;
        }
    }
}

/// What has arrived; `None` if the socket is lost.
fn take(socket: &UdpEndpoint, batch: &Mutex<RecvBatch>) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
    let mut batch = batch.lock().unwrap_or_else(PoisonError::into_inner);
    if !socket.try_recv(&mut batch).ok()? {
        return Some(Vec::new());
    }
    Some(batch.datagrams().map(|datagram| (datagram.from, datagram.bytes.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hundreds_open_receive_and_close() {
        let (mut sockets, mut inbox) = Sockets::new();
        let ids: Vec<SocketId> = (1..=256).map(SocketId).collect();
        let ports = sockets.open(&ids);
        assert!(ports.iter().all(|(_, port)| port.is_some()));
        let to = |id: usize| SocketAddr::from(([127, 0, 0, 1], ports[id].1.unwrap()));
        sockets.send(ids[0], &Outgoing::one(to(255), b"hello"));
        let arrived = inbox.recv().await.unwrap();
        assert_eq!((arrived.id, sockets.is_current(&arrived)), (ids[255], true));
        assert_eq!(arrived.datagrams, [(to(0), b"hello".to_vec())]);
        sockets.close(ids[255]);
        sockets.open(&ids[255..]);
        assert!(!sockets.is_current(&arrived), "it came to another socket of this number");
    }
}
