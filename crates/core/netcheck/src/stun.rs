//! Binding requests and responses (RFC 8489) with the attributes of NAT behavior discovery (RFC 5780).
//!
//! A request carries FINGERPRINT. For filtering tests it also carries CHANGE-REQUEST, which asks the server to respond
//! from its other port or from its other address and port; for lifetime tests RESPONSE-PORT, which asks it to respond
//! to another port. A response tells the client's reflexive address in XOR-MAPPED-ADDRESS (old servers:
//! MAPPED-ADDRESS, which some NATs rewrite) and may tell the server's alternate address in OTHER-ADDRESS.

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

use crate::address::{is_public, is_unicast};

/// A transaction id, or the token of an indication: twelve random bytes, unknown off the path.
pub(crate) type Id = [u8; 12];

/// Where a server is asked to respond from, or to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ResponseRouting {
    /// From the address that received the request, to the one that sent it.
    Default,
    /// From the server's other port (CHANGE-REQUEST with the change-port flag).
    ChangePort,
    /// From the server's other address and port (CHANGE-REQUEST with both flags).
    ChangeAddressAndPort,
    /// To another port of the client's address (RESPONSE-PORT).
    ToPort(u16),
}

/// The content of a Binding success response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindingResponse {
    /// The client's reflexive address.
    pub(crate) reflexive: SocketAddr,
    /// The server's alternate address and port, if it has them.
    pub(crate) other_address: Option<SocketAddr>,
}

/// Why a datagram with the id of a transaction is no usable response to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// Not well-formed, or FINGERPRINT or MESSAGE-INTEGRITY is wrong. The true response may still come.
    Malformed,
    /// An error response, or a response that must not be used (RFC 8489, section 6.3.3). No other will come.
    Unusable,
    /// The server requires authentication or another nonce (401, 438).
    Challenge,
    /// The server redirects the client to another server (300).
    Redirect(SocketAddr),
}

/// The largest request: user name, realm and nonce have limits of their own.
const MAX_REQUEST_LEN: usize = 1500;
const HEADER_LEN: usize = 20;
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;

/// Sent by servers that still speak RFC 3489 too. They are comprehension-required, but of no use here.
const SOURCE_ADDRESS: u16 = 0x0004;
const CHANGED_ADDRESS: u16 = 0x0005;

/// Returns the transaction id of a Binding response, or `None` for any other datagram.
pub(crate) fn response_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == SUCCESS || kind == ERROR)
}

/// Returns the transaction id of a Binding request, or `None` for any other datagram.
pub(crate) fn request_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == REQUEST)
}

/// Returns the token of a Binding indication, or `None` for any other datagram.
pub(crate) fn indication_id(bytes: &[u8]) -> Option<Id> {
    id_of(bytes, |kind| kind == INDICATION)
}

fn id_of(bytes: &[u8], wanted: impl Fn(u16) -> bool) -> Option<Id> {
    let header = bytes.get(..HEADER_LEN)?;
    let kind = u16::from_be_bytes([header[0], header[1]]);
    let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let ours = wanted(kind) && cookie == MAGIC_COOKIE.as_u32();
    ours.then(|| header[8..].try_into().ok()).flatten()
}

/// Encodes a Binding indication without attributes.
pub(crate) fn indication(id: Id) -> Vec<u8> {
    let mut bytes = [INDICATION.to_be_bytes(), [0; 2]].concat();
    bytes.extend(MAGIC_COOKIE.as_u32().to_be_bytes());
    bytes.extend(id);
    bytes
}

/// Encodes a Binding request, signed if there are credentials.
pub(crate) fn request(id: Id, routing: ResponseRouting, credentials: Option<&Credentials>) -> Vec<u8> {
    let unsigned = || {
        StunMessageBuilder::new(BINDING, MessageClass::Request).with_transaction_id(TransactionId::from(id))
    };
    let message = match routing {
        ResponseRouting::Default => unsigned(),
        ResponseRouting::ChangePort => {
            unsigned().with_attribute(ChangeRequest::new(Some(ChangeRequestFlags::ChangePort.into())))
        }
        ResponseRouting::ChangeAddressAndPort => {
            let both = ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort;
            unsigned().with_attribute(ChangeRequest::new(Some(both)))
        }
        ResponseRouting::ToPort(port) => unsigned().with_attribute(ResponsePort::from(port)),
    };
    // A user name that cannot be encoded is as good as none: the server refuses the request.
    let message = match credentials {
        Some(credentials) => credentials.add_attributes(message).unwrap_or_else(unsigned),
        None => message,
    };
    let message = message.with_attribute(Fingerprint::default()).build();
    let mut buffer = vec![0; MAX_REQUEST_LEN];
    // The only possible error is a short buffer, which the limits of all attributes exclude.
    let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &message).unwrap_or(0);
    buffer.truncate(length);
    buffer
}

/// Decodes a whole message, whose FINGERPRINT is right if it has one.
pub(crate) fn decode(bytes: &[u8]) -> Option<StunMessage> {
    let (message, length) = MessageDecoder::default().decode(bytes).ok()?;
    let fingerprint = message.get::<Fingerprint>().and_then(|a| a.as_fingerprint().ok());
    let right = fingerprint.is_none_or(|fingerprint| {
        get_input_text::<Fingerprint>(bytes).is_some_and(|text| fingerprint.validate(&text))
    });
    (right && length == bytes.len()).then_some(message)
}

/// Parses the response of a server. With credentials that sign, the server must prove that it knows the password.
pub(crate) fn parse_response(
    bytes: &[u8],
    server: SocketAddr,
    credentials: Option<&mut Credentials>,
) -> Result<BindingResponse, ResponseError> {
    let message = decode(bytes).ok_or(ResponseError::Malformed)?;
    let understood = !message.attributes().iter().any(is_unknown_and_required);
    if message.class() != MessageClass::SuccessResponse || !understood {
        return Err(error_of(&message, server));
    }
    if credentials.is_some_and(|c| c.signs_requests() && !c.verify(bytes, &message)) {
        return Err(ResponseError::Malformed);
    }
    let reflexive = reflexive_address(&message).filter(|a| is_unicast(*a) && a.is_ipv4() == server.is_ipv4());
    let other_address = other_address(&message).filter(|other| is_plausible_other(server, *other));
    reflexive.map(|reflexive| BindingResponse { reflexive, other_address }).ok_or(ResponseError::Unusable)
}

fn error_of(message: &StunMessage, server: SocketAddr) -> ResponseError {
    let code = message.get::<ErrorCode>().and_then(|a| a.as_error_code().ok());
    let alternate = message.get::<AlternateServer>().and_then(|a| a.as_alternate_server().ok());
    match (code.map(|code| code.error_code().error_code()), alternate.map(|a| *a.socket_address())) {
        (Some(401 | 438), _) => ResponseError::Challenge,
        (Some(300), Some(to)) if is_plausible_server(server, to) => ResponseError::Redirect(to),
        _ => ResponseError::Unusable,
    }
}

fn is_unknown_and_required(attribute: &StunAttribute) -> bool {
    let kind = attribute.attribute_type();
    let tolerated = [SOURCE_ADDRESS, CHANGED_ADDRESS].map(AttributeType::from);
    attribute.is_unknown() && kind.is_comprehension_required() && !tolerated.contains(&kind)
}

fn reflexive_address(message: &StunMessage) -> Option<SocketAddr> {
    let xored = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
    let plain = || message.get::<MappedAddress>().and_then(|a| a.as_mapped_address().ok());
    xored.map(|a| *a.socket_address()).or_else(|| plain().map(|a| *a.socket_address()))
}

fn other_address(message: &StunMessage) -> Option<SocketAddr> {
    message.get::<OtherAddress>()?.as_other_address().ok().map(|a| *a.socket_address())
}

fn is_plausible_other(server: SocketAddr, other: SocketAddr) -> bool {
    let differs = other.ip() != server.ip() && other.port() != server.port();
    differs && is_plausible_server(server, other)
}

/// Returns true if a server may send the client to `named`. A public server must not aim it at the client's own
/// network.
fn is_plausible_server(server: SocketAddr, named: SocketAddr) -> bool {
    let same_family = named.is_ipv4() == server.is_ipv4();
    is_unicast(named) && same_family && (!is_public(server.ip()) || is_public(named.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769, section 2.2, without MESSAGE-INTEGRITY and FINGERPRINT.
    const SAMPLE_RESPONSE: [u8; 48] = [
        0x01, 0x01, 0x00, 0x1c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
        0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    ];

    fn server() -> SocketAddr {
        ([11, 0, 1, 1], 3478).into()
    }

    /// The sample response with attributes appended.
    fn response_with(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = [&SAMPLE_RESPONSE[..], attributes].concat();
        bytes[3] = u8::try_from(bytes.len() - 20).expect("short");
        bytes
    }

    #[test]
    fn sample_response_of_rfc_5769_is_parsed() {
        let response = parse_response(&SAMPLE_RESPONSE, server(), None).expect("well-formed");
        let reflexive = ([192, 0, 2, 1], 32853).into();
        assert_eq!(response, BindingResponse { reflexive, other_address: None });
        assert_eq!(response_id(&SAMPLE_RESPONSE).map(|id| id[0]), Some(0xb7));
    }

    #[test]
    fn response_with_an_address_of_the_other_family_is_unusable() {
        let v6: SocketAddr = "[2001:db8::1]:3478".parse().expect("an address");
        assert_eq!(parse_response(&SAMPLE_RESPONSE, v6, None), Err(ResponseError::Unusable));
    }

    #[test]
    fn message_classes_are_told_apart_by_their_ids() {
        let id = [7; 12];
        let plain = request(id, ResponseRouting::Default, None);
        let changed = request(id, ResponseRouting::ChangeAddressAndPort, None);
        assert_eq!((plain.len(), changed.len()), (28, 36));
        for (bytes, ids) in [(plain, [Some(id), None]), (indication(id), [None, Some(id)])] {
            assert_eq!([request_id(&bytes), indication_id(&bytes)], ids);
            assert_eq!(response_id(&bytes), None);
        }
    }

    #[test]
    fn wrong_fingerprint_makes_a_response_malformed() {
        let bytes = response_with(&[0x80, 0x28, 0, 4, 1, 2, 3, 4]);
        assert_eq!(parse_response(&bytes, server(), None), Err(ResponseError::Malformed));
    }

    #[test]
    fn public_server_cannot_direct_the_client_into_its_own_network() {
        for (address, accepted) in [
            ([11, 0, 1, 2], true),
            ([11, 0, 1, 1], false),
            ([192, 168, 1, 1], false),
            ([127, 0, 0, 1], false),
            ([100, 64, 0, 1], false),
            ([224, 0, 0, 1], false),
            ([0, 0, 0, 0], false),
        ] {
            let attribute = [&[0x80, 0x2c, 0, 8, 0, 1, 0x0d, 0x97][..], &address].concat();
            let response = parse_response(&response_with(&attribute), server(), None).expect("well-formed");
            assert_eq!(response.other_address.is_some(), accepted, "{address:?}");
        }
    }
}
