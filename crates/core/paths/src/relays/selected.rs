//! Which of the attempts are kept: the best relay, and the best other one as a standby.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::relays::attempt::RelayAttempt;

/// Delay after one relay works before the standby is requested, so that the members' first packets go first.
const STANDBY_DELAY: Duration = Duration::from_millis(300);

/// The places, by rank, of the granted attempts that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SelectedRelays {
    /// The best attempt of all.
    pub(super) primary: Option<usize>,
    /// The best attempt at another relay than the primary's.
    pub(super) standby: Option<usize>,
}

impl SelectedRelays {
    /// Selects among attempts that are sorted best first.
    pub(super) fn of(attempts: &[RelayAttempt]) -> Self {
        let primary = attempts.iter().position(RelayAttempt::is_granted);
        let name = primary.and_then(|at| attempts.get(at)).map(|attempt| &attempt.server.name);
        let other = |attempt: &RelayAttempt| attempt.is_granted() && Some(&attempt.server.name) != name;
        Self { primary, standby: primary.and_then(|_| attempts.iter().position(other)) }
    }

    /// Returns true if an attempt is kept, or would take the place of one that is.
    pub(super) fn wants(self, attempts: &[RelayAttempt], rank: usize) -> bool {
        let Some(primary) = self.primary else { return true };
        let relay = |at: usize| attempts.get(at).map(|attempt| &attempt.server.name);
        let better_standby = self.standby.is_none_or(|standby| rank <= standby);
        rank <= primary || (relay(rank) != relay(primary) && better_standby)
    }
}

/// Brings forward the attempts to get a standby once the primary works; their delays relative to each other stay.
pub(super) fn expedite_standby(now: Instant, attempts: &mut [RelayAttempt]) {
    let selected = SelectedRelays::of(attempts);
    if selected.primary.is_none() || selected.standby.is_some() {
        return;
    }
    let wanted: Vec<bool> = (0..attempts.len()).map(|rank| selected.wants(attempts, rank)).collect();
    let mut first_head_start = None;
    for (rank, (attempt, wanted)) in attempts.iter_mut().zip(wanted).enumerate() {
        if !wanted || Some(rank) <= selected.primary {
            continue;
        }
        let first = *first_head_start.get_or_insert(attempt.head_start);
        if !attempt.has_failed() {
            let relay = &attempt.server.name;
            let soon = now + STANDBY_DELAY + attempt.head_start.saturating_sub(first);
            if soon < attempt.not_before {
                debug!(%relay, after_ms = (soon - now).as_millis(), reason = "standby", "relay attempt brought forward");
            }
            attempt.not_before = attempt.not_before.min(soon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{RelayServer, RelayTransport},
        turn::AllocationEnd,
    };

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Attempts to two relays over UDP and TLS: a-udp, a-tls, b-udp, b-tls, c-udp.
    fn attempts(now: Instant, granted: &[usize]) -> Vec<RelayAttempt> {
        let server = |name: &str, transport| RelayServer {
            name: name.into(),
            transport,
            address: "203.0.113.1:3478".parse().unwrap(),
            host: String::new(),
            username: String::new(),
            password: String::new(),
        };
        let list = [("a", 0), ("a", 0), ("b", 1), ("b", 1), ("c", 2)];
        let transports = [RelayTransport::Udp, RelayTransport::Tls].into_iter().cycle();
        let mut attempts: Vec<RelayAttempt> = list
            .into_iter()
            .zip(transports)
            .map(|((name, rank), transport)| RelayAttempt::new(now, server(name, transport), rank))
            .collect();
        granted.iter().for_each(|at| _ = attempts[*at].on_granted(now, None));
        attempts
    }

    fn wanted(granted: &[usize]) -> Vec<usize> {
        let attempts = attempts(start(), granted);
        let selected = SelectedRelays::of(&attempts);
        (0..attempts.len()).filter(|rank| selected.wants(&attempts, *rank)).collect()
    }

    #[test]
    fn everything_is_wanted_until_something_works() {
        assert_eq!(wanted(&[]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn beside_the_best_another_relay_is_wanted_but_no_other_transport() {
        assert_eq!(wanted(&[0]), [0, 2, 3, 4]);
        assert_eq!(wanted(&[0, 2]), [0, 2]);
        assert_eq!(wanted(&[0, 3]), [0, 2, 3], "the standby over UDP would be better than over TLS");
    }

    #[test]
    fn a_better_one_is_wanted_while_a_worse_one_works() {
        assert_eq!(wanted(&[2]), [0, 1, 2, 4]);
    }

    #[test]
    fn a_standby_is_requested_soon_after_the_primary_works() {
        let now = start();
        let mut attempts = attempts(now, &[0]);
        expedite_standby(now, &mut attempts);
        let delays: Vec<u128> = attempts.iter().map(|a| (a.not_before - now).as_millis()).collect();
        assert_eq!(delays, [0, 1000, 300, 1300, 4300]);
    }

    #[test]
    fn a_standby_that_failed_keeps_its_pause() {
        let now = start();
        let mut attempts = attempts(now, &[0]);
        attempts[2].on_ended(now, AllocationEnd::NoResponse, false, 1.0, None);
        let pause = attempts[2].not_before;
        expedite_standby(now, &mut attempts);
        assert_eq!(attempts[2].not_before, pause);
    }
}
