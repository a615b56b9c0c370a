//! The Binding request: which address the server sees the client at (RFC 8489), and NAT behavior discovery (RFC 5780).
//!
//! With listeners on two IP addresses and two ports each, a client can ask to be answered from another address or port, and
//! so find out how its NAT maps and filters.
//!
//! A response over UDP is at most four times as long as its request: attributes are left out where it would be longer,
//! which concerns IPv6. It goes to the address that the request came from (to another port if asked), and is subject to the
//! rate limit of its source; so the server cannot be used as an amplifier.

use std::net::SocketAddr;

use stun_rs::{
    StunAttribute,
    attributes::{
        discovery::{ChangeRequestFlags, OtherAddress, Padding, ResponseOrigin},
        stun::{MappedAddress, XorMappedAddress},
    },
    methods::BINDING,
};

use crate::{
    client::{Client, ClientTransport},
    counters::Refusal,
    listeners::Listeners,
    rejection::Rejection,
    request::Request,
    response::Response,
};

const CHANGE_REQUEST: u16 = 0x0003;
const RESPONSE_PORT: u16 = 0x0027;
const PADDING: u16 = 0x0026;

/// A success response, and where it leaves from and goes to.
#[derive(Debug)]
pub(crate) struct BindingResponse {
    pub(crate) transport: ClientTransport,
    pub(crate) destination: SocketAddr,
    pub(crate) response: Response,
}

/// Answers a Binding request.
pub(crate) fn answer(
    listeners: &Listeners,
    client: Client,
    request: &Request<'_>,
) -> Result<BindingResponse, Rejection> {
    let response = Response::success(BINDING, request.id()).with(XorMappedAddress::from(client.address));
    match client.transport {
        ClientTransport::Udp(index) => answer_udp(listeners, index, client, request, response),
        transport @ ClientTransport::Stream(_) => {
            // A connection has one address at either end.
            Rejection::unless_understood(request.not_understood(&[CHANGE_REQUEST, RESPONSE_PORT, PADDING]))?;
            let response = response.with_optional(MappedAddress::from(client.address));
            Ok(BindingResponse { transport, destination: client.address, response })
        }
    }
}

fn answer_udp(
    listeners: &Listeners,
    index: u8,
    client: Client,
    request: &Request<'_>,
    response: Response,
) -> Result<BindingResponse, Rejection> {
    Rejection::unless_understood(request.not_understood(&[]))?;
    let flags = request.find(|attribute| attribute.as_change_request().ok().map(|change| change.flags()));
    let change = |flag| flags.is_some_and(|flags| flags.contains(flag));
    let (ip, port) = (change(ChangeRequestFlags::ChangeIp), change(ChangeRequestFlags::ChangePort));
    let Some(from) = listeners.other(index, ip, port) else {
        let rejection = Refusal::UnknownAttribute.because("CHANGE-REQUEST without such a listener");
        return Err(Rejection { unknown: vec![CHANGE_REQUEST], ..rejection });
    };
    let response_port = request.find(|attribute| attribute.as_response_port().ok().map(|port| port.as_u16()));
    let padding = request.find(padding_length);
    if response_port.is_some() && padding.is_some() {
        return Err(Refusal::BadRequest.because("RESPONSE-PORT and PADDING exclude each other"));
    }
    let mut destination = client.address;
    destination.set_port(response_port.unwrap_or(destination.port()));
    let response =
        with_addresses(listeners, response, from, index).with_optional(MappedAddress::from(client.address));
    let response = match padding.map(|length| Padding::new("\0".repeat(length))) {
        Some(Ok(padding)) => response.with(padding),
        _ => response,
    };
    Ok(BindingResponse { transport: ClientTransport::Udp(from), destination, response })
}

/// Adds OTHER-ADDRESS and RESPONSE-ORIGIN, of which the second tells the client only what it can see.
fn with_addresses(listeners: &Listeners, mut response: Response, from: u8, received_at: u8) -> Response {
    if let Some(other) = listeners.other_address(received_at) {
        response = response.with_optional(OtherAddress::from(other));
    }
    match listeners.public(from).filter(|origin| !origin.ip().is_unspecified()) {
        Some(origin) => response.with_optional(ResponseOrigin::from(origin)),
        None => response,
    }
}

fn padding_length(attribute: &StunAttribute) -> Option<usize> {
    attribute.as_padding().ok().map(|padding| padding.as_str().len())
}
