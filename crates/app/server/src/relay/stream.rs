//! A TCP or TLS client: frames it sends go into the relay's inbox, frames for it wait in an outbox.
//!
//! Reading waits while the inbox is full, which slows that client down by TCP's own means. Writing never makes the
//! relay wait: a full outbox drops its oldest frame, as a router would.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mio::Waker;
use partyline_relay::{Frame, next_frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use super::arena::MAX_DATAGRAM;

/// Frames that wait for one client at most.
const OUTBOX: usize = 512;
/// How long a client may take for its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);
/// Bytes written to a stream at once.
const WRITE: usize = 64 * 1024;

/// What the relay's thread is told.
#[derive(Debug)]
pub enum Inbound {
    /// A client has connected.
    Connected {
        /// Its number.
        stream: u32,
        /// Where frames for it go.
        outbox: Arc<Outbox>,
    },
    /// A client has sent a message.
    Frame {
        /// Its number.
        stream: u32,
        /// Its address.
        peer: SocketAddr,
        /// The message.
        bytes: Bytes,
    },
    /// A client is gone.
    Disconnected {
        /// Its number.
        stream: u32,
        /// Its address.
        peer: SocketAddr,
    },
    /// The relay is to end.
    Stop(oneshot::Sender<()>),
}

/// The way into the relay's thread: a bounded queue, and a bell that rings once for many messages.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: mpsc::Sender<Inbound>,
    bell: Arc<Bell>,
}

/// Wakes the thread; while it is awake and has not looked yet, ringing again costs nothing.
#[derive(Debug)]
pub struct Bell {
    waker: Waker,
    rung: AtomicBool,
}

impl Bell {
    pub fn new(waker: Waker) -> Self {
        Self { waker, rung: AtomicBool::new(false) }
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            self.rung.store(false, Ordering::Release);
        }
    }

    /// To be called before the queue is emptied.
    pub fn heard(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

impl Inbox {
    pub const fn new(queue: mpsc::Sender<Inbound>, bell: Arc<Bell>) -> Self {
        Self { queue, bell }
    }

    /// Waits for room; false once the relay has ended.
    pub async fn send(&self, message: Inbound) -> bool {
        let sent = self.queue.send(message).await.is_ok();
        self.bell.ring();
        sent
    }
}

/// Frames for one client.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: Mutex<VecDeque<Bytes>>,
    filled: Notify,
    closed: AtomicBool,
    dropped: AtomicU64,
}

impl Outbox {
    /// Adds a frame, and drops the oldest one if there are too many; false if one was dropped.
    pub fn push(&self, frame: Bytes) -> bool {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let full = frames.len() >= OUTBOX;
        if full {
            frames.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        frames.push_back(frame);
        drop(frames);
        self.filled.notify_one();
        !full
    }

    /// Ends the client's stream once what waits is written.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Waits for frames and takes up to [`WRITE`] bytes of them; `None` when closed and empty.
    async fn take(&self, into: &mut BytesMut) -> Option<()> {
        loop {
            let filled = self.filled.notified();
            let closed = self.closed.load(Ordering::Acquire);
            {
                let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
                while into.len() < WRITE {
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

/// Serves a client until it leaves, breaks the protocol, falls silent for longer than `idle`, or the relay ends.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    number: u32,
    peer: SocketAddr,
    inbox: Inbox,
    already_read: Bytes,
    idle: Duration,
) {
    let outbox = Arc::new(Outbox::default());
    if !inbox.send(Inbound::Connected { stream: number, outbox: outbox.clone() }).await {
        return;
    }
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_frames(reader, number, peer, &inbox, already_read, idle) => ended,
        ended = write_frames(writer, &outbox) => ended,
    };
    tracing::debug!(%peer, stream = number, dropped = outbox.dropped.load(Ordering::Relaxed), ?ended, "relay client left");
    inbox.send(Inbound::Disconnected { stream: number, peer }).await;
}

async fn read_frames(
    mut reader: impl AsyncRead + Unpin,
    stream: u32,
    peer: SocketAddr,
    inbox: &Inbox,
    already_read: Bytes,
    idle: Duration,
) -> io::Result<()> {
    let (mut buffer, mut patience) = (BytesMut::from(already_read), FIRST_MESSAGE);
    loop {
        while let Some(bytes) = next_message(&mut buffer)? {
            if !inbox.send(Inbound::Frame { stream, peer, bytes }).await {
                return Ok(());
            }
            patience = idle;
        }
        buffer.reserve(2 * MAX_DATAGRAM);
        if timeout(patience, reader.read_buf(&mut buffer)).await?? == 0 {
            return Ok(());
        }
    }
}

fn next_message(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    match next_frame(buffer) {
        Frame::Complete { length, .. } if length > MAX_DATAGRAM => Err(io::ErrorKind::InvalidData.into()),
        Frame::Complete { length, advance } => Ok(Some(buffer.split_to(advance).freeze().slice(..length))),
        Frame::Partial if buffer.len() <= MAX_DATAGRAM => Ok(None),
        Frame::Partial | Frame::Invalid => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn write_frames(mut writer: impl AsyncWrite + Unpin, outbox: &Outbox) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while outbox.take(&mut buffer).await.is_some() {
        writer.write_all_buf(&mut buffer).await?;
        writer.flush().await?;
        buffer.clear();
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_outbox_drops_its_oldest_frames() {
        let outbox = Outbox::default();
        let frame = |number: usize| Bytes::copy_from_slice(&(number as u32).to_be_bytes());
        assert!((0..OUTBOX).all(|number| outbox.push(frame(number))));
        assert!(!outbox.push(frame(OUTBOX)));
        outbox.close();
        let mut bytes = BytesMut::new();
        outbox.take(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..4], &1u32.to_be_bytes());
        assert_eq!(bytes.len(), OUTBOX * 4);
        bytes.clear();
        assert!(outbox.take(&mut bytes).await.is_none());
    }

    #[test]
    fn messages_are_cut_from_a_stream_with_their_padding() {
        let mut buffer = BytesMut::from(&[0x40, 0, 0, 1, 9, 0, 0, 0, 0x40, 1][..]);
        assert_eq!(next_message(&mut buffer).unwrap().unwrap(), &[0x40, 0, 0, 1, 9][..]);
        assert_eq!(next_message(&mut buffer).unwrap(), None);
        assert_eq!(buffer.len(), 2);
        assert!(next_message(&mut BytesMut::from(&[0x80, 0, 0, 0][..])).is_err());
    }
}
