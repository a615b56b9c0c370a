//! Members that connect, enter their parties, and stay idle.

use anyhow::{Context, Result, bail};
use ed25519_dalek::{Signer, SigningKey};
use partyline_model::{AddressScope, HandleKey, Topic};
use partyline_net::{WebSocket, connect_ws};
use partyline_wire::rendezvous::{ClientFrame, EntryProof, ServerFrame};

use super::server::Server;

/// The open connections of idle members.
pub(super) struct Crowd(Vec<WebSocket>);

impl Crowd {
    /// Connects members one after the other, and returns when the server has processed all their frames.
    pub(super) async fn gather(server: &Server, members: usize, party: usize, record: usize) -> Result<Self> {
        let mut crowd = Self(Vec::with_capacity(members));
        for index in 0..members {
            let socket = enter(server, index, party, record).await;
            crowd.0.push(socket.with_context(|| format!("member {index}"))?);
        }
        for socket in &mut crowd.0 {
            settle(socket).await?;
        }
        Ok(crowd)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

async fn enter(server: &Server, index: usize, party: usize, record: usize) -> Result<WebSocket> {
    let mut socket = connect_ws(&server.url, &server.client, AddressScope::Any).await?;
    let ServerFrame::Welcome { challenge, .. } = hear(&mut socket).await? else { bail!("no welcome") };
    let (key, device) = (key(0, index / party), key(1, index));
    let topic = Topic(key.verifying_key().to_bytes());
    let proof = EntryProof::sign(
        (&challenge, &topic, HandleKey(device.verifying_key().to_bytes())),
        |message| key.sign(message).to_bytes(),
        |message| device.sign(message).to_bytes(),
    );
    let enter = ClientFrame::Enter { topic, proof, record: vec![7; record] };
    socket.send(enter.encode()?).await?;
    match hear(&mut socket).await? {
        ServerFrame::Roster { .. } => Ok(socket),
        other => bail!("not let in: {other:?}"),
    }
}

/// Returns the key of a party (kind 0) or of a device (kind 1).
fn key(kind: u8, number: usize) -> SigningKey {
    let mut seed = [kind; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

/// Reads all frames up to the response to a last request.
async fn settle(socket: &mut WebSocket) -> Result<()> {
    socket.send(ClientFrame::Time { echo: 0 }.encode()?).await?;
    while !matches!(hear(socket).await?, ServerFrame::TimeReply { .. }) {}
    Ok(())
}

async fn hear(socket: &mut WebSocket) -> Result<ServerFrame> {
    let bytes = socket.next().await.context("the server hung up")??;
    Ok(ServerFrame::decode(&bytes)?)
}
