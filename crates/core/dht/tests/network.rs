//! Lookups in networks of many nodes, in virtual time. `cargo xtask bench dht` prints figures of a larger network.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use partyline_tests_netsim::dht::{DhtMix, DhtNetwork, Start, Trial, TrialResult};

const HEALTHY: DhtMix = DhtMix::HEALTHY;
const FROM_CACHE: Trial = Trial { start: Start { cached: 20, gone: 0, routers: 1 }, leave: 0.1 };
const TRIALS: usize = 20;

/// Runs trials, and returns how many writes and reads succeeded, and their results.
#[allow(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn run(mix: DhtMix, trial: Trial) -> (usize, usize, Vec<TrialResult>) {
    let mut network = DhtNetwork::new(1, mix);
    let now = Instant::now();
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let (written, read) = trial.run(&mut network, now);
        writes.extend(written);
        reads.push(read);
    }
    let successes = |results: &[TrialResult]| results.iter().filter(|result| result.success).count();
    (successes(&writes), successes(&reads), [writes, reads].concat())
}

fn most(results: &[TrialResult], of: impl Fn(&TrialResult) -> Duration) -> Duration {
    results.iter().map(of).max().unwrap()
}

#[test]
fn healthy_network_stores_and_finds_everything_with_few_packets() {
    let (written, read, results) = run(HEALTHY, FROM_CACHE);
    assert_eq!((written, read), (2 * TRIALS, TRIALS));
    assert!(most(&results, |result| result.took) < Duration::from_secs(4));
    assert!(results.iter().all(|result| result.packets < 90), "{results:?}");
}

#[test]
fn same_seed_gives_the_same_run() {
    let took =
        || run(HEALTHY, FROM_CACHE).2.iter().map(|result| (result.took, result.packets)).collect::<Vec<_>>();
    assert_eq!(took(), took());
}

#[test]
fn routers_alone_suffice_to_start() {
    let trial = Trial { start: Start { cached: 0, gone: 0, routers: 1 }, ..FROM_CACHE };
    let (written, read, _) = run(HEALTHY, trial);
    assert_eq!((written, read), (2 * TRIALS, TRIALS));
}

#[test]
fn cached_nodes_alone_suffice_if_half_of_them_answer() {
    let trial = Trial { start: Start { cached: 10, gone: 10, routers: 0 }, ..FROM_CACHE };
    let (written, read, _) = run(HEALTHY, trial);
    assert_eq!((written, read), (2 * TRIALS, TRIALS));
}

#[test]
fn bad_network_stores_and_finds_everything() {
    let mix =
        DhtMix { dead: 0.5, without_items: 0.4, loss: 0.05, rtt: Duration::from_millis(180), ..HEALTHY };
    let (written, read, _) = run(mix, FROM_CACHE);
    assert_eq!((written, read), (2 * TRIALS, TRIALS));
}

#[test]
fn attackers_hide_nothing() {
    let mix = DhtMix { dead: 0.1, hostile: 0.15, sybils: 16, ..HEALTHY };
    let (written, read, _) = run(mix, FROM_CACHE);
    assert_eq!((written, read), (2 * TRIALS, TRIALS));
}
