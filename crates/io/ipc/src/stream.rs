//! Whole frames over the two directions of a local socket.

use std::{io, time::Duration};

use interprocess::local_socket::tokio::Stream;
use partyline_wire::ipc::{Decoder, Frame, FrameError, encode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// How long the other side may take to read one frame before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most bytes read at once.
const CHUNK: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side closed it.
    #[error("the connection was closed")]
    Closed,
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is not a frame, or what should go is too long for one.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<'a, F> {
    stream: &'a Stream,
    decoder: Decoder<F>,
}

impl<'a, F: Frame> FrameReader<'a, F> {
    pub fn new(stream: &'a Stream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next frame. Can be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<F, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let mut chunk = self.stream.take(CHUNK as u64);
            if chunk.read_buf(self.decoder.buffer()).await? == 0 {
                return Err(StreamError::Closed);
            }
        }
    }
}

/// Writes one frame. Must not be dropped while it waits, as half a frame may be under way.
pub async fn write<F: Frame + Sync>(mut stream: &Stream, frame: &F) -> Result<(), StreamError> {
    let bytes = encode(frame)?;
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the other side does not read");
    Ok(timeout(PATIENCE, stream.write_all(&bytes)).await.map_err(slow)??)
}
