//! Buffers for what one system call receives.

use std::{
    array,
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
};

use quinn_udp::{BATCH_SIZE, RecvMeta};

/// Buffers given to one call; each takes a whole coalesced burst.
const BUFFERS: usize = if BATCH_SIZE < 16 { BATCH_SIZE } else { 16 };
/// The longest burst that the kernel coalesces, in bytes.
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
    /// Its source.
    pub from: SocketAddr,
    /// The destination, one of this computer's addresses, where the system reports it.
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

    /// Returns the datagrams in the order they arrived.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let buffers = self.bytes.chunks_exact(BUFFER_LEN).zip(&self.meta).take(self.filled);
        buffers.flat_map(|(buffer, meta)| {
            let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
            datagrams.map(|bytes| Datagram { from: meta.addr, to: meta.dst_ip, bytes })
        })
    }

    /// Returns the number of datagrams and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        let received = self.meta.iter().take(self.filled);
        received.fold((0, 0), |(datagrams, bytes), meta| {
            let count = meta.len.div_ceil(meta.stride.max(1)) as u64;
            (datagrams + count, bytes + meta.len as u64)
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
