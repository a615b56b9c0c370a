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

use crate::websocket::{write_close, write_frame};

/// Maximum backlog of a member in bytes; beyond it the connection is closed. A full roster of the longest records fits.
const MAX_BACKLOG: usize = 2 << 20;

/// Maximum backlog in bytes while all queues together exceed [`MAX_QUEUED_BYTES`], so that the slowest members go first.
const MAX_BACKLOG_UNDER_PRESSURE: usize = 64 << 10;

/// Bytes queued for all members beyond which [`MAX_BACKLOG_UNDER_PRESSURE`] applies.
const MAX_QUEUED_BYTES: usize = 256 << 20;

/// Bytes an item counts in addition to its payload.
const ITEM_OVERHEAD: usize = 32;

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
        ITEM_OVERHEAD
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

/// A bounded queue that accepts nothing after a close frame. The parameter `total` of its methods counts the bytes in all
/// queues together.
#[derive(Debug)]
pub(super) struct SendQueue {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// Time of the last frame received from the member, in the hub's seconds.
    last_received: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    cost: usize,
    /// The code of the close frame, once there is one.
    close_code: Option<u16>,
    /// The queue accepts nothing any more.
    closed: bool,
}

impl SendQueue {
    pub(super) fn new(seconds: u32) -> Self {
        Self { queue: Mutex::default(), waker: AtomicWaker::new(), last_received: AtomicU32::new(seconds) }
    }

    /// Queues an item. If the backlog becomes too long, everything is replaced by a close frame. Returns true while the
    /// queue is open.
    pub(super) fn push(&self, total: &AtomicUsize, item: Item) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        let is_under_pressure = total.load(Ordering::Relaxed) > MAX_QUEUED_BYTES;
        let max = if is_under_pressure { MAX_BACKLOG_UNDER_PRESSURE } else { MAX_BACKLOG };
        let fits = queue.cost + item.cost() <= max;
        if fits {
            queue.push(total, item);
        } else {
            tracing::debug!(backlog = queue.cost, max, is_under_pressure, "member reads too slowly");
            queue.clear(total);
            queue.close(total, close::SLOW, "too much was left unread");
        }
        drop(queue);
        self.waker.wake();
        fits
    }

    /// Queues a close frame; nothing follows it.
    pub(super) fn close(&self, total: &AtomicUsize, code: u16, reason: &'static str) {
        self.lock().close(total, code, reason);
        self.waker.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closed
    }

    /// Returns the code of the close frame that was queued, if any.
    pub(super) fn close_code(&self) -> Option<u16> {
        self.lock().close_code
    }

    pub(super) fn backlog(&self) -> usize {
        self.lock().cost
    }

    /// Moves items as frames to the end of `out` until that holds `enough` bytes. Returns true if the close frame was among
    /// them.
    pub(super) fn drain_into(&self, total: &AtomicUsize, out: &mut Vec<u8>, enough: usize) -> bool {
        let mut queue = self.lock();
        let mut has_close = false;
        while out.len() < enough {
            let Some(item) = queue.pop(total) else { break };
            item.write(out);
            has_close = matches!(item, Item::Close(..));
        }
        has_close
    }

    /// Drops everything that is queued and accepts nothing more.
    pub(super) fn discard(&self, total: &AtomicUsize) {
        let mut queue = self.lock();
        queue.clear(total);
        queue.closed = true;
    }

    pub(super) fn on_received(&self, seconds: u32) {
        self.last_received.store(seconds, Ordering::Relaxed);
    }

    /// Returns the seconds since the last frame was received from the member.
    pub(super) fn silent_for(&self, seconds: u32) -> u32 {
        seconds.saturating_sub(self.last_received.load(Ordering::Relaxed))
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, total: &AtomicUsize, item: Item) {
        self.cost += item.cost();
        total.fetch_add(item.cost(), Ordering::Relaxed);
        self.items.push_back(item);
    }

    fn pop(&mut self, total: &AtomicUsize) -> Option<Item> {
        let item = self.items.pop_front();
        match &item {
            Some(item) => {
                self.cost -= item.cost();
                total.fetch_sub(item.cost(), Ordering::Relaxed);
            }
            // An idle member keeps no memory for its queue.
            None => self.items = VecDeque::new(),
        }
        item
    }

    fn clear(&mut self, total: &AtomicUsize) {
        while self.pop(total).is_some() {}
    }

    fn close(&mut self, total: &AtomicUsize, code: u16, reason: &'static str) {
        if !self.closed {
            self.push(total, Item::Close(code, reason));
            (self.closed, self.close_code) = (true, Some(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Item {
        Item::Message(vec![7; bytes].into())
    }

    fn drain(queue: &SendQueue, total: &AtomicUsize) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let has_close = queue.drain_into(total, &mut out, usize::MAX);
        (out, has_close)
    }

    #[test]
    fn items_leave_as_frames_in_order_and_are_counted_meanwhile() {
        let (queue, total) = (SendQueue::new(0), AtomicUsize::new(0));
        assert!(queue.push(&total, message(3)) && queue.push(&total, Item::Ping));
        assert_eq!(total.load(Ordering::Relaxed), 3 + 2 * ITEM_OVERHEAD);
        assert_eq!(drain(&queue, &total), (vec![0x82, 3, 7, 7, 7, 0x89, 0], false));
        assert_eq!((queue.backlog(), total.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let (queue, total) = (SendQueue::new(0), AtomicUsize::new(0));
        queue.close(&total, 4000, "bye");
        queue.close(&total, 4001, "again");
        assert!(!queue.push(&total, message(1)));
        assert_eq!(drain(&queue, &total), (vec![0x88, 5, 0x0f, 0xa0, b'b', b'y', b'e'], true));
        assert!(queue.is_closing());
        assert_eq!(queue.close_code(), Some(4000));
    }

    #[test]
    fn backlog_that_is_too_long_is_replaced_by_a_close_frame() {
        let (queue, total) = (SendQueue::new(0), AtomicUsize::new(0));
        while queue.push(&total, message(60_000)) {}
        let (out, has_close) = drain(&queue, &total);
        assert!(has_close);
        assert_eq!(out[2..4], close::SLOW.to_be_bytes());
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn members_with_a_backlog_are_closed_first_when_all_queues_are_long() {
        let (slow, quick) = (SendQueue::new(0), SendQueue::new(0));
        let total = AtomicUsize::new(0);
        assert!(slow.push(&total, message(MAX_BACKLOG_UNDER_PRESSURE)));
        total.fetch_add(MAX_QUEUED_BYTES, Ordering::Relaxed);
        assert!(quick.push(&total, message(1000)));
        assert!(!slow.push(&total, message(1000)));
    }

    #[test]
    fn silence_counts_from_the_last_bytes_received() {
        let queue = SendQueue::new(10);
        assert_eq!(queue.silent_for(25), 15);
        queue.on_received(20);
        assert_eq!(queue.silent_for(25), 5);
    }

    #[test]
    fn drained_queue_holds_no_memory() {
        let (queue, total) = (SendQueue::new(0), AtomicUsize::new(0));
        (0..100).for_each(|_| assert!(queue.push(&total, message(10))));
        drain(&queue, &total);
        assert_eq!(queue.lock().items.capacity(), 0);
    }
}
