//! Connections the node asks for: WebSockets to rendezvous servers, byte streams to relays, name lookups.
//!
//! Each is a task of its own with a bounded queue, so that one slow server delays nothing else. A queue that overflows
//! ends its connection: the node opens another and announces again, which costs less than lost frames would.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_model::{AppError, ErrorCode};
use partyline_net::{ConnectError, TlsClient, WebSocket};
use partyline_node::{ServerId, ServerInput, StreamId, StreamInput};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

/// What connections tell the loop.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    Server(ServerId, ServerInput),
    Stream(StreamId, StreamInput),
    Resolved { host: String, port: u16, addresses: Vec<SocketAddr> },
    Reached(IpAddr),
}

const QUEUE: usize = 256;
/// How long a server may take to accept a TCP connection.
const REACH: Duration = Duration::from_secs(3);
const HTTPS: u16 = 443;
/// How long a server may take to take a frame.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
const STREAM_READ: usize = 16 * 1024;

/// All connections of one engine.
pub(crate) struct Connections {
    tls: TlsClient,
    events: mpsc::Sender<ConnectionEvent>,
    servers: HashMap<ServerId, mpsc::Sender<Vec<u8>>>,
    streams: HashMap<StreamId, mpsc::Sender<Vec<u8>>>,
}

impl Connections {
    pub(crate) fn new(tls: TlsClient, events: mpsc::Sender<ConnectionEvent>) -> Self {
        Self { tls, events, servers: HashMap::new(), streams: HashMap::new() }
    }

    pub(crate) fn tls(&self) -> TlsClient {
        self.tls.clone()
    }

    pub(crate) fn open_server(&mut self, id: ServerId, url: String) {
        let (frames, queue) = mpsc::channel(QUEUE);
        self.servers.insert(id, frames);
        let (tls, events) = (self.tls.clone(), self.events.clone());
        tokio::spawn(async move {
            let end = match partyline_net::connect_ws(&url, &tls).await {
                Ok(socket) => serve_socket(id, socket, queue, &events).await,
                Err(error) => Some(server_error(&url, &error)),
            };
            let _ = events.send(ConnectionEvent::Server(id, ServerInput::Closed(end))).await;
        });
    }

    /// Queues a frame. A connection that does not keep up is dropped, and reports its end.
    pub(crate) fn send_to_server(&mut self, id: ServerId, frame: Vec<u8>) {
        if self.servers.get(&id).is_some_and(|frames| frames.try_send(frame).is_err()) {
            self.servers.remove(&id);
        }
    }

    pub(crate) fn close_server(&mut self, id: ServerId) {
        self.servers.remove(&id);
    }

    pub(crate) fn open_stream(&mut self, id: StreamId, tls: bool, address: SocketAddr, host: String) {
        let (bytes, queue) = mpsc::channel(QUEUE);
        self.streams.insert(id, bytes);
        let (client, events) = (self.tls.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Err(error) = run_stream(id, tls, (address, &host), &client, queue, &events).await {
                tracing::debug!(%address, host, tls, %error, "no stream to the relay");
            }
            let _ = events.send(ConnectionEvent::Stream(id, StreamInput::Closed)).await;
        });
    }

    /// Queues bytes; drops them if the stream does not keep up, as a full network would.
    pub(crate) fn send_on_stream(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get(&id) {
            let _ = stream.try_send(bytes);
        }
    }

    pub(crate) fn close_stream(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    /// Tells whether anything at an address answers over TCP: where the server is, or where the web is.
    pub(crate) fn reach(&self, address: SocketAddr) {
        for port in [address.port(), HTTPS] {
            let events = self.events.clone();
            tokio::spawn(async move {
                let connect = tokio::net::TcpStream::connect(SocketAddr::new(address.ip(), port));
                if matches!(tokio::time::timeout(REACH, connect).await, Ok(Ok(_))) {
                    let _ = events.send(ConnectionEvent::Reached(address.ip())).await;
                }
            });
        }
    }

    pub(crate) fn resolve(&self, host: String, port: u16) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let addresses = match tokio::net::lookup_host((host.as_str(), port)).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    tracing::debug!(host, %error, "no address for a relay");
                    Vec::new()
                }
            };
            let _ = events.send(ConnectionEvent::Resolved { host, port, addresses }).await;
        });
    }
}

/// Carries frames until the socket or the queue ends; says why if it was not us.
async fn serve_socket(
    id: ServerId,
    mut socket: WebSocket,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Option<AppError> {
    events.send(ConnectionEvent::Server(id, ServerInput::Opened)).await.ok()?;
    loop {
        tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => match timeout(SEND_PATIENCE, socket.send(frame)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Some(lost(&error.to_string())),
                    Err(_) => return Some(lost("the server takes nothing more")),
                },
                None => {
                    socket.close().await;
                    return None;
                }
            },
            message = socket.next() => match message {
                Some(Ok(frame)) => {
                    events.send(ConnectionEvent::Server(id, ServerInput::Frame(frame))).await.ok()?;
                }
                Some(Err(error)) => return Some(lost(&error.to_string())),
                None => return Some(lost("the connection ended")),
            },
        }
    }
}

async fn run_stream(
    id: StreamId,
    tls: bool,
    (address, host): (SocketAddr, &str),
    client: &TlsClient,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<(), ConnectError> {
    let stream: Box<dyn partyline_net::Stream> = if tls {
        partyline_net::connect_tls(host, address.port(), client).await?
    } else {
        Box::new(partyline_net::connect_tcp(&address.ip().to_string(), address.port()).await?)
    };
    if events.send(ConnectionEvent::Stream(id, StreamInput::Opened)).await.is_err() {
        return Ok(());
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let read = async {
        let mut buffer = vec![0; STREAM_READ];
        while let Ok(len @ 1..) = reader.read(&mut buffer).await {
            let input = StreamInput::Data(buffer[..len].to_vec());
            if events.send(ConnectionEvent::Stream(id, input)).await.is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some(bytes) = queue.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::select! { () = read => (), () = write => () }
    Ok(())
}

fn lost(why: &str) -> AppError {
    AppError::new(
        ErrorCode::ServerUnreachable,
        format!("The connection to the server was lost: {why}."),
        "Partyline reconnects by itself; players who are connected stay connected.",
    )
}

pub(crate) fn server_error(url: &str, error: &ConnectError) -> AppError {
    let code = match error {
        ConnectError::Certificate { .. } | ConnectError::Tls { .. } | ConnectError::Roots { .. } => {
            ErrorCode::ServerCertificate
        }
        _ => ErrorCode::ServerUnreachable,
    };
    // The error ends in what to do, where there is something to do.
    let text = error.to_string();
    let (what, hint) = text.split_once("; ").unwrap_or((&text, "Partyline keeps trying"));
    AppError::new(code, format!("The server {url} cannot be used: {what}."), sentence(hint))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}
