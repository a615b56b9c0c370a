//! Counters of what the server does outside the state machines of `core`, which have their own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Declares an enum of reasons with a stable label value each.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

/// A reason that is counted: one of a fixed set.
pub(crate) trait Reason: Copy + PartialEq + 'static {
    /// All reasons, in the order of their counters.
    const ALL: &'static [Self];

    /// Returns the label value in metrics and the `reason` field in logs.
    fn label(self) -> &'static str;
}

reasons! {
    /// Why a TCP connection was refused as soon as it was accepted.
    LimitReached {
        /// The server has as many connections as it may.
        Server => "server_limit",
        /// The client's address has as many connections as it may.
        Address => "address_limit",
        /// The client's IPv6 prefix has as many connections as it may.
        Prefix => "prefix_limit",
    }
}

reasons! {
    /// Why a TCP connection was closed before it was clear what it is for.
    EarlyClose {
        /// The TLS handshake failed.
        TlsFailed => "tls_failed",
        /// The TLS handshake took too long.
        TlsTimeout => "tls_timeout",
        /// The client sent nothing, or hung up.
        Silent => "silent",
        /// The first byte belongs to no protocol that is served here.
        UnknownProtocol => "unknown_protocol",
    }
}

reasons! {
    /// Why a rendezvous session ended.
    SessionEnd {
        /// The client closed the WebSocket.
        ClosedByClient => "closed_by_client",
        /// The connection broke without a close frame.
        ConnectionLost => "connection_lost",
        /// The server is stopping.
        GoingAway => "going_away",
        /// The same member connected again.
        Replaced => "replaced",
        /// A frame could not be decoded.
        Malformed => "malformed",
        /// Too many frames.
        RateLimited => "rate_limited",
        /// The client does not read what is sent to it.
        Slow => "slow",
        /// The client does not answer pings.
        Unresponsive => "unresponsive",
        /// The client was on no topic for too long.
        Idle => "idle",
        /// The client violated RFC 6455.
        WebSocketViolation => "websocket_violation",
    }
}

/// One counter for each reason.
#[derive(Debug)]
pub(crate) struct ReasonCounters<R: Reason> {
    counts: Box<[AtomicU64]>,
    reason: std::marker::PhantomData<R>,
}

impl<R: Reason> Default for ReasonCounters<R> {
    fn default() -> Self {
        let counts = R::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { counts, reason: std::marker::PhantomData }
    }
}

impl<R: Reason> ReasonCounters<R> {
    pub(crate) fn count(&self, reason: R) {
        let counters = R::ALL.iter().zip(&self.counts);
        if let Some((_, counter)) = counters.into_iter().find(|(known, _)| **known == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns every counter with its label value, zeros included.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        R::ALL
            .iter()
            .zip(&self.counts)
            .map(|(reason, counter)| (reason.label(), counter.load(Ordering::Relaxed)))
    }
}

/// A histogram of durations with fixed buckets, which any thread may record into.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds in seconds, ascending; the last bucket is unbounded.
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum_microseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_microseconds: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Returns the number of recorded durations up to each bound, as Prometheus counts them; the last one, with an infinite
    /// bound, is the number of all.
    pub(crate) fn cumulative(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += count.load(Ordering::Relaxed);
            Some(*sum)
        });
        bounds.zip(counts).collect()
    }

    /// Returns the sum of all recorded durations in seconds.
    pub(crate) fn sum(&self) -> f64 {
        Duration::from_micros(self.sum_microseconds.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// What the server counts about TCP connections and TLS.
#[derive(Debug)]
pub(crate) struct ConnectionCounters {
    /// Connections closed before it was clear what they are for.
    pub(crate) closed_early: ReasonCounters<EarlyClose>,
    /// Duration of successful TLS handshakes.
    pub(crate) tls_handshake: Histogram,
}

impl Default for ConnectionCounters {
    fn default() -> Self {
        let bounds = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Self { closed_early: ReasonCounters::default(), tls_handshake: Histogram::new(bounds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_apart_and_zeros_are_listed() {
        let counters = ReasonCounters::default();
        counters.count(LimitReached::Address);
        counters.count(LimitReached::Address);
        assert_eq!(
            counters.each().collect::<Vec<_>>(),
            [("server_limit", 0), ("address_limit", 2), ("prefix_limit", 0)]
        );
    }

    #[test]
    fn histogram_counts_cumulatively_and_bounds_are_inclusive() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for milliseconds in [100, 101, 1000, 9000] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        assert_eq!(histogram.cumulative(), [(0.1, 1), (1.0, 3), (f64::INFINITY, 4)]);
        assert!((histogram.sum() - 10.201).abs() < 1e-9);
    }
}
