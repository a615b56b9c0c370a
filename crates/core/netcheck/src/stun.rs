//! Binding requests and the answers to them (RFC 8489), with what behaviour discovery adds (RFC 5780).
//!
//! A request carries a FINGERPRINT and, for filtering tests, CHANGE-REQUEST, which asks the server to answer from its
//! other port or from its other address and port. An answer tells where the server saw us in XOR-MAPPED-ADDRESS (old
//! servers: MAPPED-ADDRESS, which some NATs rewrite) and may tell the server's other address in OTHER-ADDRESS.

use std::net::SocketAddr;

use partyline_wire::credentials::Credentials;
use stun_rs::{
    AttributeType, MAGIC_COOKIE, MessageClass, MessageDecoder, MessageEncoderBuilder, StunAttribute,
    StunMessage, StunMessageBuilder, TransactionId,
    attributes::{
        discovery::{ChangeRequest, ChangeRequestFlags, OtherAddress, ResponsePort},
        stun::{AlternateServer, ErrorCode, Fingerprint, MappedAddress, XorMappedAddress},
    },
    get_input_text,
    methods::BINDING,
};

/// Twelve bytes that nobody off the path can guess.
pub(crate) type Id = [u8; 12];

/// From where, or to where, the server is asked to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// From where it was asked.
    Nothing,
    /// From its other port.
    Port,
    /// From its other address and port.
    AddressAndPort,
    /// To another port of ours (RESPONSE-PORT).
    ToPort(u16),
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Where it saw us.
    pub(crate) mapped: SocketAddr,
    /// Where else it listens.
    pub(crate) other: Option<SocketAddr>,
}

/// Why there is no answer in a datagram that pretends to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Not well-formed, or its FINGERPRINT is wrong. The true answer may still come.
    Malformed,
    /// A valid refusal, or an answer that must not be used (RFC 8489, 6.3.3). No other will come.
    Unusable,
    /// The server wants to know who asks, or wants it said with another nonce (401, 438).
    Challenge,
    /// The server sends us to another one (300).
    Redirection(SocketAddr),
}

const LONGEST_REQUEST: usize = 1500;
const HEADER: usize = 20;
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;

/// Sent by servers that still speak RFC 3489 too; their meaning is known and of no use to us.
const SOURCE_ADDRESS: u16 = 0x0004;
const CHANGED_ADDRESS: u16 = 0x0005;

/// The transaction that a datagram claims to answer, if it is the answer to a Binding request at all.
pub(crate) fn answered_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == SUCCESS || kind == ERROR)
}

/// The transaction that a Binding request begins.
pub(crate) fn requested_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == REQUEST)
}

/// The token of a Binding indication.
pub(crate) fn indicated_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == INDICATION)
}

/// A Binding indication with nothing in it.
pub(crate) fn indication(id: Id) -> Vec<u8> {
    let mut bytes = [INDICATION.to_be_bytes(), [0; 2]].concat();
    bytes.extend(MAGIC_COOKIE.as_u32().to_be_bytes());
    bytes.extend(id);
    bytes
}

fn id_of(bytes: &[u8], wanted: impl Fn(u16) -> bool) -> Option<Id> {
    let header = bytes.get(..HEADER)?;
    let kind = u16::from_be_bytes([header[0], header[1]]);
    let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let ours = wanted(kind) && cookie == MAGIC_COOKIE.as_u32();
    ours.then(|| header[8..].try_into().ok()).flatten()
}

/// A Binding request, signed if there is something to sign it with.
pub(crate) fn request(id: Id, change: Change, credentials: Option<&Credentials>) -> Vec<u8> {
    let flags = match change {
        Change::Nothing | Change::ToPort(_) => None,
        Change::Port => Some(ChangeRequestFlags::ChangePort.into()),
        Change::AddressAndPort => Some(ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort),
    };
    let begin = || {
        StunMessageBuilder::new(BINDING, MessageClass::Request).with_transaction_id(TransactionId::from(id))
    };
    let mut message = begin();
    if flags.is_some() {
        message = message.with_attribute(ChangeRequest::new(flags));
    }
    if let Change::ToPort(port) = change {
        message = message.with_attribute(ResponsePort::from(port));
    }
    // A user name that cannot be said is as good as none: the server refuses.
    let message = match credentials {
        Some(credentials) => credentials.add_attributes(message).unwrap_or_else(begin),
        None => message,
    };
    let message = message.with_attribute(Fingerprint::default()).build();
    let mut buffer = vec![0; LONGEST_REQUEST];
    // The only error there is, a short buffer, cannot be: user name, realm and nonce have their limits.
    let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &message).unwrap_or(0);
    buffer.truncate(length);
    buffer
}

/// A whole message whose fingerprint is right if it has one.
pub(crate) fn message(bytes: &[u8]) -> Option<StunMessage> {
    let (message, length) = MessageDecoder::default().decode(bytes).ok()?;
    let fingerprint = message.get::<Fingerprint>().and_then(|a| a.as_fingerprint().ok());
    let right = fingerprint.is_none_or(|fingerprint| {
        get_input_text::<Fingerprint>(bytes).is_some_and(|t| fingerprint.validate(&t))
    });
    (right && length == bytes.len()).then_some(message)
}

/// Reads the answer of a server of one address family. One to whom we say who we are must prove that it
/// knows our password.
pub(crate) fn answer(
    bytes: &[u8],
    server: SocketAddr,
    credentials: Option<&mut Credentials>,
) -> Result<Answer, Flaw> {
    let message = message(bytes).ok_or(Flaw::Malformed)?;
    let understood = message.attributes().iter().all(|attribute| !unknown_and_required(attribute));
    if message.class() != MessageClass::SuccessResponse || !understood {
        return Err(refusal(&message, server));
    }
    if credentials.is_some_and(|c| c.signs_requests() && !c.verify(bytes, &message)) {
        return Err(Flaw::Malformed);
    }
    let mapped = mapped_address(&message).filter(|a| is_unicast(*a) && a.is_ipv4() == server.is_ipv4());
    let other = other_address(&message).filter(|other| is_plausible_other(server, *other));
    mapped.map(|mapped| Answer { mapped, other }).ok_or(Flaw::Unusable)
}

fn refusal(message: &StunMessage, server: SocketAddr) -> Flaw {
    let code = message.get::<ErrorCode>().and_then(|a| a.as_error_code().ok());
    let alternate = message.get::<AlternateServer>().and_then(|a| a.as_alternate_server().ok());
    match (code.map(|code| code.error_code().error_code()), alternate.map(|a| *a.socket_address())) {
        (Some(401 | 438), _) => Flaw::Challenge,
        (Some(300), Some(to)) if is_plausible(server, to) => Flaw::Redirection(to),
        _ => Flaw::Unusable,
    }
}

fn unknown_and_required(attribute: &StunAttribute) -> bool {
    let kind = attribute.attribute_type();
    let tolerated = [SOURCE_ADDRESS, CHANGED_ADDRESS].map(AttributeType::from);
    attribute.is_unknown() && kind.is_comprehension_required() && !tolerated.contains(&kind)
}

fn mapped_address(message: &StunMessage) -> Option<SocketAddr> {
    let xored = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
    let plain = || message.get::<MappedAddress>().and_then(|a| a.as_mapped_address().ok());
    xored.map(|a| *a.socket_address()).or_else(|| plain().map(|a| *a.socket_address()))
}

fn other_address(message: &StunMessage) -> Option<SocketAddr> {
    message.get::<OtherAddress>()?.as_other_address().ok().map(|a| *a.socket_address())
}

fn is_unicast(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

fn is_plausible_other(server: SocketAddr, other: SocketAddr) -> bool {
    let differs = other.ip() != server.ip() && other.port() != server.port();
    differs && is_plausible(server, other)
}

/// A server must not aim us at anything but an address of the same kind as its own: a public one must not name
/// something in our LAN.
fn is_plausible(server: SocketAddr, named: SocketAddr) -> bool {
    is_unicast(named) && named.is_ipv4() == server.is_ipv4() && (!is_public(server) || is_public(named))
}

/// Whether an address is one of the Internet's rather than of some network's own.
pub(crate) fn is_public(address: SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        std::net::IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests;
