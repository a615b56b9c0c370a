//! What the unit tests of several parts start from.

use std::time::Instant;

use partyline_model::NatProfile;
use partyline_wire::probe::Tag;

use crate::{
    api::{Config, PeerParams},
    context::Shared,
    path::PeerId,
    remote::Remote,
};

/// The origin of virtual time.
#[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A peer without candidates, seen by the controlling side.
pub(crate) fn params() -> PeerParams {
    PeerParams {
        probe_key: [7; 32],
        local_tag: Tag([1; 8]),
        remote_tag: Tag([2; 8]),
        controlling: true,
        nat: NatProfile::default(),
        candidates: Vec::new(),
    }
}

pub(crate) fn remote() -> Remote {
    Remote::new(PeerId(1), params())
}

pub(crate) fn shared() -> Shared {
    Shared::new([1; 32], Config::default())
}
