//! A real server on loopback and members with real sockets.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::{net::SocketAddr, path::PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use partyline_model::{AddressScope, Handle, HandleKey, Topic};
use partyline_net::{ConnectError, Roots, TlsClient, WebSocket, WebSocketError, connect_ws};
use partyline_server::{
    Server,
    config::{Args, Config},
};
use partyline_wire::rendezvous::{ClientFrame, EntryProof, RefusalCode, ServerFrame, handle_of};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Without TLS, on a free port, without a relay.
pub fn config() -> Config {
    load(Args { no_relay: true, ..Args::default() })
}

/// Without TLS, on free ports, with a relay.
pub fn config_with_relay() -> Config {
    let relay_listen = vec!["127.0.0.1".parse().unwrap()];
    load(Args {
        relay_listen,
        relay_port: Some(0),
        relay_alternate_port: Some(0),
        dev: true,
        ..Args::default()
    })
}

pub fn load(args: Args) -> Config {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    Config::load(&Args { listen, ..args }).unwrap()
}

/// A certificate authority with its files in a folder.
pub struct Authority {
    pub folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Writes a certificate for a name, valid from one year to another; returns the paths of certificate and key.
    pub fn issue(&self, name: &str, years: (i32, i32)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let (certificate, key_file) =
            (self.folder.path().join("cert.pem"), self.folder.path().join("key.pem"));
        std::fs::write(&certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (certificate, key_file)
    }

    /// A client that trusts the authority.
    pub fn client(&self) -> TlsClient {
        TlsClient::new(&Roots { extra_ca: Some(self.folder.path().join("ca.pem")) }).unwrap()
    }
}

pub fn client() -> TlsClient {
    TlsClient::new(&Roots::default()).unwrap()
}

pub fn key(party: u8) -> SigningKey {
    SigningKey::from_bytes(&[party; 32])
}

pub fn topic(party: u8) -> Topic {
    Topic(key(party).verifying_key().to_bytes())
}

/// The key of a device, which is the same on all topics here.
pub fn device(n: u8) -> SigningKey {
    let mut seed = [n; 32];
    seed[0] = !n;
    SigningKey::from_bytes(&seed)
}

pub fn handle_key(n: u8) -> HandleKey {
    HandleKey(device(n).verifying_key().to_bytes())
}

pub fn handle(n: u8) -> Handle {
    handle_of(&handle_key(n))
}

/// A connection that has received its welcome.
pub struct Member {
    pub socket: WebSocket,
    pub challenge: [u8; 32],
}

impl Member {
    pub async fn connect(server: SocketAddr) -> Self {
        Self::connect_to(&format!("ws://{server}"), &client()).await.unwrap()
    }

    pub async fn connect_to(url: &str, client: &TlsClient) -> Result<Self, ConnectError> {
        let mut socket = connect_ws(url, client, AddressScope::Any).await?;
        let welcome = ServerFrame::decode(&socket.next().await.unwrap().unwrap()).unwrap();
        let ServerFrame::Welcome { challenge, .. } = welcome else { panic!("{welcome:?}") };
        Ok(Self { socket, challenge })
    }

    /// Connects and enters the topic of a party.
    pub async fn enter(server: SocketAddr, party: u8, name: u8) -> Self {
        let mut member = Self::connect(server).await;
        member.send_frame(&member.enter_frame(party, name)).await;
        let received = member.receive().await;
        assert!(matches!(received, ServerFrame::Roster { .. }), "{received:?}");
        member
    }

    pub fn enter_frame(&self, party: u8, name: u8) -> ClientFrame {
        self.enter_frame_as(party, name, &device(name))
    }

    /// A request to enter under the handle of one device, signed by any key.
    pub fn enter_frame_as(&self, party: u8, name: u8, signer: &SigningKey) -> ClientFrame {
        let proof = EntryProof::sign(
            (&self.challenge, &topic(party), handle_key(name)),
            |message| key(party).sign(message).to_bytes(),
            |message| signer.sign(message).to_bytes(),
        );
        ClientFrame::Enter { topic: topic(party), proof, record: vec![name] }
    }

    pub async fn send_frame(&mut self, frame: &ClientFrame) {
        self.socket.send(frame.encode().unwrap()).await.unwrap();
    }

    pub async fn receive(&mut self) -> ServerFrame {
        ServerFrame::decode(&self.socket.next().await.unwrap().unwrap()).unwrap()
    }

    /// Reads until a frame satisfies the condition.
    pub async fn receive_until(&mut self, wanted: impl Fn(&ServerFrame) -> bool) -> ServerFrame {
        loop {
            let frame = self.receive().await;
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads until the server closes the connection; returns the close code and reason.
    pub async fn close_frame(&mut self) -> (u16, String) {
        loop {
            match self.socket.next().await {
                Some(Ok(_)) => {}
                Some(Err(WebSocketError::Closed { code, reason })) => return (code, reason),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn send(to: u8, id: u32, message: &[u8]) -> ClientFrame {
    ClientFrame::Send { topic: topic(1), to: handle(to), id, kept: false, message: message.to_vec() }
}

pub fn refusal(frame: &ServerFrame) -> Option<RefusalCode> {
    match frame {
        ServerFrame::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

pub fn start(config: Config) -> (Server, SocketAddr) {
    let server = Server::start(config).unwrap();
    let address = server.addresses()[0];
    (server, address)
}
