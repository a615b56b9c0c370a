//! How long to wait before a request is repeated (RFC 8489, section 6.2.1; the estimate is RFC 6298's).

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Before anything was heard. RFC 8489 allows less than its 500 ms where the application knows better: games are not
/// played over lines with longer round trips, and one request more does no harm on those.
const INITIAL: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
/// More servers than are ever asked; further ones get the estimate of the others.
const MOST: usize = 64;

/// ProbeRound trips by server address.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    known: BTreeMap<IpAddr, Estimate>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    smoothed: Duration,
    deviation: Duration,
}

impl RoundTrips {
    /// Takes a round trip of a request that was sent once only (Karn).
    pub(crate) fn note(&mut self, server: IpAddr, rtt: Duration) {
        let room = self.known.len() < MOST;
        match self.known.get_mut(&server) {
            Some(estimate) => estimate.take(rtt),
            None if room => drop(self.known.insert(server, Estimate { smoothed: rtt, deviation: rtt / 2 })),
            None => {}
        }
    }

    /// The wait before a first repetition. An address that was not heard yet is taken to be as far as the farthest
    /// that was, since it is most often the other address of the same server.
    pub(crate) fn rto(&self, server: IpAddr) -> Duration {
        let farthest = || self.known.values().map(Estimate::rto).max();
        self.known.get(&server).map(Estimate::rto).or_else(farthest).unwrap_or(INITIAL)
    }
}

impl Estimate {
    fn take(&mut self, rtt: Duration) {
        self.deviation = (self.deviation * 3 + self.smoothed.abs_diff(rtt)) / 4;
        self.smoothed = (self.smoothed * 7 + rtt) / 8;
    }

    fn rto(&self) -> Duration {
        (self.smoothed + self.deviation * 4).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_wait_follows_the_round_trip_and_its_changes() {
        let (near, other) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from([127, 0, 0, 2]));
        let mut trips = RoundTrips::default();
        assert_eq!(trips.rto(near), INITIAL);
        trips.note(near, Duration::from_millis(40));
        assert_eq!(trips.rto(near), Duration::from_millis(120));
        assert_eq!(trips.rto(other), trips.rto(near));
        (0..20).for_each(|_| trips.note(near, Duration::from_millis(40)));
        assert_eq!(trips.rto(near), SHORTEST);
        (0..20).for_each(|n| trips.note(near, Duration::from_millis(40 + 400 * (n % 2))));
        assert!(trips.rto(near) > Duration::from_millis(600) && trips.rto(near) <= LONGEST);
    }
}
