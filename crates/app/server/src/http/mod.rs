//! What is served over HTTP: the rendezvous WebSocket, the page behind invite links, health and figures.

mod join;
mod page;

use std::{
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

use crate::{
    connection::Ends,
    gate::Ticket,
    hub::Seat,
    metrics,
    server::Shared,
    stream::Peeked,
    websocket::{self, Session},
};
pub(crate) use page::Page;

/// For the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// For everything that is asked on one connection, up to the upgrade.
const WHOLE: Duration = Duration::from_secs(60);

/// Least that hyper takes.
const BUFFER: usize = 8 * 1024;

/// What one connection asks.
struct Exchange {
    shared: Arc<Shared>,
    peer: IpAddr,
    /// Gone once the connection is a WebSocket.
    ticket: Mutex<Option<Ticket>>,
    upgrade: Mutex<Option<(OnUpgrade, Seat)>>,
}

/// Serves HTTP until the connection ends; if it becomes a WebSocket, that is a task of its own.
pub(crate) async fn serve<S>(shared: Arc<Shared>, stream: Peeked<S>, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ends { peer, ticket, .. } = ends;
    let ticket = Mutex::new(Some(ticket));
    let exchange = Arc::new(Exchange { shared, peer: peer.ip(), ticket, upgrade: Mutex::default() });
    let service = service_fn(|request| {
        let response = exchange.answer(request);
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    let connection = http().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if !matches!(timeout(WHOLE, connection).await, Ok(Ok(()))) {
        return;
    }
    let Some((upgrade, seat)) = take(&exchange.upgrade) else { return };
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Peeked<S>>>() else { return };
    tokio::spawn(Session::new(parts.io.into_inner().into_inner(), seat, &parts.read_buf));
}

/// Serves figures and health alone, on an address for the operator.
pub(crate) async fn serve_admin(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match request.uri().path() {
            "/metrics" => figures(&shared),
            "/healthz" => health(&shared),
            _ => Page::text(StatusCode::NOT_FOUND, "Here are /metrics and /healthz.\n"),
        };
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    let _ = timeout(WHOLE, http().serve_connection(TokioIo::new(stream), service)).await;
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER).half_close(false);
    builder
}

impl Exchange {
    fn answer(&self, mut request: Request<Incoming>) -> Response<Page> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = Page::text(StatusCode::METHOD_NOT_ALLOWED, "Only GET is understood.\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            PATH => self.websocket(&mut request),
            "/join" => join::page(),
            "/healthz" => health(&self.shared),
            "/metrics" if self.may_see_figures(request.headers()) => figures(&self.shared),
            "/" => Page::text(StatusCode::OK, "This is a Partyline server. Open it with an invite link.\n"),
            _ => Page::text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        }
    }

    /// Only the computer itself, and nobody for whom a proxy on it speaks.
    fn may_see_figures(&self, headers: &HeaderMap) -> bool {
        let forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
        !self.shared.has_admin && self.peer.is_loopback() && !forwarded
    }

    fn websocket(&self, request: &mut Request<Incoming>) -> Response<Page> {
        if !websocket::is_upgrade(request) {
            return Page::text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket; use the Partyline app.\n");
        }
        let response = match websocket::accept(request) {
            Ok(response) => response,
            Err(refusal) => return *refusal,
        };
        let Some(ticket) = take(&self.ticket) else {
            return Page::text(StatusCode::BAD_REQUEST, "One WebSocket per connection.\n");
        };
        match self.shared.hub.connect(ticket) {
            Ok(seat) => {
                let upgrade = (hyper::upgrade::on(request), seat);
                *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
                response
            }
            Err(full) => turned_away(full),
        }
    }
}

fn turned_away(full: AdmissionError) -> Response<Page> {
    let mut response = match full {
        AdmissionError::ServerFull => Page::text(StatusCode::SERVICE_UNAVAILABLE, "The server is full or stopping.\n"),
        AdmissionError::AddressFull => {
            Page::text(StatusCode::TOO_MANY_REQUESTS, "Too many connections from this address.\n")
        }
    };
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}

fn health(shared: &Shared) -> Response<Page> {
    if shared.hub.is_stopping() {
        Page::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        Page::text(StatusCode::OK, "ok\n")
    }
}

fn figures(shared: &Shared) -> Response<Page> {
    let mut response = Page::text(StatusCode::OK, metrics::render(shared));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
