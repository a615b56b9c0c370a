//! Binding requests: "which address do you see me at" (RFC 8489), from where one likes (RFC 5780), and in the words of RFC 3489
//! for clients that still speak it.
//!
//! With listeners on two addresses and two ports each, a client can ask to be answered from another address or port, and
//! so finds out how its NAT maps and filters. The other listener of listener (address a, port p) is the one that differs
//! in what was asked for.
//!
//! An answer is at most about four times as long as a bare request, goes to the address the request came from (on another port
//! if asked), and is subject to the rate for strangers; so this is of little use to those who would flood others.

use std::net::{IpAddr, SocketAddr};

use partyline_model::Now;
use stun_rs::{
    StunAttribute,
    attributes::{
        discovery::{ChangeRequestFlags, OtherAddress, Padding, ResponseOrigin},
        stun::{MappedAddress, XorMappedAddress},
    },
    methods::BINDING,
};

use crate::{
    ClientTransport, Forward, Listener, Relay,
    allocation::Client,
    request::{Reply, Request},
};

const CHANGE_REQUEST: u16 = 0x0003;
const RESPONSE_PORT: u16 = 0x0027;
const PADDING: u16 = 0x0026;

impl Relay {
    pub(crate) fn binding(&mut self, client: Client, request: &Request<'_>) {
        let refused: &[u16] = match client.transport {
            ClientTransport::Udp(_) => &[],
            // A connection has one address at either end.
            ClientTransport::Stream(_) => &[CHANGE_REQUEST, RESPONSE_PORT, PADDING],
        };
        let unknown = request.not_understood(refused);
        let (transport, to, reply) = if unknown.is_empty() {
            self.located(client, request)
        } else {
            (client.transport, client.address, Reply::unknown_attributes(BINDING, request.id(), &unknown))
        };
        self.counters.bindings += 1;
        if let Some(payload) = reply.fingerprint(request.has_fingerprint()).encode() {
            self.transmit(transport, to, payload);
        }
    }

    /// Where to answer from and to, and what.
    fn located(&self, client: Client, request: &Request<'_>) -> (ClientTransport, SocketAddr, Reply) {
        let success = Reply::success(BINDING, request.id())
            .with(XorMappedAddress::from(client.address))
            .with(MappedAddress::from(client.address));
        let ClientTransport::Udp(index) = client.transport else {
            return (client.transport, client.address, success);
        };
        let refused = |code| (client.transport, client.address, Reply::error(BINDING, request.id(), code));
        let flags = request.find(|attribute| attribute.as_change_request().ok().map(|change| change.flags()));
        let change = |flag| flags.is_some_and(|flags| flags.contains(flag));
        let (ip, port) = (change(ChangeRequestFlags::ChangeIp), change(ChangeRequestFlags::ChangePort));
        let Some(from) = self.other(index, ip, port) else { return refused(420) };
        let response_port =
            request.find(|attribute| attribute.as_response_port().ok().map(|port| port.as_u16()));
        let padding = request.find(padding_length);
        if response_port.is_some() && padding.is_some() {
            return refused(400);
        }
        let mut to = client.address;
        to.set_port(response_port.unwrap_or(to.port()));
        (ClientTransport::Udp(from), to, self.with_origin(success, from, index, padding))
    }

    fn with_origin(&self, mut reply: Reply, from: u8, received: u8, padding: Option<usize>) -> Reply {
        if let Some(origin) = self.public(from).filter(|origin| !origin.ip().is_unspecified()) {
            reply = reply.with(ResponseOrigin::from(origin));
        }
        let other = self.other(received, true, true).and_then(|other| self.public(other));
        if let Some(other) = other {
            reply = reply.with(OtherAddress::from(other));
        }
        match padding.map(|length| Padding::new("\0".repeat(length))) {
            Some(Ok(padding)) => reply.with(padding),
            _ => reply,
        }
    }

    fn public(&self, index: u8) -> Option<SocketAddr> {
        self.listeners.get(usize::from(index)).map(|listener| listener.public)
    }

    /// The listener that differs from one in address, in port, in both, or (the same) in none.
    fn other(&self, index: u8, other_ip: bool, other_port: bool) -> Option<u8> {
        let this = self.listeners.get(usize::from(index))?.public;
        let matches = |listener: &Listener| {
            let that = listener.public;
            that.is_ipv4() == this.is_ipv4()
                && (that.ip() != this.ip()) == other_ip
                && (that.port() != this.port()) == other_port
        };
        let found = self.listeners.iter().position(matches)?;
        u8::try_from(found).ok()
    }

    /// A Binding request of RFC 3489: the same without the cookie, its transaction id being 16 bytes long.
    pub(crate) fn classic(&mut self, now: Now, client: Client, bytes: &[u8]) -> Forward {
        let (ClientTransport::Udp(index), Some((&[0, 1, high, low], rest))) =
            (client.transport, bytes.split_first_chunk())
        else {
            return self.malformed();
        };
        let Some((id, attributes)) = rest.split_first_chunk::<16>() else { return self.malformed() };
        if usize::from(u16::from_be_bytes([high, low])) != attributes.len() {
            return self.malformed();
        }
        if !self.admits(now, client) {
            return Forward::Consumed;
        }
        self.counters.requests += 1;
        let flags = classic_change(attributes);
        if let Some(from) = self.other(index, flags & 4 != 0, flags & 2 != 0) {
            let changed = self.other(index, true, true).and_then(|other| self.public(other));
            let payload = classic_response(id, client.address, self.public(from), changed);
            self.counters.bindings += 1;
            self.transmit(ClientTransport::Udp(from), client.address, payload);
        }
        Forward::Consumed
    }
}

fn padding_length(attribute: &StunAttribute) -> Option<usize> {
    attribute.as_padding().ok().map(|padding| padding.as_str().len())
}

/// The flags of CHANGE-REQUEST, which is all that matters of an old request.
fn classic_change(mut attributes: &[u8]) -> u8 {
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

fn classic_response(
    id: &[u8; 16],
    mapped: SocketAddr,
    source: Option<SocketAddr>,
    changed: Option<SocketAddr>,
) -> Vec<u8> {
    const MAPPED_ADDRESS: u8 = 1;
    const SOURCE_ADDRESS: u8 = 4;
    const CHANGED_ADDRESS: u8 = 5;
    let attributes = [(MAPPED_ADDRESS, Some(mapped)), (SOURCE_ADDRESS, source), (CHANGED_ADDRESS, changed)];
    let mut out = vec![1, 1, 0, 0];
    out.extend_from_slice(id);
    for (kind, address) in attributes {
        // The old protocol knows IPv4 only.
        let Some((IpAddr::V4(ip), port)) = address.map(|address| (address.ip(), address.port())) else {
            continue;
        };
        out.extend_from_slice(&[0, kind, 0, 8, 0, 1]);
        out.extend_from_slice(&port.to_be_bytes());
        out.extend_from_slice(&ip.octets());
    }
    let length = (out.len() - 20) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out
}
