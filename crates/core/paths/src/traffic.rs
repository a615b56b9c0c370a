//! Whether a peer's traffic suffers, so that sprays have to wait.

use std::time::{Duration, Instant};

use crate::{pair::CandidatePair, path::Path};

/// Packets per second above which traffic is a game's rather than the tunnel's own.
const BUSY_RATE: u32 = 5;
/// The window over which packets are counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Traffic suffers once the round trip exceeds one and a half times the best one seen, plus this.
const RTT_SLACK: Duration = Duration::from_millis(20);
/// Traffic suffers once the loss ratio exceeds the lowest one seen by more than this.
const LOSS_SLACK: f32 = 0.09;

/// Packets lately sent to a peer, and how good its path was at best.
#[derive(Debug, Default)]
pub(crate) struct TrafficMonitor {
    window_began: Option<Instant>,
    count: u32,
    /// Packets in the window before.
    previous: u32,
    best: Option<(Path, Duration, f32)>,
}

impl TrafficMonitor {
    /// Notes that a packet is sent to the peer.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.advance(now);
        self.count = self.count.saturating_add(1);
    }

    fn advance(&mut self, now: Instant) {
        let began = *self.window_began.get_or_insert(now);
        if now >= began + RATE_WINDOW {
            self.previous = if now < began + RATE_WINDOW * 2 { self.count } else { 0 };
            (self.window_began, self.count) = (Some(now), 0);
        }
    }

    /// Returns true if the peer's path carries traffic and is worse than it was at best.
    pub(crate) fn is_strained(&mut self, pair: Option<&CandidatePair>, now: Instant) -> bool {
        self.advance(now);
        let busy = self.count.max(self.previous) >= BUSY_RATE;
        busy && pair.is_some_and(|pair| self.has_worsened(pair, now))
    }

    fn has_worsened(&mut self, pair: &CandidatePair, now: Instant) -> bool {
        let quality = pair.quality();
        let (Some(rtt), Some(loss)) = (quality.rtt(), quality.loss()) else { return false };
        let (_, best_rtt, best_loss) = *self.best.insert(match self.best {
            Some((path, best, least)) if path == pair.path => (path, best.min(rtt), least.min(loss)),
            _ => (pair.path, rtt, loss),
        });
        pair.is_suspect(now) || rtt > best_rtt * 3 / 2 + RTT_SLACK || loss > best_loss + LOSS_SLACK
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{CandidateKind, SocketId};
    use partyline_wire::probe::TransactionId;

    use super::*;
    use crate::path::Via;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn setting() -> (CandidatePair, TrafficMonitor, Instant) {
        let path = Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], 1).into() };
        let kind = CandidateKind::ServerReflexive;
        let pair = CandidatePair::new(path, kind, None, 1.0, Duration::from_secs(5));
        (pair, TrafficMonitor::default(), Instant::now())
    }

    fn measure(pair: &mut CandidatePair, now: Instant, rtt_ms: u64) {
        let id = TransactionId::new(1, 1);
        pair.on_check_sent(now, id);
        pair.on_response(now + Duration::from_millis(rtt_ms), id);
    }

    #[test]
    fn a_longer_round_trip_strains_traffic_but_not_an_idle_path() {
        let (mut pair, mut monitor, now) = setting();
        measure(&mut pair, now, 20);
        (0..BUSY_RATE).for_each(|_| monitor.on_sent(now));
        assert!(!monitor.is_strained(Some(&pair), now));
        (0..20).for_each(|_| measure(&mut pair, now, 200));
        assert!(monitor.is_strained(Some(&pair), now));
        let later = now + RATE_WINDOW * 3;
        assert!(!monitor.is_strained(Some(&pair), later), "idle");
    }

    #[test]
    fn silence_strains_traffic() {
        let (mut pair, mut monitor, now) = setting();
        measure(&mut pair, now, 20);
        pair.on_sent(now);
        let later = now + Duration::from_millis(600);
        (0..BUSY_RATE).for_each(|_| monitor.on_sent(later));
        assert!(monitor.is_strained(Some(&pair), later));
    }
}
