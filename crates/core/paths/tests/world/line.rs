//! Loss and jitter.

use std::time::Duration;

use super::World;

impl World {
    /// Loses one packet in twenty, and delays each by up to 30 ms more than usual.
    pub fn add_loss_and_jitter(&mut self, seed: u32) {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let mut dice = random;
        self.lost = Box::new(move |_| dice() % 20 == 0);
        self.delay = Box::new(move |_| Duration::from_millis(u64::from(random() % 30)));
    }
}
