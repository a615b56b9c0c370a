//! The DHT client in a simulated network: share of success, time and packets of writes and reads.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use partyline_tests_netsim::dht::{DhtMix, DhtNetwork, Start, Trial, TrialResult};
use serde_json::{Value, json};

/// Options of the DHT benchmark.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Nodes of the network.
    #[arg(long, default_value_t = 100_000)]
    nodes: usize,
    /// Trials for each row: two writes and one read each.
    #[arg(long, default_value_t = 1000)]
    trials: usize,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

struct Row {
    name: &'static str,
    mix: DhtMix,
    trial: Trial,
}

/// Runs the benchmark and returns its figures.
///
/// # Errors
/// Never; the signature is that of all benchmarks.
pub fn run(options: &Options) -> Result<Value> {
    println!("| network | | success | p50 | p95 | packets |");
    println!("|---|---|---|---|---|---|");
    let mut figures = Vec::new();
    for row in rows(options.nodes) {
        let mut network = DhtNetwork::new(options.seed, row.mix);
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for _ in 0..options.trials {
            let (written, read) = row.trial.run(&mut network, now);
            writes.extend(written);
            reads.push(read);
        }
        figures.push(json!({ "network": row.name, "write": report(row.name, "write", writes), "read": report("", "read", reads) }));
    }
    Ok(json!({ "dht": figures }))
}

fn rows(nodes: usize) -> Vec<Row> {
    let healthy = DhtMix { nodes, ..DhtMix::HEALTHY };
    let cache = Start { cached: 20, gone: 0, routers: 1 };
    let trial = Trial { start: cache, leave: 0.1 };
    let bad =
        DhtMix { dead: 0.5, without_items: 0.4, loss: 0.05, rtt: Duration::from_millis(180), ..healthy };
    vec![
        Row { name: "healthy", mix: healthy, trial },
        Row {
            name: "healthy, first start with one router",
            mix: healthy,
            trial: Trial { start: Start { cached: 0, gone: 0, routers: 1 }, ..trial },
        },
        Row {
            name: "30 % dead, 20 % of the others without BEP 44",
            mix: DhtMix { dead: 0.3, without_items: 0.2, ..healthy },
            trial,
        },
        Row { name: "50 % dead, 40 % without BEP 44, 5 % loss each way, RTT 180 ms", mix: bad, trial },
        Row {
            name: "10 % dead, 15 % hostile, 16 Sybils at each target",
            mix: DhtMix { dead: 0.1, hostile: 0.15, sybils: 16, ..healthy },
            trial,
        },
        Row {
            name: "30 % dead, 20 % without BEP 44; 20 cached nodes alone, half of them gone",
            mix: DhtMix { dead: 0.3, without_items: 0.2, ..healthy },
            trial: Trial { start: Start { cached: 10, gone: 10, routers: 0 }, ..trial },
        },
    ]
}

/// Prints a line of the table and returns its figures.
fn report(network: &str, operation: &str, mut results: Vec<TrialResult>) -> Value {
    let total = results.len();
    let success = results.iter().filter(|result| result.success).count();
    results.sort_by_key(|result| result.took);
    let seconds =
        |percent: usize| results.get(total * percent / 100).map_or(0.0, |result| result.took.as_secs_f64());
    let packets = results.iter().map(|result| result.packets).sum::<usize>() as f64 / total.max(1) as f64;
    let (p50, p95) = (seconds(50), seconds(95));
    println!("| {network} | {operation} | {success} of {total} | {p50:.2} s | {p95:.2} s | {packets:.0} |");
    json!({ "success": success, "of": total, "p50": p50, "p95": p95, "packets": packets })
}
