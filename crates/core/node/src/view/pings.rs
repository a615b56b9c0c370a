//! Pings that the user asked for: one message to a member's engine through the tunnel, and its answer.

use std::time::{Duration, Instant};

use partyline_model::{AppError, DeviceId, PartyId, PingSample, Reply};
use tracing::debug;

use crate::{RequestId, problem::timed_out};

/// How long a member has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Pings that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    open: Vec<Ping>,
    /// The number of the last ping.
    last: u32,
}

#[derive(Debug)]
struct Ping {
    number: u32,
    request: RequestId,
    party: PartyId,
    member: DeviceId,
    sent: Instant,
}

/// The answer to a request.
pub(crate) type PingAnswer = (RequestId, Result<Reply, AppError>);

impl Pings {
    /// Opens a ping; returns the number to send to the member.
    pub(crate) fn open(&mut self, now: Instant, request: RequestId, party: PartyId, member: DeviceId) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.open.push(Ping { number: self.last, request, party, member, sent: now });
        self.last
    }

    /// Takes a member's pong; returns the reply to the request, if the ping is still open.
    pub(crate) fn on_pong(
        &mut self,
        now: Instant,
        party: PartyId,
        from: DeviceId,
        number: u32,
    ) -> Option<PingAnswer> {
        let matches = |ping: &Ping| ping.number == number && ping.party == party && ping.member == from;
        let index = self.open.iter().position(matches)?;
        let ping = self.open.swap_remove(index);
        let rtt_ms = now.saturating_duration_since(ping.sent).as_secs_f32() * 1000.0;
        debug!(party = %party.short(), peer = %from.short(), rtt_ms, "ping answered");
        Some((ping.request, Ok(Reply::Pong(PingSample { rtt_ms }))))
    }

    /// Returns the moment to call [`Self::expire`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.open.iter().map(|ping| ping.sent + PING_TIMEOUT).min()
    }

    /// Ends pings that were not answered in time; returns the answers to their requests.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PingAnswer> {
        let expired = self.open.extract_if(.., |ping| ping.sent + PING_TIMEOUT <= now);
        let answer = |ping: Ping| {
            let timeout_s = PING_TIMEOUT.as_secs();
            debug!(party = %ping.party.short(), peer = %ping.member.short(), timeout_s, reason = "no answer", "ping failed");
            (ping.request, Err(timed_out()))
        };
        expired.map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn ping_is_answered_by_its_member_once_or_times_out() {
        let (now, mut pings) = (Instant::now(), Pings::default());
        let (party, member) = (PartyId([1; 32]), DeviceId([2; 32]));
        let number = pings.open(now, 7, party, member);
        assert_eq!(pings.on_pong(now, party, DeviceId([3; 32]), number), None, "not asked");
        let later = now + Duration::from_millis(50);
        let (request, reply) = pings.on_pong(later, party, member, number).expect("an answer");
        assert!(request == 7 && matches!(reply, Ok(Reply::Pong(PingSample { rtt_ms })) if rtt_ms == 50.0));
        assert_eq!(pings.on_pong(later, party, member, number), None, "answered already");
        pings.open(now, 8, party, member);
        assert_eq!(pings.poll_timeout(), Some(now + PING_TIMEOUT));
        assert!(pings.expire(later).is_empty());
        assert_eq!(pings.expire(now + PING_TIMEOUT), [(8, Err(timed_out()))]);
    }
}
