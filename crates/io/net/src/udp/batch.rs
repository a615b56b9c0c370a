//! Room for what one system call receives.

use std::{
    array,
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
};

use quinn_udp::{BATCH_SIZE, RecvMeta};

/// Buffers given to one call. Each takes a whole coalesced burst, so a few carry a lot.
const BUFFERS: usize = if BATCH_SIZE < 16 { BATCH_SIZE } else { 16 };
/// The largest burst the kernel coalesces.
const BUFFER_LEN: usize = 64 * 1024;

/// Datagrams received by one call; its memory is reused by the next.
pub struct RecvBatch {
    bytes: Vec<u8>,
    meta: [RecvMeta; BUFFERS],
    filled: usize,
}

/// One datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// To which of this computer's addresses, where the system says so.
    pub to: Option<IpAddr>,
    /// Its contents.
    pub bytes: &'a [u8],
}

impl RecvBatch {
    /// An empty batch. Pages are only used once something fills them.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; BUFFERS * BUFFER_LEN], meta: [RecvMeta::default(); BUFFERS], filled: 0 }
    }

    /// The datagrams, in the order they arrived.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let buffers = self.bytes.chunks_exact(BUFFER_LEN).zip(&self.meta).take(self.filled);
        buffers.flat_map(|(buffer, meta)| {
            let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
            datagrams.map(|bytes| Datagram { from: meta.addr, to: meta.dst_ip, bytes })
        })
    }

    /// Lets `receive` fill the buffers; it returns how many it used.
    pub(super) fn fill<E>(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.filled = 0;
        let mut rest = self.bytes.as_mut_slice();
        let mut slices: [IoSliceMut<'_>; BUFFERS] = array::from_fn(|_| {
            let (buffer, tail) = std::mem::take(&mut rest).split_at_mut(BUFFER_LEN);
            rest = tail;
            IoSliceMut::new(buffer)
        });
        self.filled = receive(&mut slices, &mut self.meta)?;
        Ok(())
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}
