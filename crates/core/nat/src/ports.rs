//! Port assignment.

use std::time::{Duration, Instant};

use partyline_model::Allocation;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{PortCollision, Rules};

/// The maximum number of background mappings that are counted one by one. After as many the counter may be anywhere.
const MAX_BACKGROUND_STEPS: u32 = 65_536;

/// Assigns external ports.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    rng: ChaCha12Rng,
    /// The last port of a contiguous assignment.
    last: u16,
    /// When the next background mapping is created.
    next_background: Option<Instant>,
}

impl Ports {
    pub fn new(seed: u64, rules: &Rules) -> Self {
        let mut ports = Self { rng: ChaCha12Rng::seed_from_u64(seed), last: 0, next_background: None };
        ports.last = ports.any(rules);
        ports
    }

    /// Returns a port that is not `taken`, or `None` if there is none left.
    pub fn choose(
        &mut self,
        now: Instant,
        rules: &Rules,
        inside: u16,
        taken: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        match rules.allocation {
            Allocation::Preserving if rules.has_port(inside) && !taken(inside) => Some(inside),
            Allocation::Preserving if rules.collision == PortCollision::Next => {
                every(rules).map(|step| shift(rules, inside, step)).find(|port| !taken(*port))
            }
            Allocation::Contiguous { delta } => {
                self.advance_background(now, rules, delta);
                let last = self.last;
                let steps = every(rules).map(|count| count.saturating_mul(i32::from(delta)));
                let port = steps.map(|step| shift(rules, last, step)).find(|port| !taken(*port))?;
                self.last = port;
                Some(port)
            }
            Allocation::Random | Allocation::Preserving => {
                let start = self.any(rules);
                let free = |port: &u16| *port != inside && !taken(*port);
                // Mostly the first is free. Searching on from it ends even if hardly any is.
                every(rules).map(|step| shift(rules, start, step - 1)).find(free)
            }
        }
    }

    /// Advances the counter by the background mappings since the last call, which are a Poisson process.
    fn advance_background(&mut self, now: Instant, rules: &Rules, delta: i16) {
        if rules.background_rate == 0 {
            return;
        }
        let mut next = self.next_background.unwrap_or_else(|| now + self.pause(rules.background_rate));
        for _ in 0..MAX_BACKGROUND_STEPS {
            if next > now {
                break;
            }
            self.last = shift(rules, self.last, delta.into());
            next += self.pause(rules.background_rate);
        }
        self.next_background = Some(next.max(now));
    }

    fn pause(&mut self, rate: u16) -> Duration {
        let chance = (f64::from(self.rng.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
        Duration::from_secs_f64(-chance.ln() / f64::from(rate))
    }

    fn any(&mut self, rules: &Rules) -> u16 {
        shift(rules, rules.ports.0, (self.rng.next_u32() % count(rules)).cast_signed())
    }
}

/// Returns as many steps as there are ports, from 1.
fn every(rules: &Rules) -> impl Iterator<Item = i32> + use<> {
    1..=count(rules).cast_signed()
}

fn count(rules: &Rules) -> u32 {
    u32::from(rules.ports.1.saturating_sub(rules.ports.0)) + 1
}

/// Returns the port `step` ports further, wrapping within the range.
fn shift(rules: &Rules, port: u16, step: i32) -> u16 {
    let first = i64::from(rules.ports.0);
    let place = (i64::from(port) - first + i64::from(step)).rem_euclid(i64::from(count(rules)));
    u16::try_from(first + place).unwrap_or(rules.ports.0)
}
