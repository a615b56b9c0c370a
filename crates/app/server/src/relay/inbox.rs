//! The way from the tasks of TCP and TLS clients into the relay's thread.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use mio::Waker;
use tokio::sync::{mpsc, oneshot};

use super::frame_queue::FrameQueue;

/// An input of the relay's thread. `stream` is the client's number, `peer` its address.
#[derive(Debug)]
pub enum Inbound {
    /// A client has connected; frames for it go into `queue`.
    Connected { stream: u32, queue: Arc<FrameQueue> },
    /// A client has sent a message.
    Frame { stream: u32, peer: SocketAddr, bytes: Bytes },
    /// A client's connection has ended.
    Disconnected { stream: u32, peer: SocketAddr },
    /// The computer's network interfaces have these addresses now.
    InterfaceAddresses(Vec<IpAddr>),
    /// The relay is to shut down; notifies the sender when it has.
    Stop(oneshot::Sender<()>),
}

/// A bounded queue into the relay's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: mpsc::Sender<Inbound>,
    wakeup: Arc<Wakeup>,
}

impl Inbox {
    pub const fn new(queue: mpsc::Sender<Inbound>, wakeup: Arc<Wakeup>) -> Self {
        Self { queue, wakeup }
    }

    /// Sends a message, waiting for room; returns false once the relay has shut down.
    pub async fn send(&self, message: Inbound) -> bool {
        let sent = self.queue.send(message).await.is_ok();
        self.wakeup.wake();
        sent
    }
}

/// Wakes the relay's thread. Waking it again before it has looked at its inbox costs nothing.
#[derive(Debug)]
pub struct Wakeup {
    waker: Waker,
    is_pending: AtomicBool,
}

impl Wakeup {
    pub const fn new(waker: Waker) -> Self {
        Self { waker, is_pending: AtomicBool::new(false) }
    }

    fn wake(&self) {
        if !self.is_pending.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            self.is_pending.store(false, Ordering::Release);
        }
    }

    /// Allows the next wake-up. Must be called before the inbox is emptied, or a message could be missed.
    pub fn acknowledge(&self) {
        self.is_pending.store(false, Ordering::Release);
    }
}
