//! Tries a server or a relay for somebody who wants to know now, apart from the connections that carry parties.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{AppError, ErrorCode, PingSample, RelaySetting, Reply, Settings, TestTarget};
use partyline_net::{Stream, TlsClient, WebSocket};
use partyline_node::{AllocationOutcome, AllocationTest, RelayServer, RelayTransport, TurnUrl};
use partyline_wire::{
    datagram::Deframer,
    rendezvous::{ClientFrame, ServerFrame, VERSION},
};
use rand::RngCore as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    sync::oneshot,
    time::{sleep_until, timeout},
};

use crate::connections::server_error;

/// How long a trial may take in all; names, addresses and handshakes have limits of their own within it.
const PATIENCE: Duration = Duration::from_secs(15);
const LARGEST: usize = 2048;

/// Tries it, and answers with the round trip, or with what keeps it from being used and what to do.
pub(crate) fn answer(
    mut what: TestTarget,
    settings: &Settings,
    tls: TlsClient,
    answer: oneshot::Sender<Result<Reply, AppError>>,
) {
    if let TestTarget::Relay { relay } = &mut what {
        settings.fill_in_password(relay);
    }
    // Whoever asked may have given up.
    tokio::spawn(async move { answer.send(run(what, tls).await) });
}

async fn run(what: TestTarget, tls: TlsClient) -> Result<Reply, AppError> {
    let trial = async {
        match &what {
            TestTarget::Server { url } => server(url, &tls).await,
            TestTarget::Relay { relay } => self::relay(relay, &tls).await,
        }
    };
    let rtt = timeout(PATIENCE, trial).await.unwrap_or_else(|_| Err(silent(name(&what))))?;
    Ok(Reply::Pong(PingSample { rtt_ms: rtt.as_secs_f32() * 1000.0 }))
}

fn name(what: &TestTarget) -> &str {
    match what {
        TestTarget::Server { url } => url,
        TestTarget::Relay { relay } => &relay.url,
    }
}

async fn server(url: &str, tls: &TlsClient) -> Result<Duration, AppError> {
    let mut socket = partyline_net::connect_ws(url, tls).await.map_err(|error| server_error(url, &error))?;
    let said = hear(&mut socket, url).await?;
    if !matches!(said, ServerFrame::Welcome { version: VERSION, .. }) {
        return Err(AppError::new(
            ErrorCode::VersionMismatch,
            format!("The server {url} is another version of Partyline's."),
            "Update Partyline, or ask the server's operator to.",
        ));
    }
    let asked = Instant::now();
    let question = ClientFrame::Time { echo: 1 }.encode().map_err(|error| lost(url, &error))?;
    socket.send(question).await.map_err(|error| lost(url, &error))?;
    while !matches!(hear(&mut socket, url).await?, ServerFrame::TimeReply { .. }) {}
    let rtt = asked.elapsed();
    socket.close().await;
    Ok(rtt)
}

async fn hear(socket: &mut WebSocket, url: &str) -> Result<ServerFrame, AppError> {
    let frame = socket.next().await.ok_or_else(|| lost(url, &"it hung up"))?;
    let frame = frame.map_err(|error| lost(url, &error))?;
    ServerFrame::decode(&frame).map_err(|_| lost(url, &"it is no Partyline server"))
}

async fn relay(relay: &RelaySetting, tls: &TlsClient) -> Result<Duration, AppError> {
    let url = TurnUrl::parse(&relay.url).ok_or_else(|| no_address(&relay.url))?;
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let address = found.ok().and_then(|mut found| found.next()).ok_or_else(|| unknown(&url.host))?;
    let server = RelayServer {
        name: url.host.clone(),
        transport: url.transport,
        address,
        host: url.host.clone(),
        username: relay.username.clone(),
        password: relay.password.clone(),
    };
    let mut way = Way::open(&url, address, tls).await?;
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    let mut trial = AllocationTest::new(Instant::now(), server, seed);
    let end = loop {
        while let Some(bytes) = trial.poll_transmit() {
            way.send(&bytes).await.map_err(|_| silent(&relay.url))?;
        }
        if let Some(end) = trial.outcome() {
            break end;
        }
        let deadline = trial.poll_timeout().unwrap_or_else(|| Instant::now() + PATIENCE);
        tokio::select! {
            message = way.receive() => {
                let message = message.map_err(|_| silent(&relay.url))?;
                trial.handle_message(Instant::now(), &message);
            }
            () = sleep_until(deadline.into()) => trial.handle_timeout(Instant::now()),
        }
    };
    match end {
        AllocationOutcome::Allocated(rtt) => Ok(rtt),
        AllocationOutcome::NoResponse => Err(silent(&relay.url)),
        AllocationOutcome::Refused(code) => Err(refused(&relay.url, code)),
    }
}

/// A socket or stream to a relay.
enum Way {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Deframer),
}

impl Way {
    async fn open(url: &TurnUrl, address: SocketAddr, tls: &TlsClient) -> Result<Self, AppError> {
        let failed = |error| server_error(&url.host, &error);
        Ok(match url.transport {
            RelayTransport::Udp => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await.map_err(|_| silent(&url.host))?;
                socket.connect(address).await.map_err(|_| silent(&url.host))?;
                Self::Udp(socket)
            }
            RelayTransport::Tcp => {
                let stream = partyline_net::connect_tcp(&url.host, url.port).await.map_err(failed)?;
                Self::Stream(Box::new(stream), Deframer::default())
            }
            RelayTransport::Tls => {
                let stream = partyline_net::connect_tls(&url.host, url.port, tls).await.map_err(failed)?;
                Self::Stream(stream, Deframer::default())
            }
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).await.map(drop),
            Self::Stream(stream, _) => stream.write_all(bytes).await,
        }
    }

    /// The next message; may be dropped and called again without loss.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LARGEST];
        match self {
            Self::Udp(socket) => {
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Ok(buffer)
            }
            Self::Stream(stream, frames) => loop {
                let message = frames.next_message().map_err(io::Error::other)?;
                if let Some(message) = message {
                    return Ok(message.to_vec());
                }
                match stream.read(&mut buffer).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => frames.push(&buffer[..length]),
                }
            },
        }
    }
}

fn lost(url: &str, why: &dyn std::fmt::Display) -> AppError {
    AppError::new(
        ErrorCode::ServerUnreachable,
        format!("The server {url} answered, but cannot be used: {why}."),
        "Check the address; it may be another kind of server.",
    )
}

fn no_address(url: &str) -> AppError {
    AppError::new(
        ErrorCode::InvalidInput,
        format!("{url} is not the address of a relay."),
        "Write turn:host:port, turn:host:port?transport=tcp or turns:host:port.",
    )
}

fn unknown(host: &str) -> AppError {
    AppError::new(
        ErrorCode::ServerUnreachable,
        format!("No address is known for {host}."),
        "Check the name and this computer's DNS.",
    )
}

fn silent(url: &str) -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        format!("{url} did not answer."),
        "Check the address and the port; a firewall may be in the way, or it may not be running.",
    )
}

fn refused(url: &str, code: u16) -> AppError {
    let (what, hint) = match code {
        401 | 441 => ("does not accept the user name and password", "Check both, or ask its operator."),
        486 | 508 => ("has no room at the moment", "Try again later, or use another one."),
        _ => ("refused to relay", "Ask its operator whether you may use it."),
    };
    AppError::new(ErrorCode::ServerUnreachable, format!("{url} {what} ({code})."), hint)
}
