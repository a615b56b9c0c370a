//! A minimal TURN client for generating load: it allocates, binds one channel per peer, and then exchanges raw
//! ChannelData.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoder, MessageEncoder, MessageMethod,
    StunMessage, StunMessageBuilder,
    attributes::{
        stun::{ErrorCode, MessageIntegrity, Nonce, Realm, UserName},
        turn::{ChannelNumber, RequestedTrasport, XorPeerAddress, XorRelayedAddress},
    },
    methods,
};

use super::server::{REALM, credentials};

/// A client with an allocation.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: UdpSocket,
    pub(super) relayed: SocketAddr,
    nonce: Nonce,
    user: String,
    key: HMACKey,
}

impl Client {
    /// Creates an allocation.
    pub(super) fn new(server: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind((next_address(), 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let (user, password) = credentials();
        let key = HMACKey::new_long_term(&user, REALM, &password, Algorithm::from(AlgorithmId::MD5))?;
        let udp = RequestedTrasport::from(stun_rs::protocols::UDP);
        let challenge = transact(&socket, &request(methods::ALLOCATE).with_attribute(udp.clone()).build())?;
        let nonce = challenge.get::<Nonce>().context("no nonce in the challenge")?.expect_nonce().clone();
        let mut client = Self { socket, relayed: server, nonce, user, key };
        let reply = client.call(request(methods::ALLOCATE).with_attribute(udp))?;
        client.relayed = *reply
            .get::<XorRelayedAddress>()
            .context("no relayed address")?
            .expect_xor_relayed_address()
            .socket_address();
        Ok(client)
    }

    /// Binds a channel to a peer.
    pub(super) fn bind(&self, number: u16, peer: SocketAddr) -> Result<()> {
        let bind = request(methods::CHANNEL_BIND)
            .with_attribute(ChannelNumber::new(number))
            .with_attribute(XorPeerAddress::from(peer));
        self.call(bind).map(|_| ())
    }

    fn call(&self, request: StunMessageBuilder) -> Result<StunMessage> {
        let request = request
            .with_attribute(UserName::new(&self.user)?)
            .with_attribute(Realm::new(REALM)?)
            .with_attribute(self.nonce.clone())
            .with_attribute(MessageIntegrity::new(self.key.clone()))
            .build();
        let reply = transact(&self.socket, &request)?;
        if let Some(error) = reply.get::<ErrorCode>() {
            bail!("the relay refuses: {:?}", error.expect_error_code());
        }
        Ok(reply)
    }
}

/// Returns the next loopback address. Our server limits unauthenticated clients by address, and real clients have many
/// addresses.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(127, 0, 1, NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 1)
}

fn request(method: MessageMethod) -> StunMessageBuilder {
    StunMessageBuilder::new(method, MessageClass::Request)
}

/// Sends a request until its response arrives.
fn transact(socket: &UdpSocket, request: &StunMessage) -> Result<StunMessage> {
    let mut bytes = [0; 1024];
    let length = MessageEncoder::default().encode(&mut bytes, request)?;
    for _ in 0..8 {
        socket.send(&bytes[..length])?;
        let mut answer = [0; 2048];
        while let Ok(length) = socket.recv(&mut answer) {
            let Ok((reply, _)) = MessageDecoder::default().decode(&answer[..length]) else { continue };
            if reply.transaction_id() == request.transaction_id() {
                return Ok(reply);
            }
        }
    }
    bail!("no answer from the relay")
}
