//! Connectivity checks: STUN Binding transactions (RFC 8489) with a key that both members derive, in the manner of
//! ICE (RFC 8445, section 7).
//!
//! A request carries USERNAME with the tags of recipient and sender in hex, which only the two can compute; PRIORITY;
//! USE-CANDIDATE if the sender nominates the path; MESSAGE-INTEGRITY-SHA256 and FINGERPRINT. The success response
//! carries XOR-MAPPED-ADDRESS, the address that its sender saw, and is protected in the same way. As ICE's passwords
//! are text, the HMAC key is the probe key in lower-case hex.
//!
//! The transaction id starts with the sender's 64-bit counter, so that a [`ReplayWindow`] can reject a replayed
//! request. Four random bytes make the rest hard to guess for an attacker that sees no packets.

use std::{fmt, net::SocketAddr};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use stun_rs::{
    HMACKey, MessageClass, MessageDecoder, MessageEncoderBuilder, StunMessage, StunMessageBuilder,
    attributes::{
        ice::{Priority, UseCandidate},
        stun::{Fingerprint, MessageIntegritySha256, UserName, XorMappedAddress},
    },
    get_input_text,
    methods::BINDING,
};
use zeroize::Zeroizing;

/// The maximum length of a probe in bytes.
pub const MAX_LEN: usize = 256;

/// Why bytes are not an authentic probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The bytes are not a Binding request or success response of this protocol.
    #[error("not a connectivity check")]
    Malformed,
    /// The probe has no MESSAGE-INTEGRITY-SHA256, or one made with another key.
    #[error("the connectivity check is not authentic")]
    Forged,
}

/// Names a member in the checks of one pair: the first 8 bytes of HMAC-SHA256 (probe key, DeviceId).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub [u8; 8]);

/// The key that two members protect their checks with. It cannot be printed and is wiped when dropped.
#[derive(Clone)]
pub struct ProbeKey(Zeroizing<String>);

impl ProbeKey {
    /// Returns the key from the 32 bytes that both members derive.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(hex(secret)))
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey")
    }
}

impl PartialEq for ProbeKey {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), other.0.as_bytes()).into()
    }
}

/// Matches a response with its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// Returns an id from the sender's counter and a random number.
    #[must_use]
    pub fn new(counter: u64, salt: u32) -> Self {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&counter.to_be_bytes());
        id[8..].copy_from_slice(&salt.to_be_bytes());
        Self(id)
    }

    /// Returns the sender's counter.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.0.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes)
    }
}

/// A connectivity check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The transaction id.
    pub id: TransactionId,
    /// The tag of the member that is checked.
    pub recipient: Tag,
    /// The tag of the member that checks.
    pub sender: Tag,
    /// The priority that the sender gives the path (RFC 8445, section 5.1.2).
    pub priority: u32,
    /// True if the sender nominates the path (RFC 8445, section 8.1.1).
    pub nominate: bool,
}

/// The response to a connectivity check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The request's transaction id.
    pub id: TransactionId,
    /// The source address of the request, as its receiver saw it.
    pub mapped: SocketAddr,
}

/// The unauthenticated contents of a probe: enough to find the key, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A request.
    Request {
        /// The member that is checked.
        recipient: Tag,
        /// The member that claims to check.
        sender: Tag,
    },
    /// The response to a request.
    Response(TransactionId),
}

/// Reads the unauthenticated contents of a probe; `None` if the bytes are not one.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<Claim> {
    let message = decode(bytes).ok()?;
    match message.class() {
        MessageClass::Request => {
            let (recipient, sender) = tags(&message).ok()?;
            Some(Claim::Request { recipient, sender })
        }
        MessageClass::SuccessResponse => Some(Claim::Response(transaction(&message))),
        _ => None,
    }
}

impl Request {
    /// Encodes the request.
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] if it cannot be encoded, which happens with no value of these types.
    pub fn encode(&self, key: &ProbeKey) -> Result<Vec<u8>, ProbeError> {
        let name = format!("{}:{}", hex(&self.recipient.0), hex(&self.sender.0));
        let mut message = StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(self.id.0.into())
            .with_attribute(UserName::new(name).map_err(|_| ProbeError::Malformed)?)
            .with_attribute(Priority::from(self.priority));
        if self.nominate {
            message = message.with_attribute(UseCandidate::default());
        }
        seal(message, key)
    }

    /// Decodes and authenticates a request.
    ///
    /// # Errors
    /// The bytes are not a request, or not authentic.
    pub fn open(bytes: &[u8], key: &ProbeKey) -> Result<Self, ProbeError> {
        let message = authentic(bytes, key, MessageClass::Request)?;
        let (recipient, sender) = tags(&message)?;
        let priority =
            message.get::<Priority>().and_then(|a| a.as_priority().ok()).ok_or(ProbeError::Malformed)?;
        Ok(Self {
            id: transaction(&message),
            recipient,
            sender,
            priority: priority.as_u32(),
            nominate: message.get::<UseCandidate>().is_some(),
        })
    }
}

impl Response {
    /// Encodes the response.
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] if it cannot be encoded, which happens with no value of these types.
    pub fn encode(&self, key: &ProbeKey) -> Result<Vec<u8>, ProbeError> {
        let message = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(self.id.0.into())
            .with_attribute(XorMappedAddress::from(self.mapped));
        seal(message, key)
    }

    /// Decodes and authenticates a response.
    ///
    /// # Errors
    /// The bytes are not a response, or not authentic.
    pub fn open(bytes: &[u8], key: &ProbeKey) -> Result<Self, ProbeError> {
        let message = authentic(bytes, key, MessageClass::SuccessResponse)?;
        let mapped = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
        let mapped = *mapped.ok_or(ProbeError::Malformed)?.socket_address();
        Ok(Self { id: transaction(&message), mapped })
    }
}

/// Adds integrity and fingerprint, and encodes the message.
fn seal(message: StunMessageBuilder, key: &ProbeKey) -> Result<Vec<u8>, ProbeError> {
    let key = HMACKey::new_short_term(key.0.as_str()).map_err(|_| ProbeError::Malformed)?;
    let message = message
        .with_attribute(MessageIntegritySha256::new(key))
        .with_attribute(Fingerprint::default())
        .build();
    let mut bytes = vec![0; MAX_LEN];
    let len = MessageEncoderBuilder::default()
        .build()
        .encode(&mut bytes, &message)
        .map_err(|_| ProbeError::Malformed)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<StunMessage, ProbeError> {
    if bytes.len() > MAX_LEN {
        return Err(ProbeError::Malformed);
    }
    match MessageDecoder::default().decode(bytes) {
        Ok((message, len)) if len == bytes.len() && message.method() == BINDING => Ok(message),
        _ => Err(ProbeError::Malformed),
    }
}

/// Decodes a message and verifies its integrity in constant time. The decoder ignores attributes behind the integrity
/// attribute, so that everything that is read from the message is covered by it.
fn authentic(bytes: &[u8], key: &ProbeKey, class: MessageClass) -> Result<StunMessage, ProbeError> {
    let message = decode(bytes)?;
    if message.class() != class {
        return Err(ProbeError::Malformed);
    }
    let covered = get_input_text::<MessageIntegritySha256>(bytes).ok_or(ProbeError::Forged)?;
    let value = bytes.get(covered.len() + 4..covered.len() + 36).ok_or(ProbeError::Forged)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.0.as_bytes()).map_err(|_| ProbeError::Forged)?;
    mac.update(&covered);
    mac.verify_slice(value).map_err(|_| ProbeError::Forged)?;
    Ok(message)
}

fn transaction(message: &StunMessage) -> TransactionId {
    TransactionId(*message.transaction_id().as_bytes())
}

/// Returns recipient and sender from USERNAME.
fn tags(message: &StunMessage) -> Result<(Tag, Tag), ProbeError> {
    let name = message.get::<UserName>().and_then(|a| a.as_user_name().ok()).ok_or(ProbeError::Malformed)?;
    let (recipient, sender) = name.as_str().split_once(':').ok_or(ProbeError::Malformed)?;
    Ok((tag(recipient)?, tag(sender)?))
}

fn tag(text: &str) -> Result<Tag, ProbeError> {
    let valid = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let value = valid.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    value.map(|v| Tag(v.to_be_bytes())).ok_or(ProbeError::Malformed)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from(b"0123456789abcdef"[usize::from(d)]))
        .collect()
}

/// The counters of a sender that were seen, in a window behind the highest.
#[derive(Debug, Clone, Default)]
pub struct ReplayWindow {
    /// The highest counter seen plus one; zero before the first.
    next: u64,
    seen: [u64; Self::WORDS],
}

impl ReplayWindow {
    /// How far behind the highest counter a late request may be.
    pub const WIDTH: u64 = 1024;
    const WORDS: usize = (Self::WIDTH / 64) as usize;

    /// Marks an authenticated counter as seen. Returns false if it was seen before or is too old to tell.
    pub fn accept(&mut self, counter: u64) -> bool {
        let Some(after) = counter.checked_add(1) else { return false };
        if counter >= self.next {
            self.advance(after);
        } else if self.next - counter > Self::WIDTH {
            return false;
        }
        let (word, bit) = Self::place(counter);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }

    /// Clears the places of the counters that the window leaves behind on its way to `next`.
    fn advance(&mut self, next: u64) {
        if next - self.next >= Self::WIDTH {
            self.seen = [0; Self::WORDS];
        } else {
            for counter in self.next..next {
                let (word, bit) = Self::place(counter);
                self.seen[word] &= !bit;
            }
        }
        self.next = next;
    }

    const fn place(counter: u64) -> (usize, u64) {
        let slot = counter % Self::WIDTH;
        ((slot / 64) as usize, 1 << (slot % 64))
    }
}

#[cfg(test)]
mod tests;
