//! Error responses: the STUN error code, and why this request got it.

use crate::counters::Refusal;

impl Refusal {
    /// Returns the error code (RFC 8489, section 14.8, and RFC 8656, section 19).
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Challenge | Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::UnknownAttribute => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::AddressFamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerAddressFamilyMismatch => 443,
            Self::AllocationQuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }

    /// Returns the reason phrase that the RFCs recommend.
    pub(crate) const fn phrase(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Challenge | Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::AddressFamilyNotSupported => "Address Family not Supported",
            Self::WrongCredentials => "Wrong Credentials",
            Self::UnsupportedTransport => "Unsupported Transport Protocol",
            Self::PeerAddressFamilyMismatch => "Peer Address Family Mismatch",
            Self::AllocationQuotaReached => "Allocation Quota Reached",
            Self::InsufficientCapacity => "Insufficient Capacity",
        }
    }

    /// Returns true if the response has to carry realm, nonce and password algorithms (RFC 8489, section 9.2.4).
    pub(crate) const fn is_challenge(self) -> bool {
        matches!(self, Self::Challenge | Self::Unauthenticated | Self::StaleNonce)
    }

    /// Adds the reason that the log shows.
    pub(crate) const fn because(self, reason: &'static str) -> Rejection {
        Rejection { refusal: self, reason, unknown: Vec::new() }
    }
}

/// Why a request is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) refusal: Refusal,
    /// What was wrong, for the log.
    pub(crate) reason: &'static str,
    /// The attributes that were not understood, for [`Refusal::UnknownAttribute`].
    pub(crate) unknown: Vec<u16>,
}

impl Rejection {
    /// Returns an error if there is any attribute that was not understood.
    pub(crate) fn unless_understood(unknown: Vec<u16>) -> Result<(), Self> {
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Self { unknown, ..Refusal::UnknownAttribute.because("comprehension-required attribute") })
    }
}
