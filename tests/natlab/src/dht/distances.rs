//! The distances of the nodes.

use std::{collections::BTreeMap, f64::consts::TAU, net::Ipv4Addr, time::Duration};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::cable::Quality;

/// Median of the one-way delays. With 10 ms of a home's own line, half of the nodes answer within 110 ms.
const MEDIAN: Duration = Duration::from_millis(45);
/// Standard deviation of the delays' logarithms.
const SIGMA: f64 = 0.6;
/// Bound of the normal variate, so that nodes answer within 27 to 300 ms.
const MAX_DEVIATION: f64 = 2.0;
/// Maximum additional delay of a packet.
const JITTER: Duration = Duration::from_millis(5);

/// The one-way delays of a number of nodes, log-normally distributed.
#[derive(Debug)]
pub struct Distances(BTreeMap<Ipv4Addr, Duration>);

impl Distances {
    /// Draws the delays of these nodes.
    pub fn new(seed: u64, nodes: &[Ipv4Addr]) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let delay = |rng: &mut ChaCha12Rng| {
            let deviation = normal(rng).clamp(-MAX_DEVIATION, MAX_DEVIATION);
            MEDIAN.mul_f64((SIGMA * deviation).exp())
        };
        Self(nodes.iter().map(|node| (*node, delay(&mut rng))).collect())
    }
}

impl Quality for Distances {
    fn delay(&self, outward: bool, packet: &[u8], rng: &mut ChaCha12Rng) -> Option<Duration> {
        let at = if outward { 12 } else { 16 };
        let node: Option<[u8; 4]> = packet.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let known = node.and_then(|node| self.0.get(&Ipv4Addr::from(node)));
        Some(known.copied().unwrap_or_default() + JITTER.mul_f64(uniform(rng)))
    }
}

/// Draws a standard normal variate (Box and Muller).
fn normal(rng: &mut ChaCha12Rng) -> f64 {
    let (radius, angle) = (1.0 - uniform(rng), uniform(rng));
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

/// Draws from 0 to 1, without 1.
fn uniform(rng: &mut ChaCha12Rng) -> f64 {
    f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_nodes_are_nearer_than_the_median() {
        let nodes: Vec<_> = (0..1000_u32).map(|number| Ipv4Addr::from(number << 8)).collect();
        let distances = Distances::new(7, &nodes);
        let near = distances.0.values().filter(|delay| **delay < MEDIAN).count();
        assert!((450..550).contains(&near), "{near}");
        let (nearest, farthest) = (distances.0.values().min().unwrap(), distances.0.values().max().unwrap());
        assert!(*nearest > MEDIAN / 4 && *farthest < MEDIAN * 4, "{nearest:?} to {farthest:?}");
        assert!(*farthest > MEDIAN * 3 && *nearest < MEDIAN / 3, "{nearest:?} to {farthest:?}");
    }

    #[test]
    fn packets_in_both_directions_take_the_time_of_the_node() {
        let node = Ipv4Addr::new(20, 1, 2, 3);
        let distances = Distances::new(7, &[node]);
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut packet = [0; 28];
        packet[16..20].copy_from_slice(&node.octets());
        let inward = distances.delay(false, &packet, &mut rng).unwrap();
        packet.rotate_left(4);
        let outward = distances.delay(true, &packet, &mut rng).unwrap();
        assert!(inward > JITTER && inward.abs_diff(outward) <= JITTER, "{inward:?} {outward:?}");
    }
}
