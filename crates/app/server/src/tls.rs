//! The server's certificate: read from files, checked before use, and read again on SIGHUP.

mod validity;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::{StartError, clock::now};
use validity::Validity;

/// Days before its expiry from which a certificate is warned about.
const RENEWAL_DAYS: u64 = 14;

/// The files of a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the server's certificate, followed by its chain.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
}

/// Accepts TLS connections with the current certificate.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    pub(crate) fn new(files: TlsFiles) -> Result<Self, StartError> {
        let provider = Arc::new(ring::default_provider());
        let current = Arc::new(Current(RwLock::new(Arc::new(load(&files, &provider)?))));
        let internal =
            |cause: rustls::Error| StartError::Contradiction(format!("TLS cannot be set up: {cause}"));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(internal)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as _);
        // Tickets instead of a cache: many members that reconnect at once cost little, and the server keeps no state.
        config.ticketer = ring::Ticketer::new().map_err(internal)?;
        config.send_tls13_tickets = 1;
        Ok(Self { files, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Reads the files again. If they cannot be used, the old certificate stays.
    pub(crate) fn reload(&self) -> Result<(), StartError> {
        let key = load(&self.files, &ring::default_provider())?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(())
    }
}

/// Reads and checks a certificate and its key.
pub(crate) fn check(files: &TlsFiles) -> Result<(), StartError> {
    load(files, &ring::default_provider()).map(drop)
}

fn load(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, StartError> {
    let TlsFiles { certificate, key } = files;
    let chain = read_chain(certificate)?;
    check_validity(certificate, &chain)?;
    let wrong_key = || StartError::CertificateWrong { path: key.clone(), what: "private key" };
    let der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| wrong_key())?;
    let signer = provider.key_provider.load_private_key(der).map_err(|_| wrong_key())?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(StartError::KeyMismatch { certificate: certificate.clone(), key: key.clone() }),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| StartError::CertificateWrong { path: path.to_owned(), what: "certificate" })
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|cause| StartError::CertificateUnreadable {
        path: path.to_owned(),
        cause: cause.to_string(),
    })
}

fn check_validity(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), StartError> {
    let wrong = || StartError::CertificateWrong { path: path.to_owned(), what: "certificate" };
    let validity = chain.first().and_then(|leaf| Validity::of(leaf)).ok_or_else(wrong)?;
    let seconds = now().unix.seconds();
    if seconds < validity.not_before {
        return Err(StartError::CertificateNotYetValid { path: path.to_owned() });
    }
    let days = validity.not_after.abs_diff(seconds) / 86_400;
    tracing::debug!(path = %path.display(), days, "certificate read");
    if seconds > validity.not_after {
        return Err(StartError::CertificateExpired { path: path.to_owned(), days });
    }
    if days < RENEWAL_DAYS {
        tracing::warn!(path = %path.display(), days, "the certificate expires soon; renew it and send SIGHUP");
    }
    Ok(())
}
