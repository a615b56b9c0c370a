//! WebSocket clients for rendezvous servers (RFC 6455): binary messages over `wss://`, or `ws://` where the caller
//! allows it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use partyline_model::AddressScope;
use partyline_wire::rendezvous::{MAX_FRAME, PATH};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        http::{Uri, header::LOCATION},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    ConnectError, Stream, TlsClient,
    happy_eyeballs::connect_within,
    own_router,
    portal::{self, Head, Probes},
    tls::connect_tls_within,
};

/// How long the upgrade from HTTP may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may be silent before it counts as gone; servers ping every minute.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(150);

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of the read buffer in bytes; a frame is smaller.
const READ_BUFFER: usize = 8 * 1024;

/// Why an open connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// The server closed it; codes of ours are in [`partyline_wire::rendezvous::close`].
    #[error("the server closed the connection: {reason} ({code})")]
    Closed {
        /// A status code of RFC 6455 or of ours; 1005 if the server sent none.
        code: u16,
        /// The server's explanation.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing, not even a ping, arrived for two and a half minutes.
    #[error("the server has been silent for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
}

/// An open WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<Box<dyn Stream>>,
    last_received: Instant,
    ended: bool,
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Opens a WebSocket to a server at the addresses that the scope allows; others get no packet. A URL without a path means
/// the rendezvous at `/v1`. Redirections are not followed.
///
/// # Errors
/// The URL is malformed, the server has no address that is allowed, cannot be reached or does not prove its name, or it
/// does not speak WebSocket.
pub async fn connect_ws(
    url: &str,
    client: &TlsClient,
    scope: AddressScope,
) -> Result<WebSocket, ConnectError> {
    let target = Target::parse(url).ok_or_else(|| ConnectError::Url(url.to_owned()))?;
    let (host, port) = (target.host.clone(), target.port);
    match open(target, client, scope).await {
        Ok(socket) => Ok(socket),
        Err(error) => {
            let error = Box::pin(portal::explain(error, (&host, port, scope), Probes::INTERNET)).await;
            Err(Box::pin(own_router::explain(error, &host, port)).await)
        }
    }
}

async fn open(target: Target, client: &TlsClient, scope: AddressScope) -> Result<WebSocket, ConnectError> {
    let stream = if target.secure {
        connect_tls_within(&target.host, target.port, client, scope).await?
    } else {
        Box::new(connect_within(&target.host, target.port, scope).await?)
    };
    let upgrade = Box::pin(client_async_with_config(target.url.as_str(), stream, Some(config())));
    match timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok((stream, _))) => {
            tracing::debug!(url = target.url, "opened a WebSocket");
            Ok(WebSocket { stream, last_received: Instant::now(), ended: false })
        }
        Ok(Err(cause)) => {
            tracing::debug!(url = target.url, reason = %cause, "the server refused the WebSocket");
            Err(target.error(cause))
        }
        Err(_) => {
            tracing::debug!(
                url = target.url,
                after_ms = UPGRADE_TIMEOUT.as_millis(),
                reason = "timeout",
                "the upgrade to WebSocket failed"
            );
            Err(ConnectError::Timeout { host: target.host, port: target.port })
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

impl WebSocket {
    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection is lost or closed.
    pub async fn send(&mut self, message: Vec<u8>) -> Result<(), WebSocketError> {
        tracing::trace!(bytes = message.len(), "sending a WebSocket message");
        self.stream.send(Message::binary(message)).await.map_err(|cause| {
            tracing::debug!(reason = %cause, "a WebSocket message was not sent");
            lost(&cause)
        })
    }

    /// Receives the next binary message; one error when the connection has ended, and then `None`. Cancel-safe: nothing
    /// is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, WebSocketError>> {
        if self.ended {
            return None;
        }
        let message = self.next_message().await;
        if let Err(error) = &message {
            tracing::debug!(reason = %error, "a WebSocket ended");
            self.ended = true;
        }
        Some(message)
    }

    async fn next_message(&mut self) -> Result<Vec<u8>, WebSocketError> {
        loop {
            let silent = self.last_received + SILENCE_TIMEOUT;
            let message = timeout_at(silent, self.stream.next()).await.map_err(|_| WebSocketError::Silent)?;
            self.last_received = Instant::now();
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    tracing::trace!(bytes = bytes.len(), "WebSocket message received");
                    return Ok(bytes.into());
                }
                Some(Ok(Message::Close(frame))) => return Err(self.closed(frame).await),
                Some(Ok(other)) => {
                    tracing::trace!(bytes = other.len(), "WebSocket ping, pong or text ignored")
                }
                Some(Err(cause)) => return Err(lost(&cause)),
                None => return Err(WebSocketError::Lost("the server hung up".to_owned())),
            }
        }
    }

    /// Completes the closing handshake that the server began.
    async fn closed(&mut self, frame: Option<CloseFrame>) -> WebSocketError {
        let _ = timeout(CLOSE_TIMEOUT, self.stream.flush()).await;
        let code = frame.as_ref().map_or(1005, |frame| frame.code.into());
        WebSocketError::Closed {
            code,
            reason: frame.map(|frame| frame.reason.to_string()).unwrap_or_default(),
        }
    }

    /// Closes the connection; takes at most two seconds.
    pub async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let closing = async {
            let _ = self.stream.close(Some(frame)).await;
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        let closed = timeout(CLOSE_TIMEOUT, closing).await.is_ok();
        tracing::debug!(closed, reason = "no longer needed", "WebSocket closed");
    }
}

fn lost(cause: &WsError) -> WebSocketError {
    WebSocketError::Lost(cause.to_string())
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    secure: bool,
    host: String,
    port: u16,
    url: String,
}

impl Target {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.trim().parse().ok()?;
        let (scheme, secure, port) = match uri.scheme_str()? {
            "wss" | "https" => ("wss", true, 443),
            "ws" | "http" => ("ws", false, 80),
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = if uri.path() == "/" { PATH } else { uri.path() };
        (!host.is_empty()).then(|| Self {
            secure,
            host,
            port: authority.port_u16().unwrap_or(port),
            url: format!("{scheme}://{authority}{path}"),
        })
    }

    fn error(self, cause: WsError) -> ConnectError {
        match cause {
            WsError::Http(response) => {
                let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let head = Head { status: response.status().as_u16(), location: location.map(str::to_owned) };
                // Over TLS the server has proven its name, so that what it says is its own.
                if !self.secure && head.is_portal(&self.host) {
                    return head.error(&self.host);
                }
                ConnectError::Http { host: self.host, status: head.status }
            }
            WsError::Io(cause) => ConnectError::from_io(&self.host, self.port, cause),
            other => ConnectError::Protocol { host: self.host, cause: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
