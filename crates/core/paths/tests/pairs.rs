//! All 378 pairs of the 27 NAT types: every pair that can have a direct path gets one, and soon.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Nat, World};
use partyline_model::{Allocation, Filtering, Mapping, Method};
use partyline_nat::{Rules, oracle};
use partyline_paths::{Config, RelayTransport};

/// The outcome of one pair.
struct Result {
    one: String,
    other: String,
    possible: bool,
    first: Option<Duration>,
    direct: Option<Duration>,
    method: Option<Method>,
    lost: usize,
    doubled: usize,
    sockets: usize,
    datagrams: usize,
}

/// Two members behind such NATs, whose behavior both have measured.
fn measured_pair(one: Rules, other: Rules, seed: u64) -> World {
    let mut world = World::with_seed(seed);
    for rules in [one, other] {
        let home = world.home(Nat::Other(rules), Config::default());
        world.measure_nat(home);
    }
    world
}

/// Lets both gather candidates and allocate relayed addresses at the same time, and announce what they find.
fn go_online(world: &mut World) {
    for home in 0..2 {
        world.gather(home);
        world.set_relays(home, &[RelayTransport::Udp]);
    }
}

fn run_pair(one: Rules, other: Rules, seed: u64, span: Duration, (loss, jitter): (f64, u64)) -> Result {
    let mut world = measured_pair(one, other, seed);
    if loss > 0.0 {
        world.add_loss_and_jitter(seed, loss, Duration::from_millis(jitter));
    }
    go_online(&mut world);
    let first = world.exchange_until(span, World::has_paths).then(|| world.net.elapsed());
    let direct = world.exchange_until(span, World::is_direct).then(|| world.net.elapsed());
    let datagrams = world.homes.iter().map(|home| home.sent_packets).sum();
    let sockets = world.homes.iter().map(|home| home.most_sockets).max().unwrap();
    let method = world.method();
    // The path has to carry packets and to last.
    world.exchange_until(Duration::from_secs(2), |_| false);
    world.run(Duration::from_secs(1));
    let direct = direct.filter(|_| world.is_direct());
    let lost = world.missing(&world.sent).len();
    let doubled = world.homes.iter().map(|home| home.duplicates).sum();
    Result {
        one: one.short(),
        other: other.short(),
        possible: oracle::direct(&one, &other).is_ok(),
        first,
        direct,
        method,
        lost,
        doubled,
        sockets,
        datagrams,
    }
}

fn pairs() -> Vec<(Rules, Rules)> {
    let all: Vec<Rules> = Rules::all_types(2).collect();
    let pair = |one: usize| all[one..].iter().map(move |other| (one, *other));
    (0..all.len()).flat_map(pair).map(|(one, other)| (all[one], other)).collect()
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

fn report(title: &str, results: &[Result], loses: bool) {
    println!("{title}");
    let line = |name: &str, mut times: Vec<Duration>, of: usize| {
        let (p50, p95) = (percentile(&mut times, 0.5), percentile(&mut times, 0.95));
        let most = times.last().copied().unwrap_or_default();
        println!("  {name:24} {:4} of {of:4}  p50 {p50:?}  p95 {p95:?}  max {most:?}", times.len());
    };
    line("first packet", results.iter().filter_map(|r| r.first).collect(), results.len());
    let possible: Vec<&Result> = results.iter().filter(|r| r.possible).collect();
    line("direct", possible.iter().filter_map(|r| r.direct).collect(), possible.len());
    for method in [Method::Punch, Method::Predict, Method::Spray] {
        let by: Vec<Duration> =
            possible.iter().filter(|r| r.method == Some(method)).filter_map(|r| r.direct).collect();
        let of = by.len();
        line(&format!("  by {method:?}"), by, of);
    }
    for r in results {
        let wrong = r.possible != r.direct.is_some() || (r.lost > 0 && !loses);
        if wrong || std::env::var_os("ALL").is_some() {
            println!(
                "  {} {} {}: direct {:?} by {:?}, lost {}, doubled {}, {} sockets, {} datagrams",
                if wrong { "!" } else { " " },
                r.one,
                r.other,
                r.direct,
                r.method,
                r.lost,
                r.doubled,
                r.sockets,
                r.datagrams
            );
        }
    }
}

/// Runs all pairs, or the one that is named as `ONLY="EI/PD/PP PD/HD/RD"`.
fn run_all(line: (f64, u64), span: Duration) -> Vec<Result> {
    let only = std::env::var("ONLY").ok();
    let named = |one: &Rules, other: &Rules| {
        only.as_ref().is_none_or(|only| *only == format!("{} {}", one.short(), other.short()))
    };
    // Each pair has a seed of its own.
    let all = (1..).zip(pairs()).filter(|(_, (one, other))| named(one, other));
    all.map(|(seed, (one, other))| run_pair(one, other, seed, span, line)).collect()
}

fn is_named(one: &Rules, other: &Rules) -> bool {
    let only = std::env::var("ONLY").ok();
    only.is_none_or(|only| only == format!("{} {}", one.short(), other.short()))
}

/// Returns true if one side has to be found by trying ports: its own are random, and the other cannot be reached at a
/// port that is known.
fn is_sprayed((one, other): &(Rules, Rules)) -> bool {
    let random = |rules: &Rules| {
        rules.mapping != Mapping::EndpointIndependent && rules.allocation == Allocation::Random
    };
    let open = |rules: &Rules| rules.filtering != Filtering::AddressAndPortDependent;
    let anybody = |rules: &Rules| rules.filtering == Filtering::EndpointIndependent;
    oracle::direct(one, other).is_ok()
        && match (random(one), random(other)) {
            (true, true) => !(anybody(one) && open(other) || anybody(other) && open(one)),
            (true, false) => !open(other),
            (false, true) => !open(one),
            (false, false) => false,
        }
}

fn missed(results: &[Result]) -> usize {
    results.iter().filter(|r| r.possible && r.direct.is_none()).count()
}

#[test]
fn every_possible_pair_gets_a_direct_path() {
    let results = run_all((0.0, 0), Duration::from_secs(30));
    report("378 pairs, 20 ms one way", &results, false);
    assert_eq!(missed(&results), 0, "pairs that could be direct are not");
    assert!(results.iter().all(|r| r.lost == 0), "messages were lost");
}

/// `SEEDS` sets how often each pair is run, to measure times.
#[test]
fn sprays_succeed_whatever_the_ports() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_u64);
    let pairs: Vec<_> =
        pairs().into_iter().filter(|pair| is_sprayed(pair) && is_named(&pair.0, &pair.1)).collect();
    let span = Duration::from_secs(60);
    let run =
        |seed| pairs.iter().map(move |(one, other)| run_pair(*one, *other, 1000 + seed, span, (0.0, 0)));
    let results: Vec<Result> = (0..seeds).flat_map(run).collect();
    report("pairs that have to try ports", &results, false);
    assert_eq!(missed(&results), 0, "pairs that could be direct are not");
}

#[test]
fn every_possible_pair_gets_a_direct_path_despite_loss_and_jitter() {
    let results = run_all((0.05, 30), Duration::from_secs(60));
    report("378 pairs, 20 ms one way, 5 % lost, up to 30 ms later", &results, true);
    assert!(results.iter().all(|r| r.first.is_some()), "a member is not reached at all");
    assert_eq!(missed(&results), 0, "pairs that could be direct are not");
}

#[test]
fn direct_paths_outlive_ten_idle_minutes() {
    let possible = |(one, other): &(Rules, Rules)| is_named(one, other) && oracle::direct(one, other).is_ok();
    let mut lost = Vec::new();
    for (one, other) in pairs().into_iter().filter(possible) {
        let mut world = measured_pair(one, other, 2);
        go_online(&mut world);
        world.exchange_until(Duration::from_secs(30), World::is_direct);
        world.exchange_until(Duration::from_secs(2), |_| false);
        // Until both sides use the pair that one of them has nominated.
        world.run(Duration::from_secs(30));
        let changes = |world: &World| world.homes.iter().map(|home| home.changes.len()).sum::<usize>();
        let before = changes(&world);
        // Five times the mapping timeout. The network check keeps alive only the mappings that servers have seen.
        for _ in 0..40 {
            (0..2).for_each(|home| assert!(world.reflexive(home).is_some()));
            world.run(Duration::from_secs(15));
        }
        if changes(&world) != before || !world.is_direct() {
            lost.push(format!("{} {}", one.short(), other.short()));
        }
    }
    assert_eq!(lost, Vec::<String>::new(), "paths did not last");
}
