//! What waits to be sent to one member.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use partyline_wire::rendezvous::close;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::QUEUED;
use crate::websocket::{write_close, write_frame};

/// Bytes beyond which a member is let go; a full roster of the longest records fits.
const LONGEST: usize = 2 << 20;

/// Bytes that are nobody's fault: below it a member stays even when all outboxes together are too long.
const SHORT: usize = 64 << 10;

/// What an item costs beside its bytes.
const OVERHEAD: usize = 32;

/// Something to send.
#[derive(Debug)]
pub(super) enum Item {
    Message(Arc<[u8]>),
    Ping,
    Pong(Box<[u8]>),
    Close(u16, &'static str),
}

impl Item {
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Message(bytes) => bytes.len(),
                Self::Pong(bytes) => bytes.len(),
                Self::Ping | Self::Close(..) => 0,
            }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(bytes) => write_frame(out, OpCode::Data(Data::Binary), bytes),
            Self::Ping => write_frame(out, OpCode::Control(Control::Ping), &[]),
            Self::Pong(bytes) => write_frame(out, OpCode::Control(Control::Pong), bytes),
            Self::Close(code, reason) => write_close(out, *code, reason),
        }
    }
}

/// A queue with an end: after a goodbye nothing more gets in.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// When the member was last heard, in the hub's seconds.
    heard: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    cost: usize,
    closing: bool,
}

impl Outbox {
    pub(super) fn new(seconds: u32) -> Self {
        Self { queue: Mutex::default(), waker: AtomicWaker::new(), heard: AtomicU32::new(seconds) }
    }

    /// Queues an item, or closes the outbox if it is too long. Says whether it is open. `all` counts the bytes in all
    /// outboxes.
    pub(super) fn push(&self, all: &AtomicUsize, item: Item) -> bool {
        let mut queue = self.lock();
        if queue.closing {
            return false;
        }
        let longest = if all.load(Ordering::Relaxed) > QUEUED { SHORT } else { LONGEST };
        let fits = queue.cost + item.cost() <= longest;
        if !fits {
            queue.clear(all);
            queue.close(all, close::SLOW, "too much was left unread");
        } else {
            queue.push(all, item);
        }
        drop(queue);
        self.waker.wake();
        fits
    }

    pub(super) fn close(&self, all: &AtomicUsize, code: u16, reason: &'static str) {
        self.lock().close(all, code, reason);
        self.waker.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    pub(super) fn backlog(&self) -> usize {
        self.lock().cost
    }

    /// Moves items to the end of `out` as frames, until that holds `enough`. Says whether the goodbye was among them.
    pub(super) fn collect(&self, all: &AtomicUsize, out: &mut Vec<u8>, enough: usize) -> bool {
        let mut queue = self.lock();
        let mut closing = false;
        while out.len() < enough {
            let Some(item) = queue.pop(all) else { break };
            item.write(out);
            closing = matches!(item, Item::Close(..));
        }
        closing
    }

    pub(super) fn discard(&self, all: &AtomicUsize) {
        let mut queue = self.lock();
        queue.clear(all);
        queue.closing = true;
    }

    pub(super) fn heard(&self, seconds: u32) {
        self.heard.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn silent_for(&self, seconds: u32) -> u32 {
        seconds.saturating_sub(self.heard.load(Ordering::Relaxed))
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, all: &AtomicUsize, item: Item) {
        self.cost += item.cost();
        all.fetch_add(item.cost(), Ordering::Relaxed);
        self.items.push_back(item);
    }

    fn pop(&mut self, all: &AtomicUsize) -> Option<Item> {
        let item = self.items.pop_front();
        match &item {
            Some(item) => {
                self.cost -= item.cost();
                all.fetch_sub(item.cost(), Ordering::Relaxed);
            }
            // An idle member keeps no memory for its queue.
            None => self.items = VecDeque::new(),
        }
        item
    }

    fn clear(&mut self, all: &AtomicUsize) {
        while self.pop(all).is_some() {}
    }

    fn close(&mut self, all: &AtomicUsize, code: u16, reason: &'static str) {
        if !self.closing {
            self.push(all, Item::Close(code, reason));
            self.closing = true;
        }
    }
}

#[cfg(test)]
mod tests;
