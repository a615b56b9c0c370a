//! A cable with latency, jitter and loss, for kernels without netem: a TUN device at either end, and a heap of packets
//! under way.

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

/// Packets that fit on the cable; more are dropped, as a queue does that is full.
const MAX_QUEUED_PACKETS: usize = 10_000;

/// How good a line is; the same both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// One way, at least.
    pub latency: Duration,
    /// Up to this much more, differently for each packet, so that packets overtake each other.
    pub jitter: Duration,
    /// Of a thousand packets each way, so many are lost.
    pub loss: u16,
}

impl Line {
    /// 20 ms one way, and nothing lost.
    pub const FAR: Self = Self { latency: Duration::from_millis(20), jitter: Duration::ZERO, loss: 0 };
}

/// Lays a cable from a device in one namespace (that of the internet) to one in another. It lasts until the result is
/// dropped.
pub(crate) fn lay(line: Line, seed: u64, trace: Trace, ends: [(&Namespace, &str); 2]) -> Result<Carried> {
    let [one, other] = ends.map(|(namespace, name)| tun(namespace, name, 1500));
    let ends = [one?, other?];
    let rng = ChaCha12Rng::seed_from_u64(seed);
    Carried::start("cable", Cable { line, ends, rng, trace, packets: BinaryHeap::new(), count: 0 })
}

/// When a packet arrives, its number (so that packets of one moment keep their order), where, and what.
type Underway = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Cable {
    line: Line,
    ends: [SyncDevice; 2],
    rng: ChaCha12Rng,
    trace: Trace,
    packets: BinaryHeap<Underway>,
    count: u64,
}

impl Carrier for Cable {
    fn devices(&self) -> Vec<BorrowedFd<'_>> {
        self.ends.iter().map(AsFd::as_fd).collect()
    }

    fn readable(&mut self, end: usize, buffer: &mut [u8]) {
        let Ok(length) = self.ends[end].recv(buffer) else { return };
        let lost = self.rng.next_u32() % 1000 < u32::from(self.line.loss);
        let lost = lost || self.packets.len() >= MAX_QUEUED_PACKETS;
        self.trace.note(end == 1, &buffer[..length], lost);
        if lost {
            return;
        }
        let chance = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let arrives = Instant::now() + self.line.latency + self.line.jitter.mul_f64(chance);
        self.count += 1;
        self.packets.push(Reverse((arrives, self.count, 1 - end, buffer[..length].to_vec())));
    }

    fn deadline(&self) -> Option<Instant> {
        self.packets.peek().map(|Reverse((at, ..))| *at)
    }

    fn due(&mut self) {
        while self.deadline().is_some_and(|at| at <= Instant::now()) {
            let Some(Reverse((_, _, end, packet))) = self.packets.pop() else { return };
            // An end that is down loses it, as a real one would.
            let _ = self.ends[end].send(&packet);
        }
    }
}
