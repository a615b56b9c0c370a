//! Which handshake messages are worth an X25519 operation.

use std::time::Instant;

use partyline_timing::{Rate, TokenBucket};

use crate::{
    drops::DropReason,
    party::{CookieCheck, Party},
    source::Source,
    source_buckets::SourceBuckets,
};

/// What becomes of a handshake message whose first MAC is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be processed.
    Admitted,
    /// Its sender has to prove its address first; the cookie reply has this length.
    Challenge(usize),
    /// It is dropped.
    Dropped(DropReason),
}

/// Limits handshake messages of one kind in all parties together.
///
/// A message is processed without a proof of its sender's address as long as neither its source nor all of them together
/// send too many. Others need a cookie; with it they have a bucket of their own, which no other source can empty, since a
/// cookie cannot be obtained for a forged address. So neither a flood from one source nor one from forged addresses
/// takes anything from the others but, at worst, one repetition.
pub(crate) struct HandshakeLimiter {
    total: TokenBucket,
    /// Buckets of addresses that may be forged.
    unproven: SourceBuckets,
    /// Buckets of addresses that a cookie proved.
    proven: SourceBuckets,
}

impl HandshakeLimiter {
    /// Creates a limiter with a rate of messages without a cookie.
    pub(crate) fn new(total: Rate) -> Self {
        Self {
            total: TokenBucket::new(total),
            unproven: SourceBuckets::default(),
            proven: SourceBuckets::default(),
        }
    }

    /// Decides on a message for a party. A cookie reply is written to `reply`.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        source: Source,
        party: &Party,
        message: &[u8],
        reply: &mut [u8],
    ) -> Verdict {
        if self.unproven.take(now, source.key()) && self.total.take(now, 1) {
            return Verdict::Admitted;
        }
        match party.check_cookie(source.address(), message, reply) {
            CookieCheck::Passed if self.proven.take(now, source.key()) => Verdict::Admitted,
            CookieCheck::Passed => Verdict::Dropped(DropReason::HandshakeSourceLimited),
            CookieCheck::Challenge(len) => Verdict::Challenge(len),
            CookieCheck::Failed => Verdict::Dropped(DropReason::HandshakeRateLimited),
        }
    }
}
