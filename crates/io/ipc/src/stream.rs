//! Reads and writes whole frames on a local socket.

use std::{io, time::Duration};

use interprocess::local_socket::tokio::Stream;
use partyline_wire::ipc::{Decoder, Frame, FrameError, encode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// Bounds the time to write one frame, so that a peer that does not read is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes read at once.
const READ_CHUNK: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side closed it.
    #[error("the connection was closed")]
    Closed,
    /// The system reported an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes received are not a frame, or the value to send is too long for one.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads frames from one direction of a connection.
#[derive(Debug)]
pub struct FrameReader<'a, F> {
    stream: &'a Stream,
    decoder: Decoder<F>,
}

impl<'a, F: Frame> FrameReader<'a, F> {
    pub fn new(stream: &'a Stream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// Waits for the next frame. Cancel safe: no bytes are lost if the future is dropped.
    ///
    /// # Errors
    /// If the connection ended or the bytes are not a frame.
    pub async fn next(&mut self) -> Result<F, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let mut chunk = self.stream.take(READ_CHUNK as u64);
            if chunk.read_buf(self.decoder.buffer()).await? == 0 {
                return Err(StreamError::Closed);
            }
        }
    }
}

/// Writes one frame. Not cancel safe: half a frame may have been written if the future is dropped.
///
/// # Errors
/// If the frame is too long, the connection ended, or the peer does not read for 30 s.
pub async fn write<F: Frame + Sync>(mut stream: &Stream, frame: &F) -> Result<(), StreamError> {
    let bytes = encode(frame)?;
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the other side does not read");
    Ok(timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await.map_err(slow)??)
}
