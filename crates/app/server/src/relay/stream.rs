//! A TCP or TLS client: frames it sends go into the relay's inbox, frames for it wait in a queue.
//!
//! While the inbox is full, the client is not read from, so that TCP's flow control slows it down.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use partyline_relay::{Frame, next_frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    arena::MAX_DATAGRAM,
    frame_queue::FrameQueue,
    inbox::{Inbound, Inbox},
};

/// How long a client may take to send its first message.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a client until it disconnects, violates the protocol, is silent for longer than `idle_timeout`, or the relay
/// shuts down.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    number: u32,
    peer: SocketAddr,
    inbox: Inbox,
    already_read: Bytes,
    idle_timeout: Duration,
) {
    let queue = Arc::new(FrameQueue::default());
    if !inbox.send(Inbound::Connected { stream: number, queue: queue.clone() }).await {
        return;
    }
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_frames(reader, number, peer, &inbox, already_read, idle_timeout) => ended,
        ended = write_frames(writer, &queue) => ended,
    };
    let reason = ended.map_or_else(|error| error.to_string(), |()| "end of stream".to_owned());
    tracing::debug!(stream = number, dropped = queue.dropped(), reason, "relay client disconnected");
    inbox.send(Inbound::Disconnected { stream: number, peer }).await;
}

async fn read_frames(
    mut reader: impl AsyncRead + Unpin,
    stream: u32,
    peer: SocketAddr,
    inbox: &Inbox,
    already_read: Bytes,
    idle_timeout: Duration,
) -> io::Result<()> {
    let (mut buffer, mut read_timeout) = (BytesMut::from(already_read), FIRST_MESSAGE_TIMEOUT);
    loop {
        while let Some(bytes) = next_message(&mut buffer)? {
            if !inbox.send(Inbound::Frame { stream, peer, bytes }).await {
                return Ok(());
            }
            read_timeout = idle_timeout;
        }
        buffer.reserve(2 * MAX_DATAGRAM);
        if timeout(read_timeout, reader.read_buf(&mut buffer)).await?? == 0 {
            return Ok(());
        }
    }
}

/// Splits the next message off the buffer, without its padding.
fn next_message(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    match next_frame(buffer) {
        Frame::Complete { length, .. } if length > MAX_DATAGRAM => Err(io::ErrorKind::InvalidData.into()),
        Frame::Complete { length, advance } => Ok(Some(buffer.split_to(advance).freeze().slice(..length))),
        Frame::Partial if buffer.len() <= MAX_DATAGRAM => Ok(None),
        Frame::Partial | Frame::Invalid => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn write_frames(mut writer: impl AsyncWrite + Unpin, queue: &FrameQueue) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while queue.take(&mut buffer).await.is_some() {
        writer.write_all_buf(&mut buffer).await?;
        writer.flush().await?;
        buffer.clear();
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_off_with_their_padding() {
        let mut buffer = BytesMut::from(&[0x40, 0, 0, 1, 9, 0, 0, 0, 0x40, 1][..]);
        assert_eq!(next_message(&mut buffer).unwrap().unwrap(), &[0x40, 0, 0, 1, 9][..]);
        assert_eq!(next_message(&mut buffer).unwrap(), None);
        assert_eq!(buffer.len(), 2);
        assert!(next_message(&mut BytesMut::from(&[0x80, 0, 0, 0][..])).is_err());
    }
}
