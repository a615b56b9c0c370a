//! How long two members take to reach each other in virtual time: 20 ms one way between everything, 40 ms for
//! signalling; without loss, and with 5 % loss and 30 ms jitter. Prints one JSON object per line.

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use partyline_model::PathKind;
use partyline_paths::Config;

use self::world::{Nat, pair};

const RUNS: u32 = 200;

fn main() {
    for kind in [PathKind::Direct, PathKind::Relay] {
        for lossy in [false, true] {
            let mut times: Vec<Duration> = (1..=RUNS).map(|seed| connect(kind, lossy, seed)).collect();
            times.sort();
            let at = |share: usize| times.get(share * (times.len() - 1) / 100).map_or(0, Duration::as_millis);
            let (p50, p95, max) = (at(50), at(95), at(100));
            println!(
                "{{\"path\":\"{kind:?}\",\"lossy\":{lossy},\"runs\":{RUNS},\"p50_ms\":{p50},\"p95_ms\":{p95},\"max_ms\":{max}}}"
            );
        }
    }
}

/// Time until both have a path of this kind.
fn connect(kind: PathKind, lossy: bool, seed: u32) -> Duration {
    let config = Config { direct: kind == PathKind::Direct, ..Config::default() };
    let mut world = pair(Nat::Cone, Nat::Cone, config);
    if lossy {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let mut dice = random;
        world.lost = Box::new(move |_| dice() % 20 == 0);
        world.delay = Box::new(move |_| Duration::from_millis(u64::from(random() % 30)));
    }
    let both = |w: &world::World| w.kind(0, 1) == Some(kind) && w.kind(1, 0) == Some(kind);
    world.run_to(Duration::from_secs(30), "a path", both)
}
