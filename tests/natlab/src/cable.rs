//! A cable with latency, jitter and loss, for kernels without netem: a TUN device at either end, and a heap of packets
//! in flight.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::Result;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use tun_rs::SyncDevice;

use crate::{
    device::{Carried, Carrier, tun},
    namespace::Namespace,
    trace::Trace,
};

/// Maximum number of packets in flight. Further ones are dropped, as a full queue does.
const MAX_QUEUED_PACKETS: usize = 10_000;

/// Quality of a line, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Minimum one-way delay.
    pub latency: Duration,
    /// Maximum additional delay. It is drawn per packet, so packets can overtake each other.
    pub jitter: Duration,
    /// Packets lost in each direction, in permille.
    pub loss: u16,
}

impl Line {
    /// A line of 20 ms one way without loss.
    pub const FAR: Self = Self { latency: Duration::from_millis(20), jitter: Duration::ZERO, loss: 0 };
}

/// What a cable does to packets.
pub(crate) trait Quality: Send + 'static {
    /// Returns the delay of a packet, or `None` if it is lost. `outward` is true for packets to the internet.
    fn delay(&self, outward: bool, packet: &[u8], rng: &mut ChaCha12Rng) -> Option<Duration>;
}

impl Quality for Line {
    fn delay(&self, _: bool, _: &[u8], rng: &mut ChaCha12Rng) -> Option<Duration> {
        let lost = rng.next_u32() % 1000 < u32::from(self.loss);
        let chance = f64::from(rng.next_u32()) / f64::from(u32::MAX);
        (!lost).then(|| self.latency + self.jitter.mul_f64(chance))
    }
}

/// Connects a device in one namespace (that of the internet) with one in another. The cable lasts until the returned
/// value is dropped.
pub(crate) fn lay(
    quality: impl Quality,
    seed: u64,
    trace: Trace,
    ends: [(&Namespace, &str); 2],
) -> Result<Carried> {
    let [one, other] = ends.map(|(namespace, name)| tun(namespace, name, 1500));
    let ends = [one?, other?];
    let rng = ChaCha12Rng::seed_from_u64(seed);
    Carried::start("cable", Cable { quality, ends, rng, trace, packets: BinaryHeap::new(), count: 0 })
}

/// A packet in flight: time of arrival, sequence number (to keep the order of packets that arrive at the same time),
/// index of the receiving end, and bytes.
type Underway = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Cable<Q> {
    quality: Q,
    ends: [SyncDevice; 2],
    rng: ChaCha12Rng,
    trace: Trace,
    packets: BinaryHeap<Underway>,
    count: u64,
}

impl<Q: Quality> Carrier for Cable<Q> {
    fn devices(&self) -> Vec<BorrowedFd<'_>> {
        self.ends.iter().map(AsFd::as_fd).collect()
    }

    fn readable(&mut self, end: usize, buffer: &mut [u8]) {
        let Ok(length) = self.ends[end].recv(buffer) else { return };
        let (packet, outward) = (&buffer[..length], end == 1);
        let delay = self.quality.delay(outward, packet, &mut self.rng);
        let delay = delay.filter(|_| self.packets.len() < MAX_QUEUED_PACKETS);
        self.trace.note(outward, packet, delay.is_none());
        let Some(delay) = delay else { return };
        let arrives = Instant::now() + delay;
        self.count += 1;
        self.packets.push(Reverse((arrives, self.count, 1 - end, packet.to_vec())));
    }

    fn deadline(&self) -> Option<Instant> {
        self.packets.peek().map(|Reverse((at, ..))| *at)
    }

    fn due(&mut self) {
        while self.deadline().is_some_and(|at| at <= Instant::now()) {
            let Some(Reverse((_, _, end, packet))) = self.packets.pop() else { return };
            // Like a real cable, an end that is down loses the packet.
            let _ = self.ends[end].send(&packet);
        }
    }
}
