//! What all connections of a server share.

use std::sync::Arc;

use crate::{
    counters::ConnectionCounters, hub::Hub, limiter::ConnectionLimiter, relay::RelayHandle, tls::Tls,
};

/// The parts of a running server.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) limiter: Arc<ConnectionLimiter>,
    pub(crate) tls: Option<Tls>,
    pub(crate) relay: Option<RelayHandle>,
    pub(crate) counters: ConnectionCounters,
    /// True if `/metrics` is served on an address of its own only.
    pub(crate) has_admin: bool,
}
