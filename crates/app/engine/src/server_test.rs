//! Tests a server or a relay for a user who waits for the result, apart from the connections that carry parties.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{
    AddressScope, AppError, ErrorCode, PingSample, RelaySetting, Reply, Settings, TestTarget,
};
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
    time::{sleep_until, timeout},
};

use crate::{
    answers::{self, Answer},
    connections::connect_error,
};

/// How long a test may take altogether; lookups, connections and handshakes have shorter timeouts of their own.
const TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest TURN message that is read, in bytes.
const MAX_MESSAGE: usize = 2048;

/// Runs the test in a task of its own. It answers with the round trip, or with what keeps the server from being used
/// and what to do about it.
pub(crate) fn spawn(mut target: TestTarget, settings: &Settings, tls: TlsClient, answer: Answer) {
    if let TestTarget::Relay { relay } = &mut target {
        settings.fill_in_password(relay);
    }
    tokio::spawn(async move { answers::send(answer, run(target, tls).await) });
}

async fn run(target: TestTarget, tls: TlsClient) -> Result<Reply, AppError> {
    let test = async {
        match &target {
            TestTarget::Server { url } => test_server(url, &tls).await,
            TestTarget::Relay { relay } => test_relay(relay, &tls).await,
        }
    };
    let name = name(&target);
    let result = timeout(TEST_TIMEOUT, test).await.unwrap_or_else(|_| Err(silent(name)));
    match &result {
        Ok(rtt) => tracing::debug!(server = name, rtt_ms = rtt.as_millis(), "the tested server works"),
        Err(error) => tracing::debug!(server = name, reason = %error, "the tested server cannot be used"),
    }
    Ok(Reply::Pong(PingSample { rtt_ms: result?.as_secs_f32() * 1000.0 }))
}

fn name(target: &TestTarget) -> &str {
    match target {
        TestTarget::Server { url } => url,
        TestTarget::Relay { relay } => &relay.url,
    }
}

async fn test_server(url: &str, tls: &TlsClient) -> Result<Duration, AppError> {
    // The user named it.
    let socket = partyline_net::connect_ws(url, tls, AddressScope::Any).await;
    let mut socket = socket.map_err(|error| connect_error(url, &error))?;
    let first = receive_frame(&mut socket, url).await?;
    if !matches!(first, ServerFrame::Welcome { version: VERSION, .. }) {
        return Err(AppError::new(
            ErrorCode::VersionMismatch,
            format!("The server {url} is another version of Partyline's."),
            "Update Partyline, or ask the server's operator to.",
        ));
    }
    let sent = Instant::now();
    let request = ClientFrame::Time { echo: 1 }.encode().map_err(|error| lost(url, &error))?;
    socket.send(request).await.map_err(|error| lost(url, &error))?;
    while !matches!(receive_frame(&mut socket, url).await?, ServerFrame::TimeReply { .. }) {}
    let rtt = sent.elapsed();
    socket.close().await;
    Ok(rtt)
}

async fn receive_frame(socket: &mut WebSocket, url: &str) -> Result<ServerFrame, AppError> {
    let frame = socket.next().await.ok_or_else(|| lost(url, &"it hung up"))?;
    let frame = frame.map_err(|error| lost(url, &error))?;
    ServerFrame::decode(&frame).map_err(|_| lost(url, &"it is no Partyline server"))
}

async fn test_relay(relay: &RelaySetting, tls: &TlsClient) -> Result<Duration, AppError> {
    let url = TurnUrl::parse(&relay.url).ok_or_else(|| no_address(&relay.url))?;
    let found = partyline_net::lookup(&url.host, url.port).await.unwrap_or_default();
    let address = found.first().copied().ok_or_else(|| unknown(&url.host))?;
    let server = RelayServer {
        name: url.host.clone(),
        transport: url.transport,
        address,
        host: url.host.clone(),
        username: relay.username.clone(),
        password: relay.password.clone(),
    };
    let mut transport = Transport::open(&url, address, tls).await?;
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    let mut test = AllocationTest::new(Instant::now(), server, seed);
    let outcome = loop {
        while let Some(bytes) = test.poll_transmit() {
            transport.send(&bytes).await.map_err(|_| silent(&relay.url))?;
        }
        if let Some(outcome) = test.outcome() {
            break outcome;
        }
        let deadline = test.poll_timeout().unwrap_or_else(|| Instant::now() + TEST_TIMEOUT);
        tokio::select! {
            message = transport.receive() => {
                let message = message.map_err(|_| silent(&relay.url))?;
                test.handle_message(Instant::now(), &message);
            }
            () = sleep_until(deadline.into()) => test.handle_timeout(Instant::now()),
        }
    };
    match outcome {
        AllocationOutcome::Allocated(rtt) => Ok(rtt),
        AllocationOutcome::NoResponse => Err(silent(&relay.url)),
        AllocationOutcome::Refused(code) => Err(refused(&relay.url, code)),
    }
}

/// A UDP socket or a stream to a relay.
enum Transport {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Deframer),
}

impl Transport {
    async fn open(url: &TurnUrl, address: SocketAddr, tls: &TlsClient) -> Result<Self, AppError> {
        let failed = |error| connect_error(&url.host, &error);
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

    /// Receives the next message. Cancel-safe: nothing is lost if the future is dropped.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; MAX_MESSAGE];
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

#[cfg(test)]
mod tests {
    use partyline_net::Roots;

    use super::*;

    async fn relay(url: String) -> AppError {
        let relay = RelaySetting { url, username: "user".into(), password: "secret".into() };
        run(TestTarget::Relay { relay }, TlsClient::new(&Roots::default()).unwrap()).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_invalid_input() {
        let error = relay("http://relay.example".into()).await;
        assert_eq!(error.code, ErrorCode::InvalidInput);
    }

    #[tokio::test]
    async fn a_relay_that_refuses_the_credentials_is_told_from_a_dead_one() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let url = format!("turn:{}", server.local_addr().unwrap());
        let refuse = async {
            let mut request = [0; MAX_MESSAGE];
            let (_, from) = server.recv_from(&mut request).await.unwrap();
            // An Allocate error response (RFC 8489 section 6.3.4) with ERROR-CODE 508 Insufficient Capacity.
            let mut response = vec![0x01, 0x13, 0, 8];
            response.extend_from_slice(&request[4..20]);
            response.extend_from_slice(&[0, 9, 0, 4, 0, 0, 5, 8]);
            server.send_to(&response, from).await.unwrap();
        };
        let (error, ()) = tokio::join!(relay(url), refuse);
        assert_eq!(error.code, ErrorCode::ServerUnreachable);
        assert!(error.message.ends_with("has no room at the moment (508)."), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_running_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let tls = TlsClient::new(&Roots::default()).unwrap();
        let error = run(TestTarget::Server { url }, tls).await.unwrap_err();
        assert_eq!(
            (error.code, error.hint.as_str()),
            (ErrorCode::ServerUnreachable, "The server may not be running.")
        );
    }
}
