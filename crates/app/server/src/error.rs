//! Errors that keep the server from starting, each with what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the server cannot start. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum StartError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {path}: {cause}\nCheck the path given with --config and who may read it.", path = .path.display())]
    ConfigUnreadable { path: PathBuf, cause: io::Error },
    /// The configuration file has a wrong syntax, an unknown key, or a value of the wrong type.
    #[error("the configuration {path} is wrong:\n{cause}", path = .path.display())]
    ConfigWrong { path: PathBuf, cause: String },
    /// An environment variable with the prefix of the server is not known.
    #[error("the environment variable {0} is not known\nRun partyline-server --help for those that are.")]
    UnknownVariable(String),
    /// A setting is invalid, or settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// Another program listens on the address.
    #[error(
        "{address} is in use by another program\nStop that program or choose another address with --listen; `ss -ltnp` shows who it is."
    )]
    AddressInUse { address: SocketAddr },
    /// The process may not listen on the address, usually because the port is below 1024.
    #[error(
        "no permission to listen on {address}\nPorts below 1024 need CAP_NET_BIND_SERVICE: run it from the systemd unit, or `setcap cap_net_bind_service=+ep` the program, or choose a higher port."
    )]
    NotPermitted { address: SocketAddr },
    /// The address does not belong to this computer.
    #[error(
        "{address} is not an address of this computer\nUse one that `ip address` shows, or 0.0.0.0 or [::] for all."
    )]
    AddressNotAvailable { address: SocketAddr },
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
    /// A certificate or key file cannot be read.
    #[error("cannot read {path}: {cause}\nCheck the path and that the server's user may read it.", path = .path.display())]
    CertificateUnreadable { path: PathBuf, cause: String },
    /// The file contains no usable certificate or key.
    #[error("{path} holds no usable {what}\nIt has to be PEM: a certificate followed by its chain, or a private key.", path = .path.display())]
    CertificateWrong { path: PathBuf, what: &'static str },
    /// The key belongs to another certificate.
    #[error("the key {key} does not belong to the certificate {certificate}\nGive both files of one renewal.", key = .key.display(), certificate = .certificate.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    /// The certificate has expired.
    #[error("the certificate {path} expired {days} days ago\nRenew it (for example `certbot renew`); the server reads it again on SIGHUP.", path = .path.display())]
    CertificateExpired { path: PathBuf, days: u64 },
    /// The certificate is not valid yet.
    #[error("the certificate {path} is not valid yet\nCheck this computer's clock.", path = .path.display())]
    CertificateNotYetValid { path: PathBuf },
    /// The relay cannot start.
    #[error("the relay cannot start: {0:#}")]
    Relay(anyhow::Error),
}

impl StartError {
    /// Converts the error of a socket that cannot listen on an address.
    pub(crate) fn listen(address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { address },
            _ => Self::Listen { address, cause },
        }
    }
}
