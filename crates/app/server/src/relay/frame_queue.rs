//! Frames that wait to be written to one TCP or TLS client.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// Maximum number of frames waiting for one client.
const MAX_FRAMES: usize = 512;
/// Number of bytes after which [`FrameQueue::take`] takes no further frame.
const TAKE_BYTES: usize = 64 * 1024;

/// A queue that never makes the relay wait: when it is full, it drops its oldest frame, as a router would.
#[derive(Debug, Default)]
pub struct FrameQueue {
    frames: Mutex<VecDeque<Bytes>>,
    filled: Notify,
    closed: AtomicBool,
    dropped: AtomicU64,
}

impl FrameQueue {
    /// Adds a frame; returns false if the oldest one was dropped for it.
    pub fn push(&self, frame: Bytes) -> bool {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = frames.len() >= MAX_FRAMES;
        if is_full {
            frames.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        frames.push_back(frame);
        drop(frames);
        self.filled.notify_one();
        !is_full
    }

    /// Ends the client's stream once the queue is drained.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Returns the number of frames dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for frames and moves about 64 KiB of them at most; `None` when the queue is closed and empty.
    pub async fn take(&self, into: &mut BytesMut) -> Option<()> {
        loop {
            let filled = self.filled.notified();
            let closed = self.closed.load(Ordering::Acquire);
            {
                let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
                while into.len() < TAKE_BYTES {
                    let Some(frame) = frames.pop_front() else { break };
                    into.extend_from_slice(&frame);
                }
            }
            match (into.is_empty(), closed) {
                (false, _) => return Some(()),
                (true, true) => return None,
                (true, false) => filled.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_queue_drops_its_oldest_frames() {
        let queue = FrameQueue::default();
        let frame = |number: usize| Bytes::copy_from_slice(&(number as u32).to_be_bytes());
        assert!((0..MAX_FRAMES).all(|number| queue.push(frame(number))));
        assert!(!queue.push(frame(MAX_FRAMES)));
        assert_eq!(queue.dropped(), 1);
        queue.close();
        let mut bytes = BytesMut::new();
        queue.take(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..4], &1u32.to_be_bytes());
        assert_eq!(bytes.len(), MAX_FRAMES * 4);
        bytes.clear();
        assert!(queue.take(&mut bytes).await.is_none());
    }
}
