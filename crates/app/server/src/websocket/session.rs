//! One member's WebSocket, as a future without buffers of its own.
//!
//! Bytes are read into a buffer that belongs to the thread, and written from another one; only what a slow socket does not
//! accept, or half a received frame, is kept with the connection. There is no timer either, except during the closing
//! handshake: the hub's sweep finds members that are silent.

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
use crate::hub::{CLOSE_NORMAL, ConnectionHandle};

/// Maximum length of a member's message in bytes: a sealed message and the frame around it.
const MAX_INCOMING: usize = MAX_MESSAGE + 256;

/// Bytes read or written at a time.
const CHUNK: usize = 16 * 1024;

/// Maximum number of chunks read before other connections get their turn.
const READS_PER_TURN: usize = 4;

/// Backlog in bytes from which a member's frames are not read until it has read its own.
const BACKLOG_BEFORE_READING_STOPS: usize = 64 * 1024;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
    static WRITE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(2 * CHUNK));
}

/// Serves a WebSocket; resolves when the connection has ended.
pub(crate) struct Session<S> {
    stream: S,
    handle: ConnectionHandle,
    decoder: Decoder,
    /// Bytes that the socket has not accepted yet.
    unsent: Vec<u8>,
    flushed: bool,
    close_state: CloseState,
    /// Bounds the closing handshake.
    close_timer: Option<Pin<Box<Sleep>>>,
}

/// Progress of the closing handshake (RFC 6455, section 7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseState {
    /// Neither side has sent a close frame.
    Open,
    /// The server's close frame is sent, the member's is awaited.
    CloseSent,
    /// The member's close frame has arrived, or none is expected; the server's is sent or queued.
    CloseReceived,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Starts a session. `early` is what the member sent before the upgrade was complete.
    pub(crate) fn new(stream: S, handle: ConnectionHandle, early: &[u8]) -> Self {
        let mut session = Self {
            stream,
            handle,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            flushed: true,
            close_state: CloseState::Open,
            close_timer: None,
        };
        session.handle_bytes(&mut early.to_vec());
        session
    }

    fn handle_bytes(&mut self, bytes: &mut [u8]) {
        let Self { decoder, handle, close_state, .. } = self;
        handle.on_received();
        let is_open = *close_state == CloseState::Open;
        let fed = decoder.feed(bytes, MAX_INCOMING, |incoming| match incoming {
            Incoming::Message(message) if is_open => handle.handle_message(message),
            Incoming::Ping(payload) if is_open => handle.pong(payload),
            Incoming::Close(code) => {
                handle.close(code.unwrap_or(CLOSE_NORMAL), "");
                *close_state = CloseState::CloseReceived;
            }
            Incoming::Message(_) | Incoming::Ping(_) => {}
        });
        if let Err(Violation(code, reason)) = fed {
            tracing::debug!(code = u16::from(code), reason, "member violated the WebSocket protocol");
            // Nothing that follows can be decoded, so no close frame is awaited.
            handle.close(code.into(), reason);
            *close_state = CloseState::CloseReceived;
        }
    }

    /// Ready when the member has hung up or the connection is broken.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            if !self.wants_read() {
                return Poll::Pending;
            }
            let more = READ.with_borrow_mut(|chunk| {
                let mut buffer = ReadBuf::new(chunk);
                let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
                let bytes = buffer.filled_mut();
                let more = read.is_ok() && !bytes.is_empty();
                if more {
                    self.handle_bytes(bytes);
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

    fn wants_read(&self) -> bool {
        self.close_state != CloseState::CloseReceived && self.handle.backlog() <= BACKLOG_BEFORE_READING_STOPS
    }

    /// Ready with `Ok` when everything is sent.
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

    /// Writes one chunk of the queue and keeps what the socket does not accept. Returns false if the queue is empty.
    fn poll_write_queued(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        WRITE.with_borrow_mut(|chunk| {
            chunk.clear();
            let has_close = self.handle.drain_into(chunk, CHUNK);
            if has_close && self.close_state == CloseState::Open {
                self.close_state = CloseState::CloseSent;
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

    fn poll_close_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.close_state == CloseState::Open && !self.handle.is_closing() {
            return Poll::Pending;
        }
        self.close_timer.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT))).as_mut().poll(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Session<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.handle.register(cx.waker());
        let wanted_read = this.wants_read();
        if this.poll_read(cx).is_ready() {
            return Poll::Ready(());
        }
        match this.poll_write(cx) {
            Poll::Ready(Err(error)) => {
                tracing::debug!(reason = %error, "cannot send to the member");
                return Poll::Ready(());
            }
            Poll::Ready(Ok(())) if this.close_state == CloseState::CloseReceived => {
                // The member waits for the end of the stream; nothing depends on whether it sees it.
                let _ = Pin::new(&mut this.stream).poll_shutdown(cx);
                return Poll::Ready(());
            }
            _ => {}
        }
        // Writing may have made room for reading, which no waker would announce.
        if !wanted_read && this.wants_read() {
            cx.waker().wake_by_ref();
        }
        this.poll_close_timer(cx)
    }
}
