//! A TURN server for tests: challenges, allocates, binds channels, relays. It believes what clients say, but signs
//! what it answers, so that the client's checks are exercised.

use std::{collections::BTreeMap, net::SocketAddr};

use partyline_wire::datagram::{self, Kind};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoder, MessageEncoderBuilder, StunMessage,
    StunMessageBuilder,
    attributes::{
        stun::{
            ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm,
            PasswordAlgorithms, Realm, XorMappedAddress,
        },
        turn::{ChannelNumber, Data, LifeTime, XorPeerAddress, XorRelayedAddress},
    },
    methods::{ALLOCATE, CHANNEL_BIND, DATA, REFRESH},
};

/// A client of the server: a UDP source address, or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Udp(SocketAddr),
    Stream(usize, u32),
}

/// What the server sends.
pub enum Output {
    ToClient(Client, Vec<u8>),
    FromRelayed(SocketAddr, SocketAddr, Vec<u8>),
}

#[derive(Default)]
struct Allocated {
    relayed: Option<SocketAddr>,
    channels: BTreeMap<u16, SocketAddr>,
}

pub struct TurnServer {
    pub address: SocketAddr,
    pub sha256: bool,
    pub alive: bool,
    /// Whether it has no room for further allocations.
    pub full: bool,
    boots: u32,
    next_port: u16,
    allocations: BTreeMap<Client, Allocated>,
    /// Requests received.
    pub requests: u64,
}

const REALM: &str = "test";

impl TurnServer {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sha256: true,
            alive: true,
            full: false,
            boots: 0,
            next_port: 50_000,
            allocations: BTreeMap::new(),
            requests: 0,
        }
    }

    /// Forgets everything, as after a restart.
    pub fn restart(&mut self) {
        self.allocations.clear();
        self.boots += 1;
    }

    pub fn count(&self) -> usize {
        self.allocations.len()
    }

    /// Whether an address is one of its relayed addresses.
    pub fn owns(&self, address: SocketAddr) -> bool {
        address.ip() == self.address.ip() && address != self.address
    }

    pub fn handle(&mut self, client: Client, bytes: &[u8]) -> Vec<Output> {
        if !self.alive {
            return Vec::new();
        }
        match datagram::classify(bytes) {
            Kind::ChannelData => self.relay_out(client, bytes).into_iter().collect(),
            Kind::Stun => {
                self.request(client, bytes).map(|bytes| Output::ToClient(client, bytes)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// A datagram for one of the relayed addresses.
    pub fn handle_relayed(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<Output> {
        let (client, allocated) = self.allocations.iter().find(|(_, a)| a.relayed == Some(to))?;
        if !self.alive {
            return None;
        }
        if let Some((channel, _)) = allocated.channels.iter().find(|(_, peer)| **peer == from) {
            let mut message = datagram::channel_header(*channel, bytes.len()).to_vec();
            message.extend(bytes);
            return Some(Output::ToClient(*client, message));
        }
        allocated.channels.values().find(|peer| peer.ip() == from.ip())?;
        let message = StunMessageBuilder::new(DATA, MessageClass::Indication)
            .with_attribute(XorPeerAddress::from(from))
            .with_attribute(Data::new(bytes));
        Some(Output::ToClient(*client, encode(message)))
    }

    fn relay_out(&self, client: Client, bytes: &[u8]) -> Option<Output> {
        let allocated = self.allocations.get(&client)?;
        let (channel, range) = datagram::channel_data(bytes)?;
        Some(Output::FromRelayed(
            allocated.relayed?,
            *allocated.channels.get(&channel)?,
            bytes[range].to_vec(),
        ))
    }

    fn request(&mut self, client: Client, bytes: &[u8]) -> Option<Vec<u8>> {
        let (message, _) = MessageDecoder::default().decode(bytes).ok()?;
        if message.class() != MessageClass::Request {
            return None;
        }
        self.requests += 1;
        let nonce = self.nonce();
        match message.get::<Nonce>().and_then(|a| a.as_nonce().ok()) {
            None => return Some(self.challenge(&message, 401)),
            Some(used) if used.as_str() != nonce.as_str() => return Some(self.challenge(&message, 438)),
            Some(_) => {}
        }
        let reply = StunMessageBuilder::new(message.method(), MessageClass::SuccessResponse);
        let reply = match message.method() {
            ALLOCATE if self.full => return Some(self.error(&message, 508)),
            ALLOCATE => {
                let port = self.next_port;
                let allocated = self.allocations.entry(client).or_default();
                if allocated.relayed.is_some() {
                    return Some(self.error(&message, 437));
                }
                self.next_port += 1;
                let relayed = SocketAddr::new(self.address.ip(), port);
                allocated.relayed = Some(relayed);
                let mapped = match client {
                    Client::Udp(address) => address,
                    Client::Stream(..) => "198.51.100.250:9".parse().unwrap(),
                };
                reply
                    .with_attribute(XorRelayedAddress::from(relayed))
                    .with_attribute(XorMappedAddress::from(mapped))
            }
            REFRESH => {
                if !self.allocations.contains_key(&client) {
                    return Some(self.error(&message, 437));
                }
                if message.get::<LifeTime>().is_some_and(|a| *a.expect_life_time() == 0) {
                    self.allocations.remove(&client);
                }
                reply.with_attribute(LifeTime::from(600))
            }
            CHANNEL_BIND => {
                let Some(allocated) = self.allocations.get_mut(&client) else {
                    return Some(self.error(&message, 437));
                };
                let number = message.get::<ChannelNumber>()?.as_channel_number().ok()?.number();
                let peer = *message.get::<XorPeerAddress>()?.as_xor_peer_address().ok()?.socket_address();
                allocated.channels.insert(number, peer);
                reply
            }
            _ => return Some(self.error(&message, 400)),
        };
        Some(encode(self.sign(reply.with_transaction_id(*message.transaction_id()))))
    }

    fn nonce(&self) -> Nonce {
        let cookie = if self.sha256 { "obMatJos2gAAA" } else { "plain" };
        Nonce::new(format!("{cookie}{}", self.boots)).unwrap()
    }

    fn challenge(&self, request: &StunMessage, code: u16) -> Vec<u8> {
        let reply = self
            .error_message(request, code)
            .with_attribute(Realm::new(REALM).unwrap())
            .with_attribute(self.nonce());
        encode(if self.sha256 {
            let mut offer = PasswordAlgorithms::default();
            offer.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)));
            reply.with_attribute(offer)
        } else {
            reply
        })
    }

    fn error(&self, request: &StunMessage, code: u16) -> Vec<u8> {
        encode(self.sign(self.error_message(request, code)))
    }

    fn error_message(&self, request: &StunMessage, code: u16) -> StunMessageBuilder {
        let code = stun_rs::ErrorCode::new(code, "no").unwrap();
        StunMessageBuilder::new(request.method(), MessageClass::ErrorResponse)
            .with_transaction_id(*request.transaction_id())
            .with_attribute(ErrorCode::from(code))
    }

    fn sign(&self, message: StunMessageBuilder) -> StunMessageBuilder {
        let algorithm = if self.sha256 { AlgorithmId::SHA256 } else { AlgorithmId::MD5 };
        let key = HMACKey::new_long_term("user", REALM, "secret", Algorithm::from(algorithm)).unwrap();
        if self.sha256 {
            message.with_attribute(MessageIntegritySha256::new(key))
        } else {
            message.with_attribute(MessageIntegrity::new(key))
        }
    }
}

fn encode(message: StunMessageBuilder) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message.build()).unwrap();
    bytes.truncate(len);
    bytes
}
