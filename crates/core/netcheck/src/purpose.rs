//! Why a request was sent.

use crate::{counters::Test, stun::ResponseRouting};

/// The purpose of a request, by which its outcome is handed to the test that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first request to a server from the main socket; with the server's index.
    Contact(usize),
    /// Keeps the main socket's mapping alive and shows whether it changed; with the server's index.
    Keepalive(usize),
    /// Mapping test: compares mappings towards several destinations.
    CompareMapping,
    /// Filtering test: asks for a response from another address or port.
    FilteringRound { run: u8, round: u8, routing: ResponseRouting },
    /// Filtering proof: opens the NAT for a server's other addresses.
    OpenFilter,
    /// Filtering by members: shows the probe socket's reflexive address.
    LearnReflexive,
    /// Filtering by members: shows that a mapping is still the same.
    VerifyMapping,
    /// Allocation test: makes the first mapping of a fresh socket.
    Allocate,
    /// Hairpinning test: addressed to this computer's own reflexive address.
    Hairpin,
    /// Lifetime test: makes or revives the mapping with this index.
    CreateMapping(u8),
    /// Lifetime test: has the server respond to the mapping with this index.
    CheckMapping(u8),
}

impl Purpose {
    /// Returns the test that counts the request.
    pub(crate) const fn test(self) -> Test {
        match self {
            Self::Contact(_) => Test::Contact,
            Self::Keepalive(_) => Test::Keepalive,
            Self::CompareMapping => Test::Mapping,
            Self::FilteringRound { .. } | Self::OpenFilter | Self::LearnReflexive | Self::VerifyMapping => {
                Test::Filtering
            }
            Self::Allocate => Test::Allocation,
            Self::Hairpin => Test::Hairpin,
            Self::CreateMapping(_) | Self::CheckMapping(_) => Test::Lifetime,
        }
    }
}
