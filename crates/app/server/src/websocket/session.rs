//! One member's connection, as a future without buffers.
//!
//! Bytes are read into a buffer that belongs to the thread, and written from another one; only what a slow socket
//! does not take, or half a frame that has come, is kept with the connection. There is no timer either, except while
//! the connection is being closed: the hub's sweep finds those that are silent.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use partyline_wire::rendezvous::MAX_MESSAGE;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::codec::{Decoder, Incoming, Violation};
use crate::hub::Seat;

/// Longest message taken from a member: a sealed message and what is around it.
const MAX_INCOMING: usize = MAX_MESSAGE + 256;

/// How much is read or written at a time.
const CHUNK: usize = 16 * 1024;

/// How many chunks are read before other connections get their turn.
const READS_PER_TURN: usize = 4;

/// A member who has this much unread is not listened to until it has read.
const BACKLOG: usize = 64 * 1024;

/// RFC 6455's code for a purpose fulfilled.
const NORMAL: u16 = 1000;

/// How long a goodbye may take.
const LINGER: Duration = Duration::from_secs(3);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
    static WRITE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(2 * CHUNK));
}

/// Ends when the connection does.
pub(crate) struct Session<S> {
    stream: S,
    seat: Seat,
    decoder: Decoder,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    flushed: bool,
    goodbye: Goodbye,
    /// Runs while goodbyes are said.
    linger: Option<Pin<Box<Sleep>>>,
}

/// How far the closing handshake is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    /// Nobody has said it.
    Unsaid,
    /// We have, and wait for the member's.
    Said,
    /// Both have, or the member has and ours is on its way.
    Answered,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// `early` is what came before the upgrade was complete.
    pub(crate) fn new(stream: S, seat: Seat, early: &[u8]) -> Self {
        let mut session = Self {
            stream,
            seat,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            flushed: true,
            goodbye: Goodbye::Unsaid,
            linger: None,
        };
        session.take(&mut early.to_vec());
        session
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let Self { decoder, seat, goodbye, .. } = self;
        seat.heard();
        let listening = *goodbye == Goodbye::Unsaid;
        let fed = decoder.feed(bytes, MAX_INCOMING, |incoming| match incoming {
            Incoming::Message(message) if listening => seat.handle(message),
            Incoming::Ping(payload) if listening => seat.pong(payload),
            Incoming::Close(code) => {
                seat.close(code.unwrap_or(NORMAL), "");
                *goodbye = Goodbye::Answered;
            }
            Incoming::Message(_) | Incoming::Ping(_) => {}
        });
        if let Err(Violation(code, reason)) = fed {
            // Nothing that follows can be understood, so no answer is waited for.
            seat.close(code.into(), reason);
            *goodbye = Goodbye::Answered;
        }
    }

    /// Ready when the member has hung up or the connection is broken.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            if !self.listens() {
                return Poll::Pending;
            }
            let more = READ.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
                let bytes = buffer.filled_mut();
                let more = read.is_ok() && !bytes.is_empty();
                if more {
                    self.take(bytes);
                }
                Poll::Ready(more)
            });
            if !ready!(more) {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn listens(&self) -> bool {
        self.goodbye != Goodbye::Answered && self.seat.backlog() <= BACKLOG
    }

    /// Ready with `Ok` when everything is out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.unsent.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
                self.unsent.drain(..written);
            }
            self.unsent = Vec::new();
            if !self.poll_write_queued(cx)? {
                break;
            }
            self.flushed = false;
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes one chunk of what is queued and keeps what the socket does not take. Says whether there was any.
    fn poll_write_queued(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        WRITE.with_borrow_mut(|chunk| {
            chunk.clear();
            let closing = self.seat.collect(chunk, CHUNK);
            if closing && self.goodbye == Goodbye::Unsaid {
                self.goodbye = Goodbye::Said;
            }
            let written = match Pin::new(&mut self.stream).poll_write(cx, chunk) {
                _ if chunk.is_empty() => return Ok(false),
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.unsent.extend_from_slice(chunk.get(written..).unwrap_or_default());
            Ok(true)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.goodbye == Goodbye::Unsaid && !self.seat.is_closing() {
            return Poll::Pending;
        }
        self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Session<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.seat.register(cx.waker());
        let listened = this.listens();
        if this.poll_read(cx).is_ready() {
            return Poll::Ready(());
        }
        match this.poll_write(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) if this.goodbye == Goodbye::Answered => {
                // The member waits for the end of the stream; whether it gets it is its own affair.
                let _ = Pin::new(&mut this.stream).poll_shutdown(cx);
                return Poll::Ready(());
            }
            _ => {}
        }
        if !listened && this.listens() {
            cx.waker().wake_by_ref();
        }
        this.poll_linger(cx)
    }
}
