//! A STUN request as the server reads it (RFC 8489, section 6.3).

use stun_rs::{
    AddressFamily, MessageDecoder, MessageMethod, StunAttribute, StunMessage, TransactionId,
    attributes::turn::LifeTime,
};

use crate::integrity::{self, IntegrityAttribute};

/// A decoded request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    raw: &'a [u8],
    message: StunMessage,
}

/// Why a message is not a request that can be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotARequest {
    /// An indication, which is never answered.
    Indication,
    /// A request with malformed attributes, to be answered with 400.
    Malformed { method: u16, id: [u8; 12] },
    /// Not STUN, a response, or a wrong fingerprint.
    Invalid,
}

impl<'a> Request<'a> {
    /// Decodes a message that begins with the magic cookie.
    pub(crate) fn decode(raw: &'a [u8]) -> Result<Self, NotARequest> {
        let (Some(&[high, low, a, b]), Some(Ok(id))) =
            (raw.first_chunk(), raw.get(8..20).map(TryFrom::try_from))
        else {
            return Err(NotARequest::Invalid);
        };
        let complete = usize::from(u16::from_be_bytes([a, b])) + 20 == raw.len();
        if !complete || integrity::fingerprint(raw) == Some(false) {
            return Err(NotARequest::Invalid);
        }
        // The class is in bits 4 and 8 of the type (RFC 8489, section 5).
        match (high & 0x01, low & 0x10) {
            (0, 0) => {}
            (0, _) => return Err(NotARequest::Indication),
            _ => return Err(NotARequest::Invalid),
        }
        let method = u16::from_be_bytes([high, low]);
        let (message, _) =
            MessageDecoder::default().decode(raw).map_err(|_| NotARequest::Malformed { method, id })?;
        Ok(Self { raw, message })
    }

    pub(crate) fn method(&self) -> MessageMethod {
        self.message.method()
    }

    pub(crate) fn id(&self) -> TransactionId {
        *self.message.transaction_id()
    }

    /// Returns the integrity attribute that counts, if there is one.
    pub(crate) fn integrity(&self) -> Option<IntegrityAttribute<'a>> {
        integrity::find_integrity(self.raw)
    }

    pub(crate) fn has_fingerprint(&self) -> bool {
        integrity::fingerprint(self.raw).is_some()
    }

    /// Returns what `pick` makes of the first attribute that it accepts; later ones of a kind do not count (RFC 8489,
    /// section 14).
    pub(crate) fn find<T>(&self, pick: impl Fn(&StunAttribute) -> Option<T>) -> Option<T> {
        self.message.attributes().iter().find_map(pick)
    }

    /// Returns what `pick` makes of all attributes that it accepts.
    pub(crate) fn all<T>(&self, pick: impl Fn(&StunAttribute) -> Option<T>) -> Vec<T> {
        self.message.attributes().iter().filter_map(pick).collect()
    }

    /// Returns the comprehension-required attributes that are not understood: those that the codec does not know, and those
    /// in `refused`.
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

    /// Returns the requested lifetime in seconds, if there is a LIFETIME attribute.
    pub(crate) fn lifetime_s(&self) -> Option<u32> {
        self.find(|attribute| attribute.as_life_time().ok().map(LifeTime::as_u32))
    }

    /// Returns true for IPv6, if there is a REQUESTED-ADDRESS-FAMILY attribute.
    pub(crate) fn requests_v6(&self) -> Option<bool> {
        self.find(|attribute| attribute.as_requested_address_family().ok().map(|asked| is_v6(asked.family())))
    }

    /// Returns true for IPv6, if there is an ADDITIONAL-ADDRESS-FAMILY attribute.
    pub(crate) fn requests_additional_v6(&self) -> Option<bool> {
        self.find(|attribute| {
            attribute.as_additional_address_family().ok().map(|asked| is_v6(asked.family()))
        })
    }
}

const fn is_v6(family: AddressFamily) -> bool {
    matches!(family, AddressFamily::IPv6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn malformed_messages_do_not_panic(tail in prop::collection::vec(any::<u8>(), 0..300), length: Option<u16>) {
            let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
            bytes.extend_from_slice(&tail);
            let length = length.unwrap_or_else(|| bytes.len().saturating_sub(20) as u16);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            if let Ok(request) = Request::decode(&bytes) {
                let _ = (request.integrity().map(|integrity| integrity.verify(b"key")), request.not_understood(&[]));
            }
        }
    }
}
