//! Members that connect, enter their parties, and stay idle.

use anyhow::{Context, Result, bail};
use ed25519_dalek::{Signer, SigningKey};
use partyline_model::{Handle, Topic};
use partyline_net::{WebSocket, connect_ws};
use partyline_wire::rendezvous::{ClientFrame, ServerFrame, proof_message};

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
    let mut socket = connect_ws(&server.url, &server.client).await?;
    let ServerFrame::Welcome { challenge, .. } = hear(&mut socket).await? else { bail!("no welcome") };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(index / party).to_le_bytes());
    let key = SigningKey::from_bytes(&seed);
    let topic = Topic(key.verifying_key().to_bytes());
    let mut handle = Handle([0; 16]);
    handle.0[..8].copy_from_slice(&index.to_le_bytes());
    let proof = key.sign(&proof_message(&challenge, &topic, &handle)).to_bytes();
    let enter = ClientFrame::Enter { topic, handle, proof, record: vec![7; record] };
    socket.send(enter.encode()?).await?;
    match hear(&mut socket).await? {
        ServerFrame::Roster { .. } => Ok(socket),
        other => bail!("not let in: {other:?}"),
    }
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
