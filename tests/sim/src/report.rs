//! Prints statistics beside the bars that they have to meet.

use std::cmp::Reverse;

use crate::{
    crowd::Played,
    figures::{Figures, Reached, Spread},
    scale::Scale,
    watch::{Outage, Trouble},
};

/// How many of the longest outages are named.
const MAX_NAMED_OUTAGES: usize = 8;

/// The bar for lines without loss and of 20 ms one way. Random lines are worse; here it stands for comparison.
struct Bar {
    p50: Option<f64>,
    p95: f64,
}

const FIRST_PACKET: Option<Bar> = Some(Bar { p50: Some(400.0), p95: 1000.0 });
const CHECKED: Option<Bar> = Some(Bar { p50: Some(400.0), p95: 1000.0 });
const HARD: Option<Bar> = Some(Bar { p50: Some(4000.0), p95: 12_000.0 });

/// Prints the statistics of some parties.
pub fn print(name: &str, figures: &Figures) {
    let Figures { parties, pairs, .. } = figures;
    println!("{name}: {parties} parties, {pairs} pairs");
    println!(
        "  direct {:.2} % of all (bar 95), {:.2} % of the {:.2} % that can be",
        figures.direct * 100.0,
        figures.direct_of_possible() * 100.0,
        figures.possible * 100.0,
    );
    for (why, count) in &figures.impossible {
        println!("    {:5.2} % cannot: {why}", *count as f64 * 100.0 / (*pairs).max(1) as f64);
    }
    line("first packet, ms", &figures.first_packet_ms, FIRST_PACKET);
    reached("direct on one LAN, ms", &figures.lan, None);
    reached("direct by checks, ms", &figures.checked, CHECKED);
    reached("direct, hard pairs, ms", &figures.hard, HARD);
    reached("direct beside another VPN, ms", &figures.beside_vpn, None);
    for (trouble, spread) in &figures.outage_ms {
        line(&format!("outage, {trouble}, ms"), spread, bar_of(trouble));
        if let Some(alone) = figures.outage_alone_ms.get(trouble) {
            line(&format!("outage, {trouble} and nothing else, ms"), alone, bar_of(trouble));
        }
    }
    line("copy stood back, ms", &figures.copies_ms, None);
    line("rest, ms", &figures.rest_ms, None);
    line("messages per pair", &figures.messages_per_pair, None);
}

/// Prints the seeds of the longest outages after trouble that happened alone.
pub fn print_worst(played: &[Played]) {
    for trouble in Trouble::ALL {
        let outages = played
            .iter()
            .flat_map(|played| played.outcome.outages.iter().map(|outage| (played.seed, outage)));
        let mut longest: Vec<_> =
            outages.filter(|(_, outage)| outage.trouble == trouble && outage.alone).collect();
        longest.sort_by_key(|(_, outage)| Reverse(outage.span));
        longest.dedup_by_key(|(seed, _)| *seed);
        let describe = |(seed, outage): &(u64, &Outage)| format!("{seed} ({} ms)", outage.span.as_millis());
        let seeds: Vec<String> = longest.iter().take(MAX_NAMED_OUTAGES).map(describe).collect();
        println!("longest outages, {} and nothing else: seeds {}", trouble.name(), seeds.join(", "));
    }
}

fn reached(what: &str, reached: &Reached, bar: Option<Bar>) {
    let Reached { pairs, direct, direct_ms } = reached;
    if *pairs > 0 {
        line(&format!("{what}: {direct} of {pairs}"), direct_ms, bar);
    }
}

fn bar_of(trouble: &str) -> Option<Bar> {
    let most = match trouble {
        "direct path cut" => 1000.0,
        "another network" | "woke" => 2000.0,
        _ => return None,
    };
    Some(Bar { p50: None, p95: most })
}

fn line(what: &str, spread: &Spread, bar: Option<Bar>) {
    let Spread { count, p50, p95, p99, max } = spread;
    let bar = bar.map_or(String::new(), |Bar { p50, p95 }| match p50 {
        Some(p50) => format!("   bar p50 {p50:.0}, p95 {p95:.0}"),
        None => format!("   bar {p95:.0}"),
    });
    println!("  {what:48} p50 {p50:7.0}  p95 {p95:7.0}  p99 {p99:7.0}  max {max:7.0}  of {count}{bar}");
}

/// Prints the cost of members in large parties.
pub fn print_scale(scale: &Scale) {
    let Scale { members, parties, mesh_ms, mesh_cpu_ms, mesh_messages, .. } = scale;
    println!(
        "{members:4} members, {parties} parties: connected after {mesh_ms:.0} ms; for each peer a member"
    );
    println!(
        "       spends {mesh_cpu_ms:.2} ms of processor time and {mesh_messages:.1} messages in the first 30 s,"
    );
    println!(
        "       and at rest {:.2} ms a minute, {:.2} datagrams in 15 s (bar: a keepalive and its answer every 4 s, or every 15 s from 30 peers on); woken {:.1} times a second",
        scale.rest_cpu_ms, scale.rest_datagrams, scale.rest_wakes,
    );
}
