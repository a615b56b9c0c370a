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
    builder: StunMessageBuilder,
    signature: Option<Signature>,
    fingerprint: bool,
}

impl Response {
    pub(crate) fn success(method: MessageMethod, id: TransactionId) -> Self {
        Self::new(method, MessageClass::SuccessResponse, id)
    }

    pub(crate) fn error(method: MessageMethod, id: TransactionId, rejection: &Rejection) -> Self {
        let (code, phrase) = (rejection.refusal.code(), rejection.refusal.phrase());
        let mut response = Self::new(method, MessageClass::ErrorResponse, id);
        if let Ok(error) = stun_rs::ErrorCode::new(code, phrase) {
            response = response.with(ErrorCode::from(error));
        }
        if rejection.unknown.is_empty() {
            return response;
        }
        let mut list = UnknownAttributes::default();
        rejection.unknown.iter().for_each(|kind| list.add(*kind));
        response.with(list)
    }

    fn new(method: MessageMethod, class: MessageClass, id: TransactionId) -> Self {
        let builder = StunMessageBuilder::new(method, class).with_transaction_id(id);
        Self { builder, signature: None, fingerprint: false }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, attribute: impl Into<StunAttribute>) -> Self {
        self.builder = self.builder.with_attribute(attribute);
        self
    }

    /// Signs the response.
    pub(crate) fn signed(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }

    /// Adds FINGERPRINT if the request had one.
    pub(crate) fn fingerprint(mut self, wanted: bool) -> Self {
        self.fingerprint = wanted;
        self
    }

    /// Returns the bytes, or `None` if an attribute cannot be encoded, which no attribute of this server is.
    pub(crate) fn encode(mut self) -> Option<Vec<u8>> {
        if let (Some(_), Ok(software)) = (&self.signature, Software::new(SOFTWARE)) {
            // Only for authenticated clients: it makes a response longer and tells strangers what runs here.
            self = self.with(software);
        }
        let mut bytes = vec![0; MAX_RESPONSE_LEN];
        let size = MessageEncoder::default().encode(&mut bytes, &self.builder.build()).ok()?;
        bytes.truncate(size);
        if let Some(Signature { kind, key }) = self.signature {
            integrity::append_integrity(&mut bytes, kind, &key);
        }
        if self.fingerprint {
            integrity::append_fingerprint(&mut bytes);
        }
        bytes.shrink_to_fit();
        Some(bytes)
    }
}
