//! A STUN request as the server reads it, and the reply to it.

use stun_rs::{
    AddressFamily, MessageClass, MessageDecoder, MessageEncoder, MessageMethod, StunAttribute, StunMessage,
    StunMessageBuilder, TransactionId,
    attributes::stun::{ErrorCode, Software, UnknownAttributes},
};

use crate::integrity::{self, Integrity, Seal};

/// Room for the largest reply: two nonces' worth of text and a padding as long as the request's.
const REPLY: usize = 4096;
const SOFTWARE: &str = "Partyline";

/// A request, decoded.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    raw: &'a [u8],
    message: StunMessage,
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotARequest {
    /// An indication: nothing to answer.
    Indication,
    /// A request whose attributes are broken: to be answered with 400.
    Broken { method: u16, id: [u8; 12] },
    /// No STUN, a response, or a wrong fingerprint.
    Garbage,
}

impl<'a> Request<'a> {
    /// Decodes a message that begins with the magic cookie.
    pub(crate) fn decode(raw: &'a [u8]) -> Result<Self, NotARequest> {
        let (Some(&[high, low, a, b]), Some(Ok(id))) =
            (raw.first_chunk(), raw.get(8..20).map(TryFrom::try_from))
        else {
            return Err(NotARequest::Garbage);
        };
        let complete = usize::from(u16::from_be_bytes([a, b])) + 20 == raw.len();
        if !complete || integrity::fingerprint(raw) == Some(false) {
            return Err(NotARequest::Garbage);
        }
        // The class is in bits 4 and 8 of the type (RFC 8489, section 5).
        match (high & 0x01, low & 0x10) {
            (0, 0) => {}
            (0, _) => return Err(NotARequest::Indication),
            _ => return Err(NotARequest::Garbage),
        }
        let method = u16::from_be_bytes([high, low]);
        let (message, _) =
            MessageDecoder::default().decode(raw).map_err(|_| NotARequest::Broken { method, id })?;
        Ok(Self { raw, message })
    }

    pub(crate) fn method(&self) -> MessageMethod {
        self.message.method()
    }

    pub(crate) fn id(&self) -> TransactionId {
        *self.message.transaction_id()
    }

    pub(crate) fn seal(&self) -> Option<Seal<'a>> {
        integrity::find(self.raw)
    }

    pub(crate) fn has_fingerprint(&self) -> bool {
        integrity::fingerprint(self.raw).is_some()
    }

    /// The first attribute for which `pick` answers; later ones of a kind do not count (RFC 8489, section 14).
    pub(crate) fn find<T>(&self, pick: impl Fn(&StunAttribute) -> Option<T>) -> Option<T> {
        self.message.attributes().iter().find_map(pick)
    }

    /// All attributes for which `pick` answers.
    pub(crate) fn all<T>(&self, pick: impl Fn(&StunAttribute) -> Option<T>) -> Vec<T> {
        self.message.attributes().iter().filter_map(pick).collect()
    }

    /// Attributes that would have to be understood and are not: those the codec does not know, and those in `refused`.
    pub(crate) fn not_understood(&self, refused: &[u16]) -> Vec<u16> {
        let kinds = self.message.attributes().iter().map(|attribute| match attribute {
            StunAttribute::Unknown(unknown) => (unknown.attribute_type().as_u16(), true),
            known => (known.attribute_type().as_u16(), false),
        });
        kinds
            .filter(|(kind, unknown)| *kind < 0x8000 && (*unknown || refused.contains(kind)))
            .map(|(kind, _)| kind)
            .collect()
    }
}

/// A family of addresses as the model of sockets has it.
pub(crate) const fn is_v6(family: AddressFamily) -> bool {
    matches!(family, AddressFamily::IPv6)
}

/// How a reply is signed: with what the request was signed with.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) kind: Integrity,
    pub(crate) key: Vec<u8>,
}

/// A response under construction. Each begins with what it answers.
#[derive(Debug)]
pub(crate) struct Reply {
    builder: StunMessageBuilder,
    signature: Option<Signature>,
    fingerprint: bool,
}

impl Reply {
    pub(crate) fn success(method: MessageMethod, id: TransactionId) -> Self {
        Self::new(method, MessageClass::SuccessResponse, id)
    }

    pub(crate) fn error(method: MessageMethod, id: TransactionId, code: u16) -> Self {
        let reply = Self::new(method, MessageClass::ErrorResponse, id);
        match stun_rs::ErrorCode::new(code, reason(code)) {
            Ok(error) => reply.with(ErrorCode::from(error)),
            Err(_) => reply,
        }
    }

    /// 420 with the list of what was not understood.
    pub(crate) fn unknown_attributes(method: MessageMethod, id: TransactionId, unknown: &[u16]) -> Self {
        let mut list = UnknownAttributes::default();
        unknown.iter().for_each(|kind| list.add(*kind));
        Self::error(method, id, 420).with(list)
    }

    fn new(method: MessageMethod, class: MessageClass, id: TransactionId) -> Self {
        let builder = StunMessageBuilder::new(method, class).with_transaction_id(id);
        Self { builder, signature: None, fingerprint: false }
    }

    pub(crate) fn with(mut self, attribute: impl Into<StunAttribute>) -> Self {
        self.builder = self.builder.with_attribute(attribute);
        self
    }

    pub(crate) fn signed(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }

    pub(crate) fn fingerprint(mut self, wanted: bool) -> Self {
        self.fingerprint = wanted;
        self
    }

    /// The bytes; `None` if an attribute cannot be encoded, which no attribute of ours is.
    pub(crate) fn encode(mut self) -> Option<Vec<u8>> {
        if let (Some(_), Ok(software)) = (&self.signature, Software::new(SOFTWARE)) {
            // Only for those who have shown credentials: it makes a reply longer and tells strangers what runs here.
            self = self.with(software);
        }
        let mut bytes = vec![0; REPLY];
        let size = MessageEncoder::default().encode(&mut bytes, &self.builder.build()).ok()?;
        bytes.truncate(size);
        if let Some(Signature { kind, key }) = self.signature {
            integrity::seal(&mut bytes, kind, &key);
        }
        if self.fingerprint {
            integrity::append_fingerprint(&mut bytes);
        }
        bytes.shrink_to_fit();
        Some(bytes)
    }
}

const fn reason(code: u16) -> &'static str {
    match code {
        400 => "Bad Request",
        401 => "Unauthenticated",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        486 => "Allocation Quota Reached",
        508 => "Insufficient Capacity",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..300), length: Option<u16>) {
            let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
            bytes.extend_from_slice(&tail);
            let length = length.unwrap_or_else(|| bytes.len().saturating_sub(20) as u16);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            if let Ok(request) = Request::decode(&bytes) {
                let _ = (request.seal().map(|seal| seal.verify(b"key")), request.not_understood(&[]));
            }
        }
    }
}
