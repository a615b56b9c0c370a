//! One OTLP/HTTP request: a POST with a protobuf body.

use std::{sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::Verifier;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::settings::{OtlpError, OtlpSettings};

/// Path below the endpoint that takes spans.
pub(super) const TRACES_PATH: &str = "/v1/traces";
/// Path below the endpoint that takes metrics.
pub(super) const METRICS_PATH: &str = "/v1/metrics";

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the collector answered {0}")]
    Status(StatusCode),
}

impl ExportError {
    /// Returns true if the same request may succeed later. What the collector called malformed will not.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Connect(_) | Self::Http(_) | Self::Timeout(_) => true,
        }
    }
}

/// Sends requests to the collector, each on a connection of its own, since minutes may lie between them.
pub(super) struct Client {
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
    tls: Option<TlsConnector>,
}

impl Client {
    pub(super) fn new(settings: &OtlpSettings) -> Result<Self, OtlpError> {
        let is_secure = settings.endpoint.scheme_str() == Some("https");
        Ok(Self {
            endpoint: settings.endpoint.clone(),
            headers: settings.headers.clone(),
            timeout: settings.timeout,
            tls: is_secure.then(tls_connector).transpose()?,
        })
    }

    /// Posts a body and waits until the collector has accepted it.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<(), ExportError> {
        let answer = timeout(self.timeout, self.connect_and_send(path, body)).await;
        match answer.map_err(|_| ExportError::Timeout(self.timeout))?? {
            status if status.is_success() => Ok(()),
            status => Err(ExportError::Status(status)),
        }
    }

    async fn connect_and_send(&self, path: &str, body: Vec<u8>) -> Result<StatusCode, ExportError> {
        let host = self.endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.endpoint.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(ExportError::Connect)?;
        let Some(tls) = &self.tls else { return self.send(stream, path, body).await };
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other);
        let name = name.map_err(ExportError::Connect)?;
        let stream = tls.connect(name, stream).await.map_err(ExportError::Connect)?;
        self.send(stream, path, body).await
    }

    async fn send<S>(&self, stream: S, path: &str, body: Vec<u8>) -> Result<StatusCode, ExportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; what goes wrong shows in the answer.
        tokio::spawn(connection);
        Ok(sender.send_request(self.request(path, body)).await?.status())
    }

    fn request(&self, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = hyper::Method::POST;
        let base = self.endpoint.path().trim_end_matches('/');
        // Both parts are valid paths, so their concatenation is one.
        *request.uri_mut() = format!("{base}{path}").parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("partyline/", env!("CARGO_PKG_VERSION"))));
        if let Some(host) = self.endpoint.authority().and_then(|authority| authority.as_str().parse().ok()) {
            headers.insert(HOST, host);
        }
        request
    }
}

fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
