//! The spans under which the node logs: one for each party, and one for each other member in it.

use partyline_model::{DeviceId, PartyId};
use tracing::{Span, debug_span};

pub(crate) fn party_span(party: PartyId) -> Span {
    debug_span!("party", party = %party.short())
}

pub(crate) fn peer_span(party: PartyId, peer: DeviceId) -> Span {
    debug_span!("peer", party = %party.short(), peer = %peer.short())
}
