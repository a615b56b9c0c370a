//! How external ports are chosen.

use std::time::{Duration, Instant};

use partyline_model::Allocation;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::{PortCollision, Rules};

/// Moves of a counter by background_rate that are worth counting: then it may be anywhere.
const MOST_RIVALS: u32 = 65_536;

/// Chooses ports.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    rng: ChaCha12Rng,
    /// The last port that was given, where they are counted.
    last: u16,
    /// When a rival makes its next mapping.
    rival: Option<Instant>,
}

impl Ports {
    pub fn new(seed: u64, rules: &Rules) -> Self {
        let mut ports = Self { rng: ChaCha12Rng::seed_from_u64(seed), last: 0, rival: None };
        ports.last = ports.any(rules);
        ports
    }

    /// A port that is not `taken`, or `None` if there is none left.
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
                self.let_rivals_pass(now, rules, delta);
                let last = self.last;
                let steps = every(rules).map(|count| count.saturating_mul(i32::from(delta)));
                let port = steps.map(|step| shift(rules, last, step)).find(|port| !taken(*port))?;
                self.last = port;
                Some(port)
            }
            Allocation::Random | Allocation::Preserving => {
                let start = self.any(rules);
                let free = |port: &u16| *port != inside && !taken(*port);
                // Mostly the first is free; searching on from it ends even where hardly any is.
                every(rules).map(|step| shift(rules, start, step - 1)).find(free)
            }
        }
    }

    /// Moves the counter by what others took since the last time, as a Poisson process.
    fn let_rivals_pass(&mut self, now: Instant, rules: &Rules, delta: i16) {
        if rules.background_rate == 0 {
            return;
        }
        let mut next = self.rival.unwrap_or_else(|| now + self.pause(rules.background_rate));
        for _ in 0..MOST_RIVALS {
            if next > now {
                break;
            }
            self.last = shift(rules, self.last, delta.into());
            next += self.pause(rules.background_rate);
        }
        self.rival = Some(next.max(now));
    }

    fn pause(&mut self, rate: u16) -> Duration {
        let chance = (f64::from(self.rng.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
        Duration::from_secs_f64(-chance.ln() / f64::from(rate))
    }

    fn any(&mut self, rules: &Rules) -> u16 {
        shift(rules, rules.ports.0, (self.rng.next_u32() % count(rules)).cast_signed())
    }
}

/// As many steps as there are ports, from 1.
fn every(rules: &Rules) -> impl Iterator<Item = i32> + use<> {
    1..=count(rules).cast_signed()
}

fn count(rules: &Rules) -> u32 {
    u32::from(rules.ports.1.saturating_sub(rules.ports.0)) + 1
}

/// So many ports further, going round within the range.
fn shift(rules: &Rules, port: u16, step: i32) -> u16 {
    let first = i64::from(rules.ports.0);
    let place = (i64::from(port) - first + i64::from(step)).rem_euclid(i64::from(count(rules)));
    u16::try_from(first + place).unwrap_or(rules.ports.0)
}
