//! STUN and TURN messages, encoded and decoded by another implementation than the product's parsers are tested with.

use std::net::SocketAddr;

use stun_rs::{
    Algorithm, AlgorithmId, MessageClass, MessageDecoder, MessageEncoder, MessageMethod, StunMessage,
    StunMessageBuilder,
    attributes::{
        stun::{ErrorCode, PasswordAlgorithm, PasswordAlgorithms},
        turn::{ChannelNumber, RequestedTrasport, XorPeerAddress, XorRelayedAddress},
    },
    methods,
};

/// Encodes a message.
#[must_use]
pub fn encode(message: &StunMessage) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let length = MessageEncoder::default().encode(&mut bytes, message).expect("room for the message");
    bytes.truncate(length);
    bytes
}

/// Decodes a message.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<StunMessage> {
    MessageDecoder::default().decode(bytes).ok().map(|(message, _)| message)
}

/// Begins a request.
#[must_use]
pub fn request(method: MessageMethod) -> StunMessageBuilder {
    StunMessageBuilder::new(method, MessageClass::Request)
}

/// Begins a response to a request.
#[must_use]
pub fn response(request: &StunMessage, class: MessageClass) -> StunMessageBuilder {
    StunMessageBuilder::new(request.method(), class).with_transaction_id(*request.transaction_id())
}

/// Begins an error response to a request.
#[must_use]
pub fn error_response(request: &StunMessage, code: u16) -> StunMessageBuilder {
    let code = stun_rs::ErrorCode::new(code, "refused").expect("a valid code");
    response(request, MessageClass::ErrorResponse).with_attribute(ErrorCode::from(code))
}

/// Begins an Allocate request for UDP.
#[must_use]
pub fn allocate() -> StunMessageBuilder {
    request(methods::ALLOCATE).with_attribute(RequestedTrasport::from(stun_rs::protocols::UDP))
}

/// Begins a CreatePermission request.
#[must_use]
pub fn create_permission(peer: SocketAddr) -> StunMessageBuilder {
    request(methods::CREATE_PERMMISSION).with_attribute(XorPeerAddress::from(peer))
}

/// Begins a ChannelBind request.
#[must_use]
pub fn channel_bind(number: u16, peer: SocketAddr) -> StunMessageBuilder {
    request(methods::CHANNEL_BIND)
        .with_attribute(ChannelNumber::new(number))
        .with_attribute(XorPeerAddress::from(peer))
}

/// Encodes a ChannelData message without padding.
#[must_use]
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// Returns the PASSWORD-ALGORITHMS that offer SHA-256 and MD5.
#[must_use]
pub fn password_algorithms() -> PasswordAlgorithms {
    let mut list = PasswordAlgorithms::default();
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)));
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::MD5)));
    list
}

/// Returns the error code of a response, or 0 if there is none.
#[must_use]
pub fn error_code(response: &StunMessage) -> u16 {
    response.get::<ErrorCode>().map_or(0, |error| error.expect_error_code().error_code().error_code())
}

/// Returns the relayed address in the response to an Allocate request.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn relayed_address(response: &StunMessage) -> SocketAddr {
    let attribute = response.get::<XorRelayedAddress>().expect("a relayed address");
    *attribute.expect_xor_relayed_address().socket_address()
}
