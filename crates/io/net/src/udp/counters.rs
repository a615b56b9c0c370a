//! Counters of UDP endpoints.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

/// Why a burst of datagrams was not sent. It is counted; nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendDrop {
    /// Longer than the path to this address takes without fragmentation (EMSGSIZE).
    TooBig,
    /// There is no route to the address, or a firewall refuses.
    Unreachable,
    /// There is no socket of this address family.
    NoSocket,
    /// The socket's buffer is full.
    Busy,
    /// Any other error.
    Failed,
}

/// Bursts that were not sent, by reason; see [`SendDrop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of SendDrop")]
pub struct SendDrops {
    pub too_big: u64,
    pub unreachable: u64,
    pub no_socket: u64,
    pub busy: u64,
    pub failed: u64,
}

impl SendDrops {
    /// Lists every reason with its count.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self { too_big, unreachable, no_socket, busy, failed } = *self;
        [
            ("too_big", too_big),
            ("unreachable", unreachable),
            ("no_socket", no_socket),
            ("busy", busy),
            ("failed", failed),
        ]
        .into_iter()
    }
}

/// What an endpoint has sent, received and dropped since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpCounters {
    /// Datagrams handed to the system.
    pub sent_datagrams: u64,
    /// Their payload in bytes.
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Their payload in bytes.
    pub received_bytes: u64,
    /// Bursts that were not sent.
    pub drops: SendDrops,
    /// Transient errors on receiving, such as a peer's port being closed.
    pub receive_errors: u64,
    /// Times that segmentation offload (GSO) was refused, so that datagrams were sent one by one from then on.
    pub gso_fallbacks: u64,
}

impl AddAssign for UdpCounters {
    fn add_assign(&mut self, other: Self) {
        self.sent_datagrams += other.sent_datagrams;
        self.sent_bytes += other.sent_bytes;
        self.received_datagrams += other.received_datagrams;
        self.received_bytes += other.received_bytes;
        self.drops.too_big += other.drops.too_big;
        self.drops.unreachable += other.drops.unreachable;
        self.drops.no_socket += other.drops.no_socket;
        self.drops.busy += other.drops.busy;
        self.drops.failed += other.drops.failed;
        self.receive_errors += other.receive_errors;
        self.gso_fallbacks += other.gso_fallbacks;
    }
}

/// The same while they are counted, from several tasks at once.
#[derive(Debug, Default)]
pub(super) struct LiveCounters {
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
    drops: [AtomicU64; 5],
    receive_errors: AtomicU64,
    /// Refusals of segmentation offload by sockets that were closed since.
    gso_fallbacks: AtomicU64,
}

impl LiveCounters {
    pub(super) fn on_sent(&self, datagrams: u64, bytes: u64) {
        add(&self.sent, datagrams, bytes);
    }

    pub(super) fn on_received(&self, datagrams: u64, bytes: u64) {
        add(&self.received, datagrams, bytes);
    }

    pub(super) fn on_drop(&self, reason: SendDrop) -> SendDrop {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
        reason
    }

    pub(super) fn on_receive_error(&self, error: &std::io::Error) {
        tracing::trace!(%error, "transient error on receiving");
        self.receive_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps what a socket has counted that is about to be closed.
    pub(super) fn retire(&self, gso_fallbacks: u64) {
        self.gso_fallbacks.fetch_add(gso_fallbacks, Ordering::Relaxed);
    }

    /// Returns the counters, with the refusals of segmentation offload by the open sockets.
    pub(super) fn read(&self, gso_fallbacks: u64) -> UdpCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let drops = |reason: SendDrop| read(&self.drops[reason as usize]);
        UdpCounters {
            sent_datagrams: read(&self.sent[0]),
            sent_bytes: read(&self.sent[1]),
            received_datagrams: read(&self.received[0]),
            received_bytes: read(&self.received[1]),
            drops: SendDrops {
                too_big: drops(SendDrop::TooBig),
                unreachable: drops(SendDrop::Unreachable),
                no_socket: drops(SendDrop::NoSocket),
                busy: drops(SendDrop::Busy),
                failed: drops(SendDrop::Failed),
            },
            receive_errors: read(&self.receive_errors),
            gso_fallbacks: gso_fallbacks + read(&self.gso_fallbacks),
        }
    }
}

fn add(counters: &[AtomicU64; 2], datagrams: u64, bytes: u64) {
    counters[0].fetch_add(datagrams, Ordering::Relaxed);
    counters[1].fetch_add(bytes, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        let live = LiveCounters::default();
        let reasons =
            [SendDrop::TooBig, SendDrop::Unreachable, SendDrop::NoSocket, SendDrop::Busy, SendDrop::Failed];
        for (count, reason) in (1..).zip(reasons) {
            (0..count).for_each(|_| {
                live.on_drop(reason);
            });
        }
        let each: Vec<_> = live.read(0).drops.each().collect();
        let expected = [("too_big", 1), ("unreachable", 2), ("no_socket", 3), ("busy", 4), ("failed", 5)];
        assert_eq!(each, expected);
    }

    #[test]
    fn counters_of_several_endpoints_add_up() {
        let live = LiveCounters::default();
        live.on_sent(2, 200);
        live.on_received(1, 50);
        live.on_drop(SendDrop::Busy);
        let mut sum = live.read(1);
        sum += live.read(1);
        assert_eq!((sum.sent_datagrams, sum.sent_bytes), (4, 400));
        assert_eq!((sum.received_datagrams, sum.received_bytes), (2, 100));
        assert_eq!((sum.drops.busy, sum.gso_fallbacks), (2, 2));
    }
}
