//! Why a server could not be reached, as precisely as a person can act on it.

use std::{io, net::IpAddr, sync::Arc};

use rustls::{CertificateError, Error as TlsError};

/// Why a connection was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The URL is malformed or has another scheme.
    #[error("{0} is not a valid server URL; it should look like wss://party.example")]
    Url(String),
    /// The name has no address.
    #[error("no address is known for {host}: {cause}; check the name and this computer's DNS")]
    Name {
        /// The name that was looked up.
        host: String,
        /// The resolver's error.
        cause: String,
    },
    /// All addresses refused.
    #[error("{host} refused the connection on port {port}; the server may not be running")]
    Refused {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
    },
    /// No address answered in time.
    #[error("{host} did not answer on port {port} in time; a firewall may be in the way")]
    Timeout {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
    },
    /// No route, network down, or reset.
    #[error("{host} cannot be reached: {cause}; check this computer's network")]
    Unreachable {
        /// The server.
        host: String,
        /// The system's error.
        cause: Arc<io::Error>,
    },
    /// The server's certificate is not valid for it.
    #[error("the certificate of {host} {problem}")]
    Certificate {
        /// The server.
        host: String,
        /// What is wrong with the certificate.
        problem: CertificateProblem,
    },
    /// TLS failed for another reason.
    #[error("no TLS connection to {host}: {cause}")]
    Tls {
        /// The server.
        host: String,
        /// What failed.
        cause: String,
    },
    /// The server answered, but not with a WebSocket.
    #[error("{host} answered with HTTP status {status}; it may not be a Partyline server, or be full")]
    Http {
        /// The server.
        host: String,
        /// The status.
        status: u16,
    },
    /// The network answers in the server's place until the user logs in.
    #[error("this network wants you to log in first (captive portal); open a web page in a browser and log in{}, and Partyline connects by itself", login.as_ref().map_or_else(String::new, |page| format!(" at {page}")))]
    CaptivePortal {
        /// The server.
        host: String,
        /// The login page, if the network named it.
        login: Option<String>,
    },
    /// The server's address is that of this network's own router, which does not route connections to it back inside.
    #[error(
        "{host} is at this network's own public address, and the router does not route connections to it back inside; give the name the server's LAN address here"
    )]
    OwnRouter {
        /// The server.
        host: String,
    },
    /// The server has private addresses alone, at which the caller does not allow it to be contacted.
    #[error("{host} is at the private address {address}; confirm the server first")]
    Private {
        /// The server.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// The server answered with something other than HTTP.
    #[error("{host} does not speak WebSocket: {cause}")]
    Protocol {
        /// The server.
        host: String,
        /// What was wrong with the answer.
        cause: String,
    },
    /// Certificates to trust could not be read.
    #[error("the certificates in {path} cannot be used: {cause}")]
    Roots {
        /// The file's path.
        path: String,
        /// What is wrong with the file.
        cause: String,
    },
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// Its validity has ended, or this computer's clock is ahead.
    #[error("has expired; its operator has to renew it, unless this computer's clock is wrong")]
    Expired,
    /// Its validity has not begun, which mostly means that this computer's clock is behind.
    #[error("is not valid yet; most likely this computer's clock is wrong")]
    NotYetValid,
    /// It is valid for another name.
    #[error("is for another name; the address may be mistyped, or the connection intercepted")]
    WrongName,
    /// It was not signed by an issuer that this computer trusts.
    #[error("was not issued by anyone this computer trusts")]
    UnknownIssuer,
    /// Its issuer revoked it.
    #[error("was revoked by its issuer")]
    Revoked,
    /// Any other fault.
    #[error("is not valid: {0}")]
    Invalid(String),
}

impl ConnectError {
    /// Explains why all attempts to connect to a host failed.
    pub(crate) fn from_io(host: &str, port: u16, cause: io::Error) -> Self {
        let host = host.to_owned();
        match cause.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { host, port },
            io::ErrorKind::TimedOut => Self::Timeout { host, port },
            _ => Self::Unreachable { host, cause: Arc::new(cause) },
        }
    }

    /// Explains why a TLS handshake failed; rustls wraps its errors in I/O errors.
    pub(crate) fn from_handshake(host: &str, port: u16, cause: io::Error) -> Self {
        let inner = cause.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match inner {
            Some(TlsError::InvalidCertificate(certificate)) => {
                Self::Certificate { host: host.to_owned(), problem: certificate.into() }
            }
            Some(other) => Self::Tls { host: host.to_owned(), cause: other.to_string() },
            None if cause.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Tls { host: host.to_owned(), cause: "the server hung up".to_owned() }
            }
            None => Self::from_io(host, port, cause),
        }
    }
}

impl From<&CertificateError> for CertificateProblem {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            other => Self::Invalid(other.to_string()),
        }
    }
}
