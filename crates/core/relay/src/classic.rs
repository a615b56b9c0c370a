//! Binding requests of RFC 3489, for clients that still send them: the same without the magic cookie, with a transaction id of
//! 16 bytes.

use std::net::{IpAddr, SocketAddr};

use crate::listeners::Listeners;

const HEADER_LEN: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const CHANGE_REQUEST: u16 = 3;
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;
const MAPPED_ADDRESS: u8 = 1;
const SOURCE_ADDRESS: u8 = 4;
const CHANGED_ADDRESS: u8 = 5;

/// A classic Binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassicRequest {
    id: [u8; 16],
    /// The flags of CHANGE-REQUEST, the only attribute that matters.
    change: u8,
}

impl ClassicRequest {
    /// Decodes a request, or returns `None` if it is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, attributes) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let id = header[4..].try_into().ok()?;
        (header[..2] == BINDING_REQUEST && length == attributes.len())
            .then(|| Self { id, change: change_flags(attributes) })
    }

    /// Returns the listener to answer from and the response, or `None` without such a listener.
    pub(crate) fn answer(
        &self,
        listeners: &Listeners,
        index: u8,
        client: SocketAddr,
    ) -> Option<(u8, Vec<u8>)> {
        let from = listeners.other(index, self.change & CHANGE_IP != 0, self.change & CHANGE_PORT != 0)?;
        let addresses = [
            (MAPPED_ADDRESS, Some(client)),
            (SOURCE_ADDRESS, listeners.public(from)),
            (CHANGED_ADDRESS, listeners.other_address(index)),
        ];
        Some((from, self.response(addresses)))
    }

    fn response(&self, addresses: [(u8, Option<SocketAddr>); 3]) -> Vec<u8> {
        let mut out = vec![1, 1, 0, 0];
        out.extend_from_slice(&self.id);
        for (kind, address) in addresses {
            // RFC 3489 has IPv4 only.
            let Some((IpAddr::V4(ip), port)) = address.map(|address| (address.ip(), address.port())) else {
                continue;
            };
            out.extend_from_slice(&[0, kind, 0, 8, 0, 1]);
            out.extend_from_slice(&port.to_be_bytes());
            out.extend_from_slice(&ip.octets());
        }
        let length = (out.len() - HEADER_LEN) as u16;
        out[2..4].copy_from_slice(&length.to_be_bytes());
        out
    }
}

fn change_flags(mut attributes: &[u8]) -> u8 {
    while let Some((&[a, b, c, d], rest)) = attributes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([c, d]));
        let Some((value, rest)) = rest.split_at_checked(length) else { return 0 };
        if u16::from_be_bytes([a, b]) == CHANGE_REQUEST {
            return value.get(3).copied().unwrap_or(0);
        }
        attributes = rest;
    }
    0
}
