//! What is served over HTTP: the rendezvous WebSocket, the page behind invite links, health and metrics.

mod join;
mod page;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use partyline_rendezvous::AdmissionError;
use partyline_wire::rendezvous::PATH;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tracing::{Instrument as _, Span};

use crate::{
    hub::ConnectionHandle,
    limiter::Permit,
    listener::Accepted,
    metrics,
    peeked::Peeked,
    shared::Shared,
    websocket::{self, Session},
};
pub(crate) use page::Page;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all requests on one connection may take together, up to the upgrade.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum length of a request's head in bytes; the least that hyper allows.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Seconds after which a client that found the server full may try again.
const RETRY_AFTER_SECONDS: &str = "30";

/// The requests on one connection.
struct Exchange {
    shared: Arc<Shared>,
    peer: IpAddr,
    /// Taken by the session once the connection is a WebSocket.
    permit: Mutex<Option<Permit>>,
    upgrade: Mutex<Option<(OnUpgrade, ConnectionHandle)>>,
}

/// Serves HTTP until the connection ends; if it becomes a WebSocket, the session is a task of its own.
pub(crate) async fn serve<S>(shared: Arc<Shared>, stream: Peeked<S>, accepted: Accepted)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Accepted { peer, permit, .. } = accepted;
    let permit = Mutex::new(Some(permit));
    let exchange = Arc::new(Exchange { shared, peer: peer.ip(), permit, upgrade: Mutex::default() });
    let service = service_fn(|request| {
        let response = exchange.respond(request);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http().serve_connection(TokioIo::new(stream), service).with_upgrades();
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return tracing::debug!(reason = %error, "HTTP connection failed"),
        Err(_) => return tracing::debug!(reason = "took too long", "HTTP connection closed"),
    }
    let Some((upgrade, handle)) = take(&exchange.upgrade) else { return };
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Peeked<S>>>() else { return };
    let session = Session::new(parts.io.into_inner().into_inner(), handle, &parts.read_buf);
    tokio::spawn(session.instrument(Span::current()));
}

/// Serves metrics and health only, on an address for the operator.
pub(crate) async fn serve_admin(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match request.uri().path() {
            "/metrics" => metrics_page(&shared),
            "/healthz" => health(&shared),
            _ => Page::text(StatusCode::NOT_FOUND, "Only /metrics and /healthz are served here.\n"),
        };
        async { Ok::<_, Infallible>(response) }
    });
    let _ = timeout(CONNECTION_TIMEOUT, http().serve_connection(TokioIo::new(stream), service)).await;
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(false);
    builder
}

impl Exchange {
    fn respond(&self, mut request: Request<Incoming>) -> Response<Page> {
        let response = self.route(&mut request);
        // The path is the client's and may be anything, so it is logged with its control characters escaped. Mangled links
        // have an invite in it, which is not for logs.
        let (method, path) = (request.method(), request.uri().path());
        let path = if join::is_path(path) { join::PATH } else { path };
        tracing::debug!(%method, ?path, status = response.status().as_u16(), "HTTP request");
        response
    }

    fn route(&self, request: &mut Request<Incoming>) -> Response<Page> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = Page::text(StatusCode::METHOD_NOT_ALLOWED, "Only GET is supported.\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            PATH => self.upgrade(request),
            path if join::is_path(path) => join::page(),
            "/healthz" => health(&self.shared),
            "/metrics" if self.may_see_metrics(request.headers()) => metrics_page(&self.shared),
            "/" => Page::text(StatusCode::OK, "This is a Partyline server. Open it with an invite link.\n"),
            _ => Page::text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        }
    }

    /// Metrics are for clients on this computer, but not for those whose requests a proxy on it forwards.
    fn may_see_metrics(&self, headers: &HeaderMap) -> bool {
        let is_forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
        !self.shared.has_admin && self.peer.is_loopback() && !is_forwarded
    }

    fn upgrade(&self, request: &mut Request<Incoming>) -> Response<Page> {
        if !websocket::is_upgrade(request) {
            return Page::text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket; use the Partyline app.\n");
        }
        let response = match websocket::accept(request) {
            Ok(response) => response,
            Err(refusal) => return *refusal,
        };
        let Some(permit) = take(&self.permit) else {
            return Page::text(StatusCode::BAD_REQUEST, "One WebSocket per connection.\n");
        };
        match self.shared.hub.connect(permit) {
            Ok(handle) => {
                let upgrade = (hyper::upgrade::on(request), handle);
                *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
                response
            }
            Err(error) => {
                tracing::debug!(reason = %error, "rendezvous session refused");
                refuse_session(error)
            }
        }
    }
}

fn refuse_session(error: AdmissionError) -> Response<Page> {
    let mut response = match error {
        AdmissionError::ServerFull => {
            Page::text(StatusCode::SERVICE_UNAVAILABLE, "The server is full or stopping.\n")
        }
        AdmissionError::AddressFull => {
            Page::text(StatusCode::TOO_MANY_REQUESTS, "Too many connections from this address.\n")
        }
    };
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

fn health(shared: &Shared) -> Response<Page> {
    if shared.hub.is_stopping() {
        Page::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        Page::text(StatusCode::OK, "ok\n")
    }
}

fn metrics_page(shared: &Shared) -> Response<Page> {
    let mut response = Page::text(StatusCode::OK, metrics::render(shared));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
