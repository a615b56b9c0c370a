//! Offers of other members to relay packets to one peer.
//!
//! A member that both sides reach directly may forward between them, so that two members that cannot reach each other
//! need no server. The caller finds such members and reports each offer; the path through one is then checked,
//! selected and given up like any other. It ends as soon as that member is not reached directly any more, so that
//! nothing is ever forwarded twice.

use std::time::Duration;

use tracing::debug;

use crate::{
    pairs::CandidatePairs,
    path::{MemberRelay, PeerId},
};

/// Offers kept per peer: the fastest.
const MAX_OFFERS: usize = 3;
/// A member is considered if its round trip is at most one and a half times that of the relay server, plus this.
const MAX_EXTRA_RTT: Duration = Duration::from_millis(20);

/// The offers for one peer, fastest first.
#[derive(Debug, Default)]
pub(crate) struct MemberRelayOffers {
    /// The member that offers, and the round trip time through it.
    offers: Vec<(PeerId, Duration)>,
}

impl MemberRelayOffers {
    /// Takes an offer, unless it is much slower than the relay server in use, whose round trip time is given. Returns
    /// true if it was kept.
    pub(crate) fn add(&mut self, relay: MemberRelay, rtt: Duration, server_rtt: Option<Duration>) -> bool {
        let MemberRelay { through, to } = relay;
        let too_slow = server_rtt.is_some_and(|server| rtt > server.mul_f64(1.5) + MAX_EXTRA_RTT);
        if too_slow || through == to {
            debug!(%through, rtt_ms = rtt.as_millis(), too_slow, "member relay offer ignored");
            return false;
        }
        self.offers.retain(|(known, _)| *known != through);
        self.offers.push((through, rtt));
        self.offers.sort_by_key(|(through, rtt)| (*rtt, *through));
        self.offers.truncate(MAX_OFFERS);
        debug!(%through, rtt_ms = rtt.as_millis(), "member offers to relay");
        true
    }

    /// Returns the members that offer, fastest first.
    pub(crate) fn members(&self) -> Vec<PeerId> {
        self.offers.iter().map(|(through, _)| *through).collect()
    }

    /// Forgets offers whose path has failed.
    pub(crate) fn remove_failed(&mut self, to: PeerId, pairs: &CandidatePairs) {
        self.offers.retain(|(through, _)| {
            let path = MemberRelay { through: *through, to }.path();
            let failed = pairs.get(path).is_some_and(|pair| pair.is_failed());
            if failed {
                debug!(%through, reason = "its path failed", "member relay offer forgotten");
            }
            !failed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(offers: &mut MemberRelayOffers, through: u32, rtt_ms: u64, server_ms: Option<u64>) -> bool {
        let relay = MemberRelay { through: PeerId(through), to: PeerId(9) };
        offers.add(relay, Duration::from_millis(rtt_ms), server_ms.map(Duration::from_millis))
    }

    #[test]
    fn the_fastest_offers_are_kept() {
        let mut offers = MemberRelayOffers::default();
        for (through, rtt_ms) in [(1, 40), (2, 10), (3, 30), (4, 20), (3, 50)] {
            offer(&mut offers, through, rtt_ms, None);
        }
        assert_eq!(offers.members(), [PeerId(2), PeerId(4), PeerId(3)]);
    }

    #[test]
    fn offers_much_slower_than_the_server_and_of_the_peer_itself_are_ignored() {
        let mut offers = MemberRelayOffers::default();
        assert!(!offer(&mut offers, 1, 171, Some(100)));
        assert!(offer(&mut offers, 1, 170, Some(100)));
        assert!(!offer(&mut offers, 9, 10, None));
    }
}
