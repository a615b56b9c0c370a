//! What an engine opens before its loop starts.

use std::io;

use partyline_model::{AppError, ErrorCode, Now};
use partyline_net::{Roots, TlsClient, UdpEndpoint};
use partyline_node::{Config, NetcheckConfig, Node, PathsConfig, StateError};
use rand::RngCore as _;

use crate::{options::EngineOptions, store::Store};

/// Probe sockets that a network check opens.
const PROBE_SOCKETS: u8 = 7;

/// Opens the main UDP socket; port 0 lets the system choose.
pub(crate) fn bind(port: u16) -> Result<UdpEndpoint, AppError> {
    UdpEndpoint::bind(port).map_err(|error| {
        AppError::new(ErrorCode::Device, error.to_string(), "Stop the other program or change the port.")
    })
}

/// Reads the certificates that TLS connections trust.
pub(crate) fn tls(options: &EngineOptions) -> Result<TlsClient, AppError> {
    TlsClient::new(&Roots { extra_ca: options.extra_ca.clone() }).map_err(|error| {
        AppError::new(
            ErrorCode::ServerCertificate,
            error.to_string(),
            "Correct the path of the extra certificates.",
        )
    })
}

/// Makes the node from what was saved, or a new device's. A file that is damaged, or that the disk does not return, is
/// replaced by the copy from before the last write.
pub(crate) fn node(now: Now, options: &EngineOptions, store: &mut Store) -> Result<Node, AppError> {
    let (reason, fault) = match store.load() {
        Ok(saved) => match restore(now, options, saved.as_deref()) {
            Err(StateError::Damaged(reason)) => {
                let fault = unusable(&StateError::Damaged(reason.clone()), store);
                (reason, fault)
            }
            restored => return restored.map_err(|error| unusable(&error, store)),
        },
        // The file may be whole: what is missing is the right to read it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error.into()),
        Err(error) => (error.to_string(), error.into()),
    };
    let copy = store.load_copy().ok().flatten().and_then(|copy| restore(now, options, Some(&copy)).ok());
    let node = copy.ok_or(fault)?;
    store.recover(&reason)?;
    Ok(node)
}

fn restore(now: Now, options: &EngineOptions, saved: Option<&[u8]>) -> Result<Node, StateError> {
    let config = Config {
        settings: options.settings.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        paths: PathsConfig::default(),
        netcheck: NetcheckConfig { probe_sockets: PROBE_SOCKETS, ..NetcheckConfig::default() },
    };
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    Node::new(now, seed, config, saved)
}

fn unusable(error: &StateError, store: &Store) -> AppError {
    let hint = match error {
        StateError::Newer(_) => "Update Partyline; the file is left as it is.",
        StateError::Damaged(_) => {
            "Put a backup of the file in its place, or move it away to start afresh; it is left as it is."
        }
    };
    let message = format!("The saved parties in {} cannot be used: {error}.", store.location());
    AppError::new(ErrorCode::Storage, message, hint)
}
