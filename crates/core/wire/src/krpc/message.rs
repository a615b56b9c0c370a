//! Queries, responses and errors.

use std::net::SocketAddr;

use super::{
    bencode::{Reader, push_integer, push_string},
    contact::{Contacts, NodeId, compact_address, parse_address},
    limits::{KrpcError, MAX_LEN, MAX_SALT, MAX_TOKEN, MAX_VALUE},
};

/// The length of our transaction ids in bytes. One widespread implementation reads no other length.
pub const TRANSACTION_LEN: usize = 4;
/// The maximum length of a transaction id that is read, in bytes.
const MAX_TRANSACTION: usize = 32;

/// Error codes of BEP 5 and BEP 44.
#[expect(missing_docs, reason = "the names are those of the BEPs")]
pub mod error_code {
    pub const GENERIC: i64 = 201;
    pub const SERVER: i64 = 202;
    pub const PROTOCOL: i64 = 203;
    pub const METHOD_UNKNOWN: i64 = 204;
    pub const VALUE_TOO_BIG: i64 = 205;
    pub const INVALID_SIGNATURE: i64 = 206;
    pub const SALT_TOO_BIG: i64 = 207;
    pub const CAS_MISMATCH: i64 = 301;
    pub const SEQ_TOO_OLD: i64 = 302;
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The transaction id, which a response repeats.
    pub transaction: &'a [u8],
    /// The address at which the sender of a response sees its recipient (BEP 42).
    pub ip: Option<SocketAddr>,
    /// The rest.
    pub body: Body<'a>,
}

/// The three types of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A query.
    Query(Query<'a>),
    /// A response to any query.
    Response(Response<'a>),
    /// A query that failed.
    Error {
        /// The code, of which [`error_code`] names some; 0 if it could not be read.
        code: i64,
    },
}

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The id of the sender.
    pub id: NodeId,
    /// True if the sender answers no queries, so that it must not enter routing tables (BEP 43).
    pub read_only: bool,
    /// What is asked.
    pub method: Method<'a>,
}

/// The families of nodes that are asked for (BEP 32). Without any, a node names those of the family that carried the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of the flags")]
pub struct Want {
    pub n4: bool,
    pub n6: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// Asks for a sign of life.
    Ping,
    /// Asks for the nodes closest to a target.
    FindNode {
        /// The target.
        target: NodeId,
        /// The families of nodes.
        want: Want,
    },
    /// Asks for the item stored at a target, a write token, and the nodes closest to it.
    Get {
        /// The target.
        target: NodeId,
        /// The sequence number above which the value is asked for.
        seq: Option<i64>,
        /// The families of nodes.
        want: Want,
    },
    /// Stores a mutable item.
    Put(Put<'a>),
    /// A method that this crate does not know.
    Other,
}

/// A mutable item to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// The target, which follows from key and salt. BEP 44 does without it, but one widespread implementation does not.
    pub target: Option<NodeId>,
    /// The write token from the response to a [`Method::Get`].
    pub token: &'a [u8],
    /// The Ed25519 public key.
    pub key: &'a [u8; 32],
    /// The salt; at most [`MAX_SALT`] bytes.
    pub salt: &'a [u8],
    /// The sequence number.
    pub seq: i64,
    /// The sequence number of the item that may be overwritten.
    pub cas: Option<i64>,
    /// The signature over [`super::signed_bytes`].
    pub signature: &'a [u8; 64],
    /// The value; at most [`MAX_VALUE`] bytes.
    pub value: &'a [u8],
}

/// A response. Which parts it has depends on the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The id of the sender.
    pub id: NodeId,
    /// Nodes closer to the target.
    pub contacts: Contacts<'a>,
    /// The write token; at most [`MAX_TOKEN`] bytes.
    pub token: Option<&'a [u8]>,
    /// The Ed25519 public key of a stored item.
    pub key: Option<&'a [u8; 32]>,
    /// The sequence number of a stored item.
    pub seq: Option<i64>,
    /// The signature of a stored item.
    pub signature: Option<&'a [u8; 64]>,
    /// The value of a stored item; at most [`MAX_VALUE`] bytes.
    pub value: Option<&'a [u8]>,
}

impl Response<'_> {
    /// Returns a response that carries nothing but the sender's id.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            contacts: Contacts::default(),
            token: None,
            key: None,
            seq: None,
            signature: None,
            value: None,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is longer than [`MAX_LEN`], not bencoded, or lacks what its type must have.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, KrpcError> {
        if bytes.len() > MAX_LEN {
            return Err(KrpcError::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let envelope = Envelope::read(&mut reader)?;
        if !reader.is_empty() {
            return Err(KrpcError::Malformed);
        }
        let transaction = envelope.transaction.ok_or(KrpcError::Malformed)?;
        Ok(Self { transaction, ip: envelope.ip, body: envelope.body()? })
    }

    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(b'd');
        match &self.body {
            Body::Query(query) => query.push(&mut bytes),
            Body::Response(response) => response.push(self.ip, &mut bytes),
            Body::Error { code } => push_error(*code, self.ip, &mut bytes),
        }
        push_string(&mut bytes, b"t");
        push_string(&mut bytes, self.transaction);
        push_string(&mut bytes, b"y");
        push_string(&mut bytes, self.body.kind());
        bytes.push(b'e');
        bytes
    }
}

impl Body<'_> {
    const fn kind(&self) -> &'static [u8] {
        match self {
            Self::Query(_) => b"q",
            Self::Response(_) => b"r",
            Self::Error { .. } => b"e",
        }
    }
}

/// The outermost dictionary.
#[derive(Default)]
struct Envelope<'a> {
    transaction: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    ip: Option<SocketAddr>,
    read_only: Option<bool>,
    /// The arguments of a query or the values of a response.
    values: Option<Values<'a>>,
    error: Option<i64>,
}

impl<'a> Envelope<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, KrpcError> {
        let mut envelope = Self::default();
        reader.dictionary(|key, value| match key {
            b"t" => once(&mut envelope.transaction, Some(bounded(value.string()?, MAX_TRANSACTION)?)),
            b"y" => once(&mut envelope.kind, Some(value.string()?)),
            b"q" => once(&mut envelope.method, value.string_or_skip()?),
            b"ip" => once(&mut envelope.ip, value.string_or_skip()?.and_then(parse_address)),
            b"ro" => once(&mut envelope.read_only, value.integer_or_skip()?.map(|flag| flag == 1)),
            b"a" | b"r" if value.peek()? == b'd' => once(&mut envelope.values, Some(Values::read(value)?)),
            b"e" => once(&mut envelope.error, Some(read_error(value)?)),
            _ => value.skip(),
        })?;
        Ok(envelope)
    }

    fn body(self) -> Result<Body<'a>, KrpcError> {
        match self.kind {
            Some(b"r") => self.values.ok_or(KrpcError::Malformed)?.response().map(Body::Response),
            Some(b"e") => Ok(Body::Error { code: self.error.ok_or(KrpcError::Malformed)? }),
            Some(b"q") => {
                let values = self.values.ok_or(KrpcError::Malformed)?;
                let id = values.id()?;
                let method = values.method(self.method.ok_or(KrpcError::Malformed)?)?;
                Ok(Body::Query(Query { id, read_only: self.read_only.unwrap_or_default(), method }))
            }
            _ => Err(KrpcError::Malformed),
        }
    }
}

/// All keys that occur in the arguments of queries and in the values of responses.
#[derive(Default)]
struct Values<'a> {
    id: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    want: Option<Want>,
    contacts: Contacts<'a>,
    token: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    salt: Option<&'a [u8]>,
    seq: Option<i64>,
    cas: Option<i64>,
    signature: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Values<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, KrpcError> {
        let mut values = Self::default();
        reader.dictionary(|key, value| match key {
            b"id" => once(&mut values.id, value.string_or_skip()?),
            b"target" => once(&mut values.target, value.string_or_skip()?),
            b"want" if value.peek()? == b'l' => once(&mut values.want, Some(read_want(value)?)),
            b"nodes" => once(&mut values.contacts.nodes, value.string_or_skip()?),
            b"nodes6" => once(&mut values.contacts.nodes6, value.string_or_skip()?),
            b"token" => once(&mut values.token, value.string_or_skip()?),
            b"k" => once(&mut values.key, value.string_or_skip()?),
            b"salt" => once(&mut values.salt, value.string_or_skip()?),
            b"seq" => once(&mut values.seq, value.integer_or_skip()?),
            b"cas" => once(&mut values.cas, value.integer_or_skip()?),
            b"sig" => once(&mut values.signature, value.string_or_skip()?),
            b"v" => once(&mut values.value, value.string_or_skip()?),
            _ => value.skip(),
        })?;
        Ok(values)
    }

    fn id(&self) -> Result<NodeId, KrpcError> {
        node_id(self.id)?.ok_or(KrpcError::Malformed)
    }

    fn response(&self) -> Result<Response<'a>, KrpcError> {
        Ok(Response {
            id: self.id()?,
            contacts: self.contacts,
            token: self.token.map(|token| bounded(token, MAX_TOKEN)).transpose()?,
            key: exact(self.key)?,
            seq: self.seq,
            signature: exact(self.signature)?,
            value: self.value.map(|value| bounded(value, MAX_VALUE)).transpose()?,
        })
    }

    fn method(&self, name: &[u8]) -> Result<Method<'a>, KrpcError> {
        let want = self.want.unwrap_or_default();
        let target = || node_id(self.target)?.ok_or(KrpcError::Malformed);
        match name {
            b"ping" => Ok(Method::Ping),
            b"find_node" => Ok(Method::FindNode { target: target()?, want }),
            b"get" => Ok(Method::Get { target: target()?, seq: self.seq, want }),
            // Without a key it stores an immutable item.
            b"put" if self.key.is_some() => self.put().map(Method::Put),
            _ => Ok(Method::Other),
        }
    }

    fn put(&self) -> Result<Put<'a>, KrpcError> {
        Ok(Put {
            target: node_id(self.target)?,
            token: bounded(self.token.ok_or(KrpcError::Malformed)?, MAX_TOKEN)?,
            key: exact(self.key)?.ok_or(KrpcError::Malformed)?,
            salt: bounded(self.salt.unwrap_or_default(), MAX_SALT)?,
            seq: self.seq.ok_or(KrpcError::Malformed)?,
            cas: self.cas,
            signature: exact(self.signature)?.ok_or(KrpcError::Malformed)?,
            value: bounded(self.value.ok_or(KrpcError::Malformed)?, MAX_VALUE)?,
        })
    }
}

/// Sets what was not set before.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), KrpcError> {
    if slot.is_some() {
        return Err(KrpcError::Malformed);
    }
    *slot = value;
    Ok(())
}

const fn bounded(bytes: &[u8], max: usize) -> Result<&[u8], KrpcError> {
    if bytes.len() <= max { Ok(bytes) } else { Err(KrpcError::Malformed) }
}

fn exact<const LEN: usize>(bytes: Option<&[u8]>) -> Result<Option<&[u8; LEN]>, KrpcError> {
    bytes.map(|bytes| bytes.try_into().map_err(|_| KrpcError::Malformed)).transpose()
}

fn node_id(bytes: Option<&[u8]>) -> Result<Option<NodeId>, KrpcError> {
    Ok(exact(bytes)?.map(|id| NodeId(*id)))
}

fn read_want(reader: &mut Reader<'_>) -> Result<Want, KrpcError> {
    reader.expect(b'l')?;
    let mut want = Want::default();
    while !reader.accept(b'e')? {
        match reader.string_or_skip()? {
            Some(b"n4") => want.n4 = true,
            Some(b"n6") => want.n6 = true,
            _ => {}
        }
    }
    Ok(want)
}

/// Reads `[code, text]`. Some implementations leave out the text or send a string alone.
fn read_error(reader: &mut Reader<'_>) -> Result<i64, KrpcError> {
    let mut list = *reader;
    reader.skip()?;
    let code = list.accept(b'l')? && list.peek()? == b'i';
    if code { list.integer() } else { Ok(0) }
}

impl Query<'_> {
    fn push(&self, bytes: &mut Vec<u8>) {
        push_string(bytes, b"a");
        bytes.push(b'd');
        let name: &[u8] = match &self.method {
            Method::Ping => {
                push_entry(bytes, b"id", &self.id.0);
                b"ping"
            }
            Method::FindNode { target, want } => {
                push_entry(bytes, b"id", &self.id.0);
                push_entry(bytes, b"target", &target.0);
                want.push(bytes);
                b"find_node"
            }
            Method::Get { target, seq, want } => {
                push_entry(bytes, b"id", &self.id.0);
                push_number(bytes, b"seq", *seq);
                push_entry(bytes, b"target", &target.0);
                want.push(bytes);
                b"get"
            }
            Method::Put(put) => {
                put.push(self.id, bytes);
                b"put"
            }
            Method::Other => {
                push_entry(bytes, b"id", &self.id.0);
                b"other"
            }
        };
        bytes.push(b'e');
        push_entry(bytes, b"q", name);
        push_number(bytes, b"ro", self.read_only.then_some(1));
    }
}

impl Put<'_> {
    fn push(&self, id: NodeId, bytes: &mut Vec<u8>) {
        push_number(bytes, b"cas", self.cas);
        push_entry(bytes, b"id", &id.0);
        push_entry(bytes, b"k", self.key);
        if !self.salt.is_empty() {
            push_entry(bytes, b"salt", self.salt);
        }
        push_number(bytes, b"seq", Some(self.seq));
        push_entry(bytes, b"sig", self.signature);
        if let Some(target) = self.target {
            push_entry(bytes, b"target", &target.0);
        }
        push_entry(bytes, b"token", self.token);
        push_entry(bytes, b"v", self.value);
    }
}

impl Want {
    fn push(self, bytes: &mut Vec<u8>) {
        if self == Self::default() {
            return;
        }
        push_string(bytes, b"want");
        bytes.push(b'l');
        if self.n4 {
            push_string(bytes, b"n4");
        }
        if self.n6 {
            push_string(bytes, b"n6");
        }
        bytes.push(b'e');
    }
}

impl Response<'_> {
    fn push(&self, ip: Option<SocketAddr>, bytes: &mut Vec<u8>) {
        push_ip(bytes, ip);
        push_string(bytes, b"r");
        bytes.push(b'd');
        push_entry(bytes, b"id", &self.id.0);
        push_optional(bytes, b"k", self.key.map(|key| &key[..]));
        push_optional(bytes, b"nodes", self.contacts.nodes);
        push_optional(bytes, b"nodes6", self.contacts.nodes6);
        push_number(bytes, b"seq", self.seq);
        push_optional(bytes, b"sig", self.signature.map(|signature| &signature[..]));
        push_optional(bytes, b"token", self.token);
        push_optional(bytes, b"v", self.value);
        bytes.push(b'e');
    }
}

fn push_error(code: i64, ip: Option<SocketAddr>, bytes: &mut Vec<u8>) {
    push_string(bytes, b"e");
    bytes.push(b'l');
    push_integer(bytes, code);
    push_string(bytes, b"");
    bytes.push(b'e');
    push_ip(bytes, ip);
}

fn push_ip(bytes: &mut Vec<u8>, ip: Option<SocketAddr>) {
    if let Some(ip) = ip {
        push_entry(bytes, b"ip", &compact_address(ip));
    }
}

fn push_entry(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    push_string(bytes, key);
    push_string(bytes, value);
}

fn push_optional(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        push_entry(bytes, key, value);
    }
}

fn push_number(bytes: &mut Vec<u8>, key: &[u8], number: Option<i64>) {
    if let Some(number) = number {
        push_string(bytes, key);
        push_integer(bytes, number);
    }
}
