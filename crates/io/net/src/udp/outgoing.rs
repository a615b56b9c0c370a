//! Datagrams that leave together.

use std::net::{IpAddr, SocketAddr};

/// Datagrams to send to one address.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The destination.
    pub to: SocketAddr,
    /// The source address, one of this computer's; `None` lets the system choose.
    pub from: Option<IpAddr>,
    /// The datagrams, back to back.
    pub bytes: &'a [u8],
    /// Length of each but the last, which may be shorter. At least 1.
    pub segment: usize,
}

impl<'a> Outgoing<'a> {
    /// A single datagram.
    #[must_use]
    pub const fn one(to: SocketAddr, bytes: &'a [u8]) -> Self {
        let segment = if bytes.is_empty() { 1 } else { bytes.len() };
        Self { to, from: None, bytes, segment }
    }
}
