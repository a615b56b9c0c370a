//! KRPC, the messages of the BitTorrent DHT (BEP 5), with IPv6 (BEP 32), stored items (BEP 44) and read-only nodes (BEP 43).
//!
//! A message is one bencoded dictionary, and so starts with `d`, which no other protocol on the shared socket does. It is read
//! in place: [`Message::decode`] borrows everything from the datagram and allocates nothing. Of a value, the string
//! is kept; values of other bencoded types are read as absent, since nothing of ours writes them.
//!
//! Other implementations do not all sort their dictionaries, so that any order is read; unknown keys are skipped, and a key
//! that occurs twice is an error. What is written has the canonical order.

mod bencode;
mod contact;
mod limits;
mod message;
#[cfg(test)]
mod tests;

pub use contact::{Contact, Contacts, NODE_ID_LEN, NodeId, compact_address, compact_contacts};
pub use limits::{KrpcError, MAX_LEN, MAX_SALT, MAX_TOKEN, MAX_VALUE};
pub use message::{Body, Message, Method, Put, Query, Response, TRANSACTION_LEN, Want, error_code};

/// Returns true if a datagram claims to be KRPC.
#[must_use]
pub const fn is_krpc(datagram: &[u8]) -> bool {
    matches!(datagram, [b'd', ..])
}

/// Returns the bytes that the signature of a mutable item covers (BEP 44).
#[must_use]
pub fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(salt.len() + value.len() + 48);
    if !salt.is_empty() {
        bencode::push_string(&mut bytes, b"salt");
        bencode::push_string(&mut bytes, salt);
    }
    bencode::push_string(&mut bytes, b"seq");
    bencode::push_integer(&mut bytes, seq);
    bencode::push_string(&mut bytes, b"v");
    bencode::push_string(&mut bytes, value);
    bytes
}
