//! A server with a clock moved by hand, sockets that can be made to fail, and clients that use the codec.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]
// The origin of virtual time.
#![allow(clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Now, Timestamp};
use partyline_relay::{
    Client, ClientTransport, Event, Forward, HEADROOM, Listener, Packet, Quotas, Relay, RelayAddress,
    RelaySocket, Secret, Settings, TAILROOM, Transmit,
};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoder, MessageEncoder, MessageMethod,
    StunMessage, StunMessageBuilder,
    attributes::{
        stun::{
            ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm,
            PasswordAlgorithms, Realm, UserName,
        },
        turn::{ChannelNumber, RequestedTrasport, XorPeerAddress, XorRelayedAddress},
    },
    methods,
};

pub const REALM: &str = "partyline";

pub struct Lab {
    pub relay: Relay,
    pub now: Now,
    pub open: Vec<(RelaySocket, SocketAddr)>,
    /// The number of next sockets that cannot be bound.
    pub broken: usize,
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn settings() -> Settings {
    Settings {
        shared_secret: Some(Secret::new("shared")),
        users: [("alice", "a"), ("bob", "b")]
            .map(|(name, password)| (name.into(), Secret::new(password)))
            .into(),
        quotas: Quotas { unauthenticated_per_second: 100_000, ..Quotas::default() },
        ..Settings::default()
    }
}

impl Lab {
    pub fn new(settings: Settings) -> Self {
        let listeners = ["198.51.100.1:3478", "198.51.100.2:3478", "198.51.100.1:3479", "198.51.100.2:3479"];
        Self::with_listeners(settings, &listeners)
    }

    pub fn with_listeners(settings: Settings, listeners: &[&str]) -> Self {
        let now = Now { instant: Instant::now(), unix: Timestamp(1_700_000_000_000) };
        let listener = |text: &&str| Listener { local: address(text), public: address(text) };
        let listeners = listeners.iter().map(listener).collect();
        let relay = ["198.51.100.1", "2001:db8::1"]
            .map(|text| RelayAddress { local: text.parse().unwrap(), public: text.parse().unwrap() });
        Self { relay: Relay::new(settings, listeners, &relay, [7; 32]), now, open: Vec::new(), broken: 0 }
    }

    pub fn advance(&mut self, seconds: u64) {
        let span = Duration::from_secs(seconds);
        self.now = Now { instant: self.now.instant + span, unix: self.now.unix.plus(span) };
        self.relay.handle_timeout(self.now);
        self.apply_events();
    }

    fn apply_events(&mut self) {
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::OpenSocket { .. } if self.broken > 0 => {
                    self.broken -= 1;
                    let Event::OpenSocket { socket, .. } = event else { continue };
                    self.relay.handle_socket_opened(self.now, socket, false);
                }
                Event::OpenSocket { socket, address } => {
                    self.open.push((socket, address));
                    self.relay.handle_socket_opened(self.now, socket, true);
                }
                Event::CloseSocket { socket } => self.open.retain(|(open, _)| *open != socket),
            }
        }
    }

    pub fn transmits(&mut self) -> Vec<Transmit> {
        self.apply_events();
        std::iter::from_fn(|| self.relay.poll_transmit()).collect()
    }

    /// Hands in a packet. Returns where it is relayed to, and its bytes then.
    pub fn packet(&mut self, client: Client, bytes: &[u8]) -> (Forward, Vec<u8>) {
        let mut buffer = buffer(bytes);
        let end = HEADROOM + bytes.len();
        let forward =
            self.relay.handle_client(self.now, client, &mut Packet::new(&mut buffer, HEADROOM..end).unwrap());
        (forward.clone(), sent(&forward, &buffer))
    }

    /// Hands in a datagram from a peer. Returns where it is relayed to, and its bytes then.
    pub fn peer_sends(&mut self, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> (Forward, Vec<u8>) {
        let socket = self.open.iter().find(|(_, address)| *address == relayed).unwrap().0;
        let mut buffer = buffer(bytes);
        let end = HEADROOM + bytes.len();
        let forward = self.relay.handle_peer(
            self.now,
            socket,
            peer,
            &mut Packet::new(&mut buffer, HEADROOM..end).unwrap(),
        );
        (forward.clone(), sent(&forward, &buffer))
    }

    /// Hands in a message. Returns the response, if there is one.
    pub fn ask(&mut self, client: Client, message: &StunMessage) -> Option<StunMessage> {
        self.packet(client, &encode(message));
        let mut answers = self.transmits();
        assert!(answers.len() <= 1);
        let answer = answers.pop()?;
        assert_eq!((answer.transport, answer.destination), (client.transport, client.address));
        let (answer, _) = MessageDecoder::default().decode(&answer.payload).unwrap();
        assert_eq!(answer.transaction_id(), message.transaction_id());
        Some(answer)
    }
}

fn buffer(bytes: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; HEADROOM];
    buffer.extend_from_slice(bytes);
    buffer.resize(buffer.len() + TAILROOM, 0);
    buffer
}

fn sent(forward: &Forward, buffer: &[u8]) -> Vec<u8> {
    match forward {
        Forward::Consumed => Vec::new(),
        Forward::ToPeer { range, .. } | Forward::ToClient { range, .. } => buffer[range.clone()].to_vec(),
    }
}

pub fn encode(message: &StunMessage) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let length = MessageEncoder::default().encode(&mut bytes, message).unwrap();
    bytes.truncate(length);
    bytes
}

pub fn code(answer: &StunMessage) -> u16 {
    answer.get::<ErrorCode>().map_or(0, |error| error.expect_error_code().error_code().error_code())
}

pub fn udp(address: &str) -> Client {
    Client { transport: ClientTransport::Udp(0), address: self::address(address) }
}

pub fn request(method: MessageMethod) -> StunMessageBuilder {
    StunMessageBuilder::new(method, MessageClass::Request)
}

pub fn allocate() -> StunMessageBuilder {
    request(methods::ALLOCATE).with_attribute(RequestedTrasport::from(stun_rs::protocols::UDP))
}

pub fn permission(peer: &str) -> StunMessageBuilder {
    request(methods::CREATE_PERMMISSION).with_attribute(XorPeerAddress::from(address(peer)))
}

pub fn channel(number: u16, peer: &str) -> StunMessageBuilder {
    request(methods::CHANNEL_BIND)
        .with_attribute(ChannelNumber::new(number))
        .with_attribute(XorPeerAddress::from(address(peer)))
}

pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// A client with a user name, a password and a nonce.
pub struct Caller {
    pub client: Client,
    pub username: String,
    pub password: String,
    pub nonce: Nonce,
    /// True for credentials of RFC 8489, false for RFC 5389.
    pub sha256: bool,
}

impl Caller {
    pub fn new(lab: &mut Lab, client: Client, username: &str, password: &str) -> Self {
        let challenge = lab.ask(client, &allocate().build()).unwrap();
        assert_eq!(code(&challenge), 401);
        let nonce = challenge.get::<Nonce>().unwrap().expect_nonce().clone();
        Self { client, username: username.into(), password: password.into(), nonce, sha256: false }
    }

    pub fn key(&self) -> HMACKey {
        let algorithm = if self.sha256 { AlgorithmId::SHA256 } else { AlgorithmId::MD5 };
        HMACKey::new_long_term(&self.username, REALM, &self.password, Algorithm::from(algorithm)).unwrap()
    }

    pub fn sign(&self, builder: StunMessageBuilder) -> StunMessage {
        let builder = builder
            .with_attribute(UserName::new(&self.username).unwrap())
            .with_attribute(Realm::new(REALM).unwrap())
            .with_attribute(self.nonce.clone());
        if !self.sha256 {
            return builder.with_attribute(MessageIntegrity::new(self.key())).build();
        }
        builder
            .with_attribute(algorithms())
            .with_attribute(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)))
            .with_attribute(MessageIntegritySha256::new(self.key()))
            .build()
    }

    pub fn call(&self, lab: &mut Lab, builder: StunMessageBuilder) -> StunMessage {
        lab.ask(self.client, &self.sign(builder)).unwrap()
    }

    /// Allocates, and returns the relayed address.
    pub fn relayed(&self, lab: &mut Lab) -> SocketAddr {
        let answer = self.call(lab, allocate());
        assert_eq!(code(&answer), 0);
        relayed(&answer)
    }
}

pub fn algorithms() -> PasswordAlgorithms {
    let mut list = PasswordAlgorithms::default();
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::SHA256)));
    list.add(PasswordAlgorithm::new(Algorithm::from(AlgorithmId::MD5)));
    list
}

pub fn relayed(answer: &StunMessage) -> SocketAddr {
    *answer.get::<XorRelayedAddress>().unwrap().expect_xor_relayed_address().socket_address()
}

pub fn alice(lab: &mut Lab) -> Caller {
    Caller::new(lab, udp("192.0.2.1:1000"), "alice", "a")
}

pub fn bob(lab: &mut Lab) -> Caller {
    Caller::new(lab, udp("192.0.2.2:2000"), "bob", "b")
}

impl Caller {
    /// Another user at the same client.
    pub fn new_with_nonce(other: &Self, username: &str, password: &str) -> Self {
        let nonce = other.nonce.clone();
        Self {
            client: other.client,
            username: username.into(),
            password: password.into(),
            nonce,
            sha256: other.sha256,
        }
    }
}
