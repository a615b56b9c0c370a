//! TLS clients: which certificates are trusted, and handshakes with errors that a person can act on.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use partyline_model::AddressScope;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    ConnectError,
    happy_eyeballs::{connect_any, connect_within},
    nat64,
};

/// How long the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A bidirectional byte stream, plain or within TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Issuers that are trusted besides those of the operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// A PEM file of issuers.
    pub extra_ca: Option<PathBuf>,
}

/// The TLS configuration that connections share. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

impl TlsClient {
    /// Reads the trusted certificates. Where the system has none, as in minimal containers, Mozilla's list is used.
    ///
    /// # Errors
    /// The extra certificates cannot be read.
    pub fn new(roots: &Roots) -> Result<Self, ConnectError> {
        let extra = extra_roots(roots)?;
        let provider = Arc::new(ring::default_provider());
        let mut config = match Verifier::new_with_extra_roots(extra, Arc::clone(&provider)) {
            Ok(verifier) => builder(provider)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth(),
            Err(error) => {
                tracing::debug!(%error, "the system has no trusted certificates; using Mozilla's");
                let bundled = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                builder(provider)?.with_root_certificates(bundled).with_no_client_auth()
            }
        };
        config.alpn_protocols.clear();
        Ok(Self { config: Arc::new(config) })
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ConnectError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| ConnectError::Tls { host: "this computer".to_owned(), cause: cause.to_string() })
}

fn extra_roots(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let Some(path) = &roots.extra_ca else { return Ok(Vec::new()) };
    let error = |cause: String| ConnectError::Roots { path: path.display().to_string(), cause };
    let parsed = CertificateDer::pem_file_iter(path).map_err(|cause| error(cause.to_string()))?;
    let certificates: Vec<_> = parsed.collect::<Result<_, _>>().map_err(|cause| error(cause.to_string()))?;
    let mut usable = RootCertStore::empty();
    let (added, _) = usable.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 || added < certificates.len() {
        return Err(error("it holds something other than certificates".to_owned()));
    }
    tracing::debug!(count = added, path = %path.display(), "trusting further issuers");
    Ok(certificates)
}

/// Connects to a host by name or address and completes the TLS handshake.
///
/// # Errors
/// As for [`connect_tcp`](crate::connect_tcp), and a server that does not prove to be the host.
pub async fn connect_tls(host: &str, port: u16, client: &TlsClient) -> Result<Box<dyn Stream>, ConnectError> {
    connect_tls_within(host, port, client, AddressScope::Any).await
}

/// Connects as [`connect_tls`] does, at the addresses that the scope allows.
pub(crate) async fn connect_tls_within(
    host: &str,
    port: u16,
    client: &TlsClient,
    scope: AddressScope,
) -> Result<Box<dyn Stream>, ConnectError> {
    let stream = connect_within(host, port, scope).await?;
    handshake(host, port, stream, client).await
}

/// Connects to one address of a host and completes the TLS handshake with it.
///
/// # Errors
/// As for [`connect_tls`].
pub async fn connect_tls_at(
    address: SocketAddr,
    host: &str,
    client: &TlsClient,
) -> Result<Box<dyn Stream>, ConnectError> {
    let addresses = nat64::add_synthesized(vec![address]).await;
    let stream = connect_any(host, address.port(), addresses).await?;
    handshake(host, address.port(), stream, client).await
}

async fn handshake(
    host: &str,
    port: u16,
    stream: TcpStream,
    client: &TlsClient,
) -> Result<Box<dyn Stream>, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Url(host.to_owned()))?;
    let handshake = TlsConnector::from(Arc::clone(&client.config)).connect(name, stream);
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let version = stream.get_ref().1.protocol_version();
            tracing::debug!(host, port, ?version, "TLS handshake completed");
            Ok(Box::new(stream))
        }
        Ok(Err(cause)) => {
            tracing::debug!(host, port, reason = %cause, "the TLS handshake failed");
            Err(ConnectError::from_handshake(host, port, cause))
        }
        Err(_) => {
            tracing::debug!(
                host,
                port,
                after_ms = HANDSHAKE_TIMEOUT.as_millis(),
                reason = "timeout",
                "the TLS handshake failed"
            );
            Err(ConnectError::Timeout { host: host.to_owned(), port })
        }
    }
}
