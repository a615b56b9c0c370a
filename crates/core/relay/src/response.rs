//! A STUN response under construction.

use stun_rs::{
    MessageClass, MessageEncoder, MessageMethod, StunAttribute, StunMessageBuilder, TransactionId,
    attributes::stun::{ErrorCode, Software, UnknownAttributes},
};

use crate::{
    integrity::{self, Signature},
    rejection::Rejection,
};

/// Room for the longest response, in bytes: two nonces' worth of text, and a padding as long as the request's.
const MAX_RESPONSE_LEN: usize = 4096;
const SOFTWARE: &str = "Partyline";

/// A success or error response.
#[derive(Debug)]
pub(crate) struct Response {
    method: MessageMethod,
    class: MessageClass,
    id: TransactionId,
    /// Code and reason phrase.
    error: Option<(u16, &'static str)>,
    attributes: Vec<StunAttribute>,
    /// Attributes that are left out, the last one first, where the response would be too long.
    optional: Vec<StunAttribute>,
    signature: Option<Signature>,
    fingerprint: bool,
}

impl Response {
    pub(crate) const fn success(method: MessageMethod, id: TransactionId) -> Self {
        Self::new(method, MessageClass::SuccessResponse, id)
    }

    pub(crate) fn error(method: MessageMethod, id: TransactionId, rejection: &Rejection) -> Self {
        let mut response = Self::new(method, MessageClass::ErrorResponse, id);
        response.error = Some((rejection.refusal.code(), rejection.refusal.phrase()));
        if rejection.unknown.is_empty() {
            return response;
        }
        let mut list = UnknownAttributes::default();
        rejection.unknown.iter().for_each(|kind| list.add(*kind));
        response.with(list)
    }

    const fn new(method: MessageMethod, class: MessageClass, id: TransactionId) -> Self {
        Self {
            method,
            class,
            id,
            error: None,
            attributes: Vec::new(),
            optional: Vec::new(),
            signature: None,
            fingerprint: false,
        }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, attribute: impl Into<StunAttribute>) -> Self {
        self.attributes.push(attribute.into());
        self
    }

    /// Adds an attribute that the client can do without. The last one is the first to be left out.
    pub(crate) fn with_optional(mut self, attribute: impl Into<StunAttribute>) -> Self {
        self.optional.push(attribute.into());
        self
    }

    /// Signs the response.
    pub(crate) fn signed(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }

    /// Adds FINGERPRINT if the request had one.
    pub(crate) const fn fingerprint(mut self, wanted: bool) -> Self {
        self.fingerprint = wanted;
        self
    }

    /// Returns the bytes, at most `max` of them: shortened by optional attributes and then by the reason phrase if need be.
    /// Returns `None` if that is not enough.
    pub(crate) fn encode(mut self, max: usize) -> Option<Vec<u8>> {
        if let (Some(_), Ok(software)) = (&self.signature, Software::new(SOFTWARE)) {
            // Only for authenticated clients: it makes a response longer and tells strangers what runs here.
            self = self.with_optional(software);
        }
        loop {
            let bytes = self.encode_all()?;
            if bytes.len() <= max {
                return Some(bytes);
            }
            let is_shorter = self.optional.pop().is_some() || self.drop_phrase();
            if !is_shorter {
                return None;
            }
        }
    }

    /// Clears the reason phrase, which only people read. Returns false if there is none.
    fn drop_phrase(&mut self) -> bool {
        self.error.as_mut().is_some_and(|(_, phrase)| !std::mem::take(phrase).is_empty())
    }

    fn encode_all(&self) -> Option<Vec<u8>> {
        let mut builder = StunMessageBuilder::new(self.method, self.class).with_transaction_id(self.id);
        if let Some((code, phrase)) = self.error {
            builder = builder.with_attribute(ErrorCode::from(stun_rs::ErrorCode::new(code, phrase).ok()?));
        }
        for attribute in self.attributes.iter().chain(&self.optional) {
            builder = builder.with_attribute(attribute.clone());
        }
        let mut bytes = vec![0; MAX_RESPONSE_LEN];
        let size = MessageEncoder::default().encode(&mut bytes, &builder.build()).ok()?;
        bytes.truncate(size);
        if let Some(Signature { kind, key }) = &self.signature {
            integrity::append_integrity(&mut bytes, *kind, key);
        }
        if self.fingerprint {
            integrity::append_fingerprint(&mut bytes);
        }
        bytes.shrink_to_fit();
        Some(bytes)
    }
}
