//! Connections that the node asks for: WebSockets to rendezvous servers, byte streams to relays, name lookups.
//!
//! Each is a task of its own with a bounded queue, so that a slow server delays nothing else. A queue that overflows
//! ends a WebSocket: the node connects again and announces again, which costs less than lost frames would. On a stream
//! to a relay the message is dropped instead, as a full network would drop it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use partyline_model::{AddressScope, AppError, ErrorCode, Timestamp};
use partyline_net::{ConnectError, Nat64Prefix, TlsClient, WebSocket};
use partyline_node::{RequestId, ServerId, ServerInput, StreamId, StreamInput};
use partyline_wire::rendezvous::ServerFrame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc::{self, error::TrySendError},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::metrics::{self, RELAY_LOOKUPS, RELAY_STREAM_DROPS, RELAY_STREAMS, RENDEZVOUS_FRAMES};

/// What connections report to the loop.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    Server(ServerId, ServerInput),
    Stream(StreamId, StreamInput),
    /// The addresses of a host; none if the lookup failed.
    Resolved {
        host: String,
        port: u16,
        addresses: Vec<SocketAddr>,
    },
    /// The time of a server, for the command that waits for it; `None` if no server answered.
    ServerTime(RequestId, Option<Timestamp>),
    /// A TCP connection to this address succeeded.
    Reached(IpAddr),
    /// The prefix of the network's NAT64; `None` where it has IPv4, or no NAT64.
    Nat64(Option<Nat64Prefix>),
}

/// Frames or messages that may wait for one connection.
const QUEUE: usize = 256;
/// How long a server may take to accept a TCP connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
const HTTPS: u16 = 443;
/// How long servers may take to say their time, and how many are asked.
const TIME_TIMEOUT: Duration = Duration::from_secs(8);
const MAX_ASKED: usize = 3;
/// How long a server may take to accept a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a network without IPv4 is asked for the prefix of its NAT64: it may change with the DNS server's settings.
const NAT64_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is while it names none: the name server may not have been reached yet.
const NAT64_RETRY: Duration = Duration::from_secs(2);
/// Bytes read from a stream at once.
const STREAM_READ: usize = 16 * 1024;

/// All connections of one engine. Dropping a queue ends its connection.
pub(crate) struct Connections {
    tls: TlsClient,
    events: mpsc::Sender<ConnectionEvent>,
    servers: HashMap<ServerId, mpsc::Sender<Vec<u8>>>,
    streams: HashMap<StreamId, mpsc::Sender<Vec<u8>>>,
    nat64: Option<JoinHandle<()>>,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.nat64.iter().for_each(JoinHandle::abort);
    }
}

impl Connections {
    pub(crate) fn new(tls: TlsClient, events: mpsc::Sender<ConnectionEvent>) -> Self {
        Self { tls, events, servers: HashMap::new(), streams: HashMap::new(), nat64: None }
    }

    pub(crate) fn tls(&self) -> TlsClient {
        self.tls.clone()
    }

    pub(crate) fn open_server(&mut self, id: ServerId, url: String, scope: AddressScope) {
        let (frames, mut queue) = mpsc::channel(QUEUE);
        self.servers.insert(id, frames);
        let (tls, events) = (self.tls.clone(), self.events.clone());
        tracing::debug!(server = id.0, url, "connecting to a rendezvous server");
        tokio::spawn(async move {
            // The engine sends nothing before the connection is open, so that the queue can only end.
            let opened = tokio::select! {
                opened = partyline_net::connect_ws(&url, &tls, scope) => Some(opened),
                _ = queue.recv() => None,
            };
            let end = match opened {
                Some(Ok(socket)) => carry_frames(id, socket, queue, &events).await,
                Some(Err(error)) => Some(connect_error(&url, &error)),
                None => None,
            };
            let _ = events.send(ConnectionEvent::Server(id, ServerInput::Closed(end))).await;
        });
    }

    /// Queues a frame. A connection that does not keep up is closed, and reports its end.
    pub(crate) fn send_to_server(&mut self, id: ServerId, frame: Vec<u8>) {
        let Some(frames) = self.servers.get(&id) else {
            return tracing::debug!(server = id.0, reason = "not connected", "dropped a frame");
        };
        match frames.try_send(frame) {
            Ok(()) => metrics::increment(&RENDEZVOUS_FRAMES, &["sent"]),
            Err(TrySendError::Full(_)) => {
                tracing::warn!(
                    server = id.0,
                    reason = "it does not keep up",
                    "closed a rendezvous connection"
                );
                self.servers.remove(&id);
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!(server = id.0, reason = "connection ended", "dropped a frame");
                self.servers.remove(&id);
            }
        }
    }

    pub(crate) fn close_server(&mut self, id: ServerId) {
        self.servers.remove(&id);
    }

    pub(crate) fn open_stream(&mut self, id: StreamId, tls: bool, address: SocketAddr, host: String) {
        let (messages, queue) = mpsc::channel(QUEUE);
        self.streams.insert(id, messages);
        let (client, events) = (self.tls.clone(), self.events.clone());
        let transport = if tls { "tls" } else { "tcp" };
        tracing::debug!(stream = id.0, relay = host, %address, transport, "opening a stream to a relay");
        tokio::spawn(async move {
            let outcome = match run_stream(id, tls, (address, &host), &client, queue, &events).await {
                Ok(()) => "closed",
                Err(error) => {
                    tracing::debug!(stream = id.0, relay = host, %address, transport, reason = %error, "stream failed");
                    "failed"
                }
            };
            metrics::increment(&RELAY_STREAMS, &[transport, outcome]);
            let _ = events.send(ConnectionEvent::Stream(id, StreamInput::Closed)).await;
        });
    }

    /// Queues a message, or drops it if the stream does not keep up.
    pub(crate) fn send_on_stream(&mut self, id: StreamId, message: Vec<u8>) {
        let sent = self.streams.get(&id).is_some_and(|stream| stream.try_send(message).is_ok());
        if !sent {
            tracing::trace!(stream = id.0, reason = "closed or not keeping up", "dropped a message");
            metrics::increment(&RELAY_STREAM_DROPS, &[]);
        }
    }

    pub(crate) fn close_stream(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    /// Reports whether an address answers over TCP, at its own port or at that of the web.
    pub(crate) fn reach(&self, address: SocketAddr) {
        for port in [address.port(), HTTPS] {
            let events = self.events.clone();
            tokio::spawn(async move {
                let host = address.ip().to_string();
                let connect = partyline_net::connect_tcp(&host, port);
                let reached = matches!(timeout(REACH_TIMEOUT, connect).await, Ok(Ok(_)));
                tracing::debug!(%address, port, reached, "tried a silent server over TCP");
                if reached {
                    let _ = events.send(ConnectionEvent::Reached(address.ip())).await;
                }
            });
        }
    }

    /// Asks servers for their time, and reports the first answer.
    pub(crate) fn ask_time(&self, request: RequestId, servers: Vec<(String, AddressScope)>) {
        let (tls, events) = (self.tls.clone(), self.events.clone());
        tokio::spawn(async move {
            let mut asked = JoinSet::new();
            for (url, scope) in servers.into_iter().take(MAX_ASKED) {
                let tls = tls.clone();
                asked.spawn(async move {
                    timeout(TIME_TIMEOUT, server_time(&url, &tls, scope)).await.ok().flatten()
                });
            }
            let mut time = None;
            while let Some(answer) = asked.join_next().await {
                time = answer.ok().flatten();
                if time.is_some() {
                    break;
                }
            }
            let _ = events.send(ConnectionEvent::ServerTime(request, time)).await;
        });
    }

    /// Looks for the NAT64 of the present network, and reports its prefix now and whenever it changes, as long as the
    /// network has no IPv4. Ends the search in the network before.
    pub(crate) fn find_nat64(&mut self) {
        let search = tokio::spawn(report_nat64(self.events.clone()));
        if let Some(before) = self.nat64.replace(search) {
            before.abort();
        }
    }

    pub(crate) fn resolve(&self, host: String, port: u16) {
        let events = self.events.clone();
        tokio::spawn(async move {
            // Logged there; a failure counts as a host without addresses.
            let addresses = partyline_net::lookup_for_datagrams(&host, port).await.unwrap_or_default();
            metrics::increment(&RELAY_LOOKUPS, &[if addresses.is_empty() { "failed" } else { "found" }]);
            let _ = events.send(ConnectionEvent::Resolved { host, port, addresses }).await;
        });
    }
}

async fn report_nat64(events: mpsc::Sender<ConnectionEvent>) {
    let mut reported = None;
    loop {
        let lacks_ipv4 = partyline_net::lacks_ipv4();
        let prefix = if lacks_ipv4 { partyline_net::find_nat64().await } else { None };
        if reported != Some(prefix) {
            reported = Some(prefix);
            if events.send(ConnectionEvent::Nat64(prefix)).await.is_err() {
                return;
            }
        }
        if !lacks_ipv4 {
            return;
        }
        sleep(if prefix.is_some() { NAT64_INTERVAL } else { NAT64_RETRY }).await;
    }
}

/// Returns a server's time, which it sends first.
async fn server_time(url: &str, tls: &TlsClient, scope: AddressScope) -> Option<Timestamp> {
    let asked = partyline_net::connect_ws(url, tls, scope).await;
    let asked =
        asked.inspect_err(|error| tracing::debug!(url, reason = %error, "the server did not say its time"));
    let mut socket = asked.ok()?;
    let welcome = socket.next().await?.ok()?;
    socket.close().await;
    match ServerFrame::decode(&welcome) {
        Ok(ServerFrame::Welcome { time, .. }) => Some(time),
        _ => None,
    }
}

/// Carries frames in both directions until the socket or the queue ends. Returns why, unless the engine closed it.
async fn carry_frames(
    id: ServerId,
    mut socket: WebSocket,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Option<AppError> {
    tracing::debug!(server = id.0, "connected to a rendezvous server");
    events.send(ConnectionEvent::Server(id, ServerInput::Opened)).await.ok()?;
    loop {
        tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => match timeout(SEND_TIMEOUT, socket.send(frame)).await {
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

/// Connects, and carries bytes in both directions until either end closes.
async fn run_stream(
    id: StreamId,
    tls: bool,
    (address, host): (SocketAddr, &str),
    client: &TlsClient,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<ConnectionEvent>,
) -> Result<(), ConnectError> {
    let stream: Box<dyn partyline_net::Stream> = if tls {
        partyline_net::connect_tls_at(address, host, client).await?
    } else {
        Box::new(partyline_net::connect_tcp(&address.ip().to_string(), address.port()).await?)
    };
    metrics::increment(&RELAY_STREAMS, &[if tls { "tls" } else { "tcp" }, "opened"]);
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

/// Explains why a server could not be connected to. The errors of `partyline-net` end in what to do, after a
/// semicolon, where there is something to do.
pub(crate) fn connect_error(url: &str, error: &ConnectError) -> AppError {
    match error {
        ConnectError::OwnRouter { .. } => return partyline_node::server_without_hairpin(url),
        ConnectError::Private { address, .. } => {
            return partyline_node::server_at_private_address(url, *address);
        }
        _ => {}
    }
    let code = match error {
        ConnectError::Certificate { .. } | ConnectError::Tls { .. } | ConnectError::Roots { .. } => {
            ErrorCode::ServerCertificate
        }
        ConnectError::CaptivePortal { .. } => ErrorCode::CaptivePortal,
        _ => ErrorCode::ServerUnreachable,
    };
    let text = error.to_string();
    let (what, hint) = text.split_once("; ").unwrap_or((&text, "Partyline keeps trying"));
    let message = match error {
        ConnectError::CaptivePortal { .. } => sentence(what),
        _ => format!("The server {url} cannot be used: {what}."),
    };
    AppError::new(code, message, sentence(hint))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use partyline_net::Roots;
    use tokio::net::TcpListener;

    use super::*;

    fn connections() -> (Connections, mpsc::Receiver<ConnectionEvent>) {
        let (events, inbox) = mpsc::channel(QUEUE);
        (Connections::new(TlsClient::new(&Roots::default()).unwrap(), events), inbox)
    }

    #[tokio::test]
    async fn a_stream_carries_bytes_both_ways_and_reports_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut connections, mut inbox) = connections();
        let id = StreamId(1);
        connections.open_stream(id, false, address, "localhost".to_owned());
        let (mut relay, _) = listener.accept().await.unwrap();
        let opened = inbox.recv().await.unwrap();
        assert!(matches!(opened, ConnectionEvent::Stream(StreamId(1), StreamInput::Opened)), "{opened:?}");
        connections.send_on_stream(id, b"request".to_vec());
        let mut request = [0; 7];
        relay.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"request");
        relay.write_all(b"response").await.unwrap();
        let ConnectionEvent::Stream(_, StreamInput::Data(bytes)) = inbox.recv().await.unwrap() else {
            panic!("data")
        };
        assert_eq!(bytes, b"response");
        drop(relay);
        let closed = inbox.recv().await.unwrap();
        assert!(matches!(closed, ConnectionEvent::Stream(StreamId(1), StreamInput::Closed)), "{closed:?}");
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_is_reported_as_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (mut connections, mut inbox) = connections();
        connections.open_stream(StreamId(2), false, address, "localhost".to_owned());
        let closed = inbox.recv().await.unwrap();
        assert!(matches!(closed, ConnectionEvent::Stream(StreamId(2), StreamInput::Closed)), "{closed:?}");
    }

    #[tokio::test]
    async fn unconfirmed_server_on_this_computer_receives_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("ws://localhost:{}", address.port());
        let (mut connections, mut inbox) = connections();
        connections.open_server(ServerId(7), url.clone(), AddressScope::Public);
        let ConnectionEvent::Server(ServerId(7), ServerInput::Closed(Some(error))) =
            inbox.recv().await.unwrap()
        else {
            panic!("its end")
        };
        assert_eq!(error.code, ErrorCode::ServerPrivate);
        assert!(error.message.contains(&url), "{error:?}");
        assert!(error.hint.contains(&format!("partyline trust {url}")), "{error:?}");
        // The time of an invite's servers is asked for before its party is joined.
        connections.ask_time(1, vec![(url, AddressScope::Public)]);
        assert!(matches!(inbox.recv().await.unwrap(), ConnectionEvent::ServerTime(1, None)));
        let own = tokio::net::TcpStream::connect(address).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, own.local_addr().unwrap(), "no connection before this one");
    }

    #[tokio::test]
    async fn a_server_that_is_refused_is_reported_with_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (mut connections, mut inbox) = connections();
        connections.open_server(ServerId(7), format!("ws://{address}"), AddressScope::Any);
        let ConnectionEvent::Server(ServerId(7), ServerInput::Closed(Some(error))) =
            inbox.recv().await.unwrap()
        else {
            panic!("its end")
        };
        assert_eq!(error.code, ErrorCode::ServerUnreachable);
        assert_eq!(error.hint, "The server may not be running.");
    }

    #[tokio::test]
    async fn an_address_that_accepts_tcp_is_reported_as_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connections, mut inbox) = connections();
        let address = listener.local_addr().unwrap();
        connections.reach(address);
        let reached = inbox.recv().await.unwrap();
        assert!(matches!(reached, ConnectionEvent::Reached(ip) if ip == address.ip()), "{reached:?}");
    }

    #[tokio::test]
    async fn literal_addresses_resolve_to_themselves() {
        let (connections, mut inbox) = connections();
        connections.resolve("127.0.0.1".to_owned(), 3478);
        let ConnectionEvent::Resolved { host, port, addresses } = inbox.recv().await.unwrap() else {
            panic!("addresses")
        };
        assert_eq!((host.as_str(), port), ("127.0.0.1", 3478));
        assert_eq!(addresses, [SocketAddr::from(([127, 0, 0, 1], 3478))]);
    }
}
