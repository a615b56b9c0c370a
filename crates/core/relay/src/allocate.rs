//! The Allocate request and its success response (RFC 8656, section 7).
//!
//! Not offered, and answered as the RFC asks of such servers: DONT-FRAGMENT (420), and pairs of ports, that is EVEN-PORT
//! with its reservation bit and RESERVATION-TOKEN (508). EVEN-PORT alone is served.

use std::time::Instant;

use stun_rs::{
    ErrorCode, StunAttribute,
    attributes::{
        stun::XorMappedAddress,
        turn::{AddressErrorCode, LifeTime, XorRelayedAddress},
    },
    methods::ALLOCATE,
};

use crate::{
    allocation::Allocation, counters::Refusal, rejection::Rejection, request::Request, response::Response,
};

const DONT_FRAGMENT: u16 = 0x001A;
/// The only protocol that REQUESTED-TRANSPORT may name here (RFC 8656, section 18.7).
const PROTOCOL_UDP: u8 = 17;

/// What an Allocate request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllocateRequest {
    /// True for an IPv6 relayed address.
    pub(crate) v6: bool,
    /// True if an IPv6 relayed address is requested in addition to the IPv4 one.
    pub(crate) additional_v6: bool,
    pub(crate) even_port: bool,
}

impl AllocateRequest {
    /// Checks the attributes (RFC 8656, section 7.2, steps 4 to 10).
    pub(crate) fn parse(request: &Request<'_>) -> Result<Self, Rejection> {
        Rejection::unless_understood(request.not_understood(&[DONT_FRAGMENT]))?;
        let transport = request
            .find(|attribute| attribute.as_requested_trasport().ok().map(|asked| asked.protocol().as_u8()));
        match transport {
            None => return Err(Refusal::BadRequest.because("REQUESTED-TRANSPORT is missing")),
            Some(PROTOCOL_UDP) => {}
            Some(_) => return Err(Refusal::UnsupportedTransport.because("transport other than UDP")),
        }
        let (family, additional) = (request.requests_v6(), request.requests_additional_v6());
        let even = request.find(|attribute| attribute.as_even_port().ok().map(|even| even.reserve()));
        let token =
            request.find(|attribute| matches!(attribute, StunAttribute::ReservationToken(_)).then_some(()));
        if token.is_some() {
            let conflicts = even.is_some() || family.is_some() || additional.is_some();
            return Err(if conflicts {
                Refusal::BadRequest.because("RESERVATION-TOKEN excludes other address attributes")
            } else {
                Refusal::InsufficientCapacity.because("ports are not reserved in pairs")
            });
        }
        match (family, additional, even) {
            (Some(_), Some(_), _) => {
                Err(Refusal::BadRequest.because("requested and additional address family exclude each other"))
            }
            (_, Some(false), _) => Err(Refusal::BadRequest.because("additional address family is not IPv6")),
            (_, Some(_), Some(true)) => {
                Err(Refusal::BadRequest.because("additional address family excludes a pair of ports"))
            }
            (_, _, Some(true)) => {
                Err(Refusal::InsufficientCapacity.because("ports are not reserved in pairs"))
            }
            _ => Ok(Self {
                v6: family == Some(true),
                additional_v6: additional.is_some(),
                even_port: even.is_some(),
            }),
        }
    }
}

/// Returns the success response for an allocation whose sockets are bound.
pub(crate) fn success_response(allocation: &Allocation, now: Instant) -> Response {
    let left = allocation.expires.saturating_duration_since(now);
    // Rounded up, so that a new allocation shows the lifetime that it was given.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let mut response = Response::success(ALLOCATE, allocation.transaction);
    for address in allocation.relayed.into_iter().flatten() {
        response = response.with(XorRelayedAddress::from(address));
    }
    response = response
        .with(LifeTime::new(u32::try_from(seconds).unwrap_or(u32::MAX)))
        .with(XorMappedAddress::from(allocation.client.address));
    let error =
        allocation.additional_error.and_then(|error| ErrorCode::new(error.code(), error.phrase()).ok());
    match error {
        Some(error) => response.with(AddressErrorCode::new(stun_rs::AddressFamily::IPv6, error)),
        None => response,
    }
}
