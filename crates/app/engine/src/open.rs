//! What an engine opens before its loop starts.

use partyline_model::{AppError, ErrorCode, Now};
use partyline_net::{BeaconSockets, UdpEndpoint};
use partyline_node::{Config, Node};
use rand::RngCore as _;

use crate::{EngineOptions, store::Store};

/// Sockets lent to a check of the network.
const SPARES: u8 = 7;

pub(crate) fn bind(port: u16) -> Result<UdpEndpoint, AppError> {
    UdpEndpoint::bind(port).map_err(|error| {
        AppError::new(ErrorCode::Device, error.to_string(), "Stop the other program or change the port.")
    })
}

pub(crate) fn beacon() -> Option<BeaconSockets> {
    BeaconSockets::open().inspect_err(|error| tracing::warn!(%error, "no LAN beacon")).ok()
}

pub(crate) fn node(now: Now, options: &EngineOptions, store: &Store) -> Result<Node, AppError> {
    let config = Config {
        settings: options.settings.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        paths: partyline_node::PathsConfig::default(),
        netcheck: partyline_node::NetcheckConfig { probe_sockets: SPARES, ..Default::default() },
    };
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    Node::new(now, seed, config, store.load()?.as_deref()).map_err(|error| {
        AppError::new(
            ErrorCode::Storage,
            format!("The saved parties in {} cannot be used: {error}.", store.place()),
            "Update Partyline, or move the file away to start afresh; it is left as it is.",
        )
    })
}
