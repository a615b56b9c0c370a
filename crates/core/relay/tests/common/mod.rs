//! A relay with a clock moved by hand, and clients that use another implementation of STUN.
#![allow(dead_code, unused_imports, missing_docs, clippy::unwrap_used)]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Now, Timestamp};
use partyline_relay::{Client, ClientTransport, Forward, Quotas, Secret, Settings, Transmit};
use partyline_tests_netsim::{LongTermCredentials, TurnServer, stun};
use stun_rs::{HMACKey, StunMessage, StunMessageBuilder};

pub use partyline_tests_netsim::stun::{
    allocate, channel_data, encode, error_code as code, password_algorithms as algorithms,
    relayed_address as relayed, request,
};

pub const REALM: &str = "partyline";

pub struct Lab {
    pub server: TurnServer,
    pub now: Now,
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
        // Short texts are easier to tell apart than WireGuard messages.
        foreign_payloads: true,
        ..Settings::default()
    }
}

impl Lab {
    pub fn new(settings: Settings) -> Self {
        let listeners = ["198.51.100.1:3478", "198.51.100.2:3478", "198.51.100.1:3479", "198.51.100.2:3479"];
        Self::with_listeners(settings, &listeners)
    }

    #[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
    pub fn with_listeners(settings: Settings, listeners: &[&str]) -> Self {
        let now = Now { instant: Instant::now(), unix: Timestamp(1_700_000_000_000) };
        let listeners = listeners.iter().map(|text| address(text)).collect();
        let relayed: [IpAddr; 2] = ["198.51.100.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        Self { server: TurnServer::new(settings, listeners, &relayed, [7; 32]), now }
    }

    pub fn advance(&mut self, seconds: u64) {
        let span = Duration::from_secs(seconds);
        self.now = Now { instant: self.now.instant + span, unix: self.now.unix.plus(span) };
        self.server.core.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
    }

    pub fn transmits(&mut self) -> Vec<Transmit> {
        self.server.responses(self.now)
    }

    /// Hands in a packet. Returns where it is relayed to, and its bytes then.
    pub fn packet(&mut self, client: Client, bytes: &[u8]) -> (Forward, Vec<u8>) {
        self.server.handle_client(self.now, client, bytes)
    }

    /// Hands in a datagram from a peer. Returns where it is relayed to, and its bytes then.
    pub fn peer_sends(&mut self, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> (Forward, Vec<u8>) {
        assert!(self.server.relayed_addresses().any(|open| open == relayed), "{relayed} is not open");
        self.server.handle_peer(self.now, relayed, peer, bytes)
    }

    /// Hands in a message. Returns the response, if there is one.
    pub fn ask(&mut self, client: Client, message: &StunMessage) -> Option<StunMessage> {
        self.packet(client, &encode(message));
        let mut answers = self.transmits();
        assert!(answers.len() <= 1);
        let answer = answers.pop()?;
        assert_eq!((answer.transport, answer.destination), (client.transport, client.address));
        let answer = stun::decode(&answer.payload).unwrap();
        assert_eq!(answer.transaction_id(), message.transaction_id());
        Some(answer)
    }
}

pub fn udp(address: &str) -> Client {
    Client { transport: ClientTransport::Udp(0), address: self::address(address) }
}

pub fn permission(peer: &str) -> StunMessageBuilder {
    stun::create_permission(address(peer))
}

pub fn channel(number: u16, peer: &str) -> StunMessageBuilder {
    stun::channel_bind(number, address(peer))
}

/// A client with credentials.
pub struct Caller {
    pub client: Client,
    pub credentials: LongTermCredentials,
}

impl Caller {
    pub fn new(lab: &mut Lab, client: Client, username: &str, password: &str) -> Self {
        let challenge = lab.ask(client, &allocate().build()).unwrap();
        assert_eq!(code(&challenge), 401);
        let credentials = LongTermCredentials::from_challenge(&challenge, REALM, username, password);
        Self { client, credentials }
    }

    /// Another user at the same client.
    pub fn new_with_nonce(other: &Self, username: &str, password: &str) -> Self {
        let (username, password) = (username.into(), password.into());
        let credentials = LongTermCredentials { username, password, ..other.credentials.clone() };
        Self { client: other.client, credentials }
    }

    pub fn key(&self) -> HMACKey {
        self.credentials.key()
    }

    pub fn sign(&self, builder: StunMessageBuilder) -> StunMessage {
        self.credentials.sign(builder)
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

pub fn alice(lab: &mut Lab) -> Caller {
    Caller::new(lab, udp("192.0.2.1:1000"), "alice", "a")
}

pub fn bob(lab: &mut Lab) -> Caller {
    Caller::new(lab, udp("192.0.2.2:2000"), "bob", "b")
}
