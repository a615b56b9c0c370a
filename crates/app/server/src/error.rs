//! Why the server does not start, each with what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {path}: {cause}\nCheck the path given with --config and who may read it.", path = .path.display())]
    ConfigUnreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The configuration file is not as it should be.
    #[error("the configuration {path} is wrong:\n{cause}", path = .path.display())]
    ConfigWrong {
        /// Which.
        path: PathBuf,
        /// Where and why.
        cause: String,
    },
    /// An environment variable with our prefix that means nothing.
    #[error("the environment variable {0} is not known\nRun partyline-server --help for those that are.")]
    UnknownVariable(String),
    /// Settings that do not go together.
    #[error("{0}")]
    Contradiction(String),
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another program\nStop that program or choose another address with --listen; `ss -ltnp` shows who it is."
    )]
    AddressInUse {
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024 are for the privileged.
    #[error(
        "no permission to listen on {address}\nPorts below 1024 need CAP_NET_BIND_SERVICE: run it from the systemd unit, or `setcap cap_net_bind_service=+ep` the program, or choose a higher port."
    )]
    NotPermitted {
        /// Where.
        address: SocketAddr,
    },
    /// The address is not this computer's.
    #[error(
        "{address} is no address of this computer\nUse one that `ip address` shows, or 0.0.0.0 or [::] for all."
    )]
    NotOurs {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else about a socket.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read {path}: {cause}\nCheck the path and that the server's user may read it.", path = .path.display())]
    CertificateUnreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The file holds no certificate or key.
    #[error("{path} holds no usable {what}\nIt has to be PEM: a certificate followed by its chain, or a private key.", path = .path.display())]
    CertificateWrong {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The key is another certificate's.
    #[error("the key {key} does not belong to the certificate {certificate}\nGive both files of one renewal.", key = .key.display(), certificate = .certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate has ended.
    #[error("the certificate {path} expired {days} days ago\nRenew it (for example `certbot renew`); the server reads it again on SIGHUP.", path = .path.display())]
    CertificateExpired {
        /// Which.
        path: PathBuf,
        /// How long ago.
        days: u64,
    },
    /// The certificate has not begun.
    #[error("the certificate {path} is not valid yet\nCheck this computer's clock.", path = .path.display())]
    CertificateNotYetValid {
        /// Which.
        path: PathBuf,
    },
    /// The relay does not start.
    #[error("the relay cannot start: {0:#}")]
    Relay(anyhow::Error),
}

impl StartError {
    /// What kept a socket from listening.
    pub(crate) fn listen(address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Listen { address, cause },
        }
    }
}
