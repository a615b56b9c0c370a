//! A stream whose first byte was read to find out its protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Returns the byte that was read ahead before everything else.
#[derive(Debug)]
pub(crate) struct Peeked<S> {
    first: Option<u8>,
    inner: S,
}

impl<S: AsyncRead + Unpin> Peeked<S> {
    /// Waits for the first byte; `None` if the stream ends without one.
    pub(crate) async fn new(mut inner: S) -> io::Result<Option<(u8, Self)>> {
        let mut byte = [0];
        match inner.read(&mut byte).await? {
            0 => Ok(None),
            _ => Ok(Some((byte[0], Self { first: Some(byte[0]), inner }))),
        }
    }
}

impl<S> Peeked<S> {
    /// Returns the stream, without the byte that was read ahead.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Peeked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Peeked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_byte_is_seen_and_still_read() {
        let (first, mut stream) = Peeked::new(&b"GET"[..]).await.unwrap().unwrap();
        assert_eq!(first, b'G');
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "GET");
        assert!(Peeked::new(&b""[..]).await.unwrap().is_none());
    }
}
