//! Sockets lent to the check of the network: fresh ones for every check, each with a task that passes on what comes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use partyline_net::{Outgoing, RecvBatch, UdpEndpoint};
use tokio::{sync::mpsc, task::JoinHandle};

/// Sockets open at once, at most.
const MOST: u8 = 8;
const QUEUE: usize = 64;

/// A datagram that came to a lent socket.
#[derive(Debug)]
pub(crate) struct SpareDatagram {
    run: u32,
    pub index: u8,
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

/// All lent sockets of one engine.
pub(crate) struct Spares {
    open: Vec<Spare>,
    /// Counts the checks, so that what came for one is not taken for another's.
    run: u32,
    datagrams: mpsc::Sender<SpareDatagram>,
}

struct Spare {
    socket: Arc<UdpEndpoint>,
    reader: JoinHandle<()>,
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Spares {
    /// None yet, and where their datagrams will come.
    pub(crate) fn new() -> (Self, mpsc::Receiver<SpareDatagram>) {
        let (datagrams, inbox) = mpsc::channel(QUEUE);
        (Self { open: Vec::new(), run: 0, datagrams }, inbox)
    }

    /// Closes those that are open and opens so many fresh ones; returns their addresses.
    pub(crate) fn lend(&mut self, count: u8) -> Vec<SocketAddr> {
        self.open.clear();
        self.run = self.run.wrapping_add(1);
        for index in 0..count.min(MOST) {
            match UdpEndpoint::bind(0) {
                Ok(socket) => self.open.push(self.start(index, socket)),
                Err(error) => {
                    tracing::warn!(%error, "no socket to measure the network with");
                    break;
                }
            }
        }
        let unspecified = Ipv4Addr::UNSPECIFIED.into();
        self.open.iter().map(|spare| SocketAddr::new(unspecified, spare.socket.port())).collect()
    }

    /// Sends from a lent socket; what cannot be sent is as good as lost on the way.
    pub(crate) fn send(&self, index: u8, destination: SocketAddr, bytes: &[u8]) {
        if let Some(spare) = self.open.get(usize::from(index)) {
            let _ = spare.socket.try_send(&Outgoing::one(destination, bytes));
        }
    }

    /// Whether a datagram is of the present check.
    pub(crate) const fn is_current(&self, datagram: &SpareDatagram) -> bool {
        datagram.run == self.run
    }

    fn start(&self, index: u8, socket: UdpEndpoint) -> Spare {
        let socket = Arc::new(socket);
        let (reading, datagrams, run) = (Arc::clone(&socket), self.datagrams.clone(), self.run);
        let reader = tokio::spawn(async move {
            let mut batch = RecvBatch::new();
            while reading.recv(&mut batch).await.is_ok() {
                for datagram in batch.datagrams() {
                    let bytes = datagram.bytes.to_vec();
                    if datagrams.send(SpareDatagram { run, index, from: datagram.from, bytes }).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Spare { socket, reader }
    }
}
