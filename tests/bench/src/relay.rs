//! Compares the relay with coturn. Both run on one core, with load from another, and packets of a game's size.
//!
//! Two paths through a relay are measured. *Peer*: a client sends ChannelData, the relay forwards it to a peer, the
//! peer echoes it, and the relay forwards it to the client. That makes two relayed packets. *Member*: two clients are
//! each other's peer by their relayed addresses, as Partyline's members are. A packet from client to client is one
//! relayed packet.
//!
//! The most reliable result is the processor time per relayed packet: the rate also depends on how fast the load is
//! generated.

mod client;
mod load;
mod server;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use self::{
    load::{Load, Way},
    server::{Cores, Server},
};

/// Options of the relay benchmark.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Path of our server, built in release mode.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/partyline-server"))]
    server: PathBuf,
    /// Path of coturn's `turnserver`.
    #[arg(long, default_value = "/usr/bin/turnserver")]
    coturn: PathBuf,
    /// Numbers of allocations to measure, in ascending order.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000")]
    allocations: Vec<usize>,
    /// Duration of a measurement in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Number of measurements, whose median is reported.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Size of the payload in bytes.
    #[arg(long, default_value_t = 200)]
    payload: usize,
}

/// A measurement, or the median of several.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    /// Relayed packets per second.
    rate: f64,
    /// Processor time of the server per relayed packet, in microseconds.
    cpu_us: f64,
    /// Fraction of packets lost.
    loss: f64,
}

/// Runs the benchmark, prints a table and returns `{"relay": …}`.
///
/// # Errors
/// Returns an error if a program is missing, a server does not start, or an allocation fails.
pub fn run(options: &Options) -> Result<Value> {
    let most = server::raise_file_limit()?;
    let cores = Cores::choose()?;
    cores.pin_this()?;
    let mut subjects =
        vec![Subject::start("partyline", Server::partyline(&options.server, cores)?, options)?];
    subjects.push(Subject::start("coturn", Server::coturn(&options.coturn, cores)?, options)?);
    println!(
        "{:>9} {:>6} {:>11} {:>12} {:>10} {:>7} {:>14}",
        "way", "alloc", "server", "packets/s", "us/packet", "loss", "bytes/alloc"
    );
    let mut rows = Vec::new();
    for asked in &options.allocations {
        let count = most.min(*asked);
        if count < *asked {
            println!("only {count} allocations instead of {asked}: the limit of open files is too low");
        }
        for subject in &mut subjects {
            subject.grow(count)?;
        }
        for way in [Way::Peer, Way::Member] {
            rows.extend(measure(&mut subjects, way, count, options)?);
        }
    }
    Ok(json!({ "relay": { "payload": options.payload, "rows": rows } }))
}

fn measure(subjects: &mut [Subject], way: Way, count: usize, options: &Options) -> Result<Vec<Value>> {
    let mut samples = vec![Vec::new(); subjects.len()];
    for _ in 0..options.repeat {
        // The servers take turns, so that other load on the machine affects both.
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            samples.push(subject.sample(way, options)?);
        }
    }
    Ok(subjects.iter().zip(samples).map(|(subject, samples)| subject.report(way, count, &samples)).collect())
}

struct Subject {
    name: &'static str,
    server: Server,
    load: Load,
    empty_bytes: u64,
    bytes_per_allocation: f64,
}

impl Subject {
    fn start(name: &'static str, server: Server, options: &Options) -> Result<Self> {
        let mut load = Load::new(server.address, options.payload)?;
        // The first allocations make the program touch its memory for the first time.
        load.grow(options.allocations.first().copied().unwrap_or(10))?;
        load.run(Way::Peer, Duration::from_millis(200))?;
        let empty_bytes = server.resident_bytes()?;
        Ok(Self { name, server, load, empty_bytes, bytes_per_allocation: 0.0 })
    }

    fn grow(&mut self, count: usize) -> Result<()> {
        let first = self.load.len();
        self.load.grow(count)?;
        let base = self.load.base;
        if count > first {
            let more = self.server.resident_bytes()?.saturating_sub(self.empty_bytes);
            self.bytes_per_allocation = more as f64 / (count - base) as f64;
        }
        Ok(())
    }

    fn sample(&mut self, way: Way, options: &Options) -> Result<Sample> {
        let before = self.server.cpu_seconds()?;
        let outcome = self.load.run(way, Duration::from_secs_f64(options.seconds))?;
        let cpu = self.server.cpu_seconds()? - before;
        Ok(Sample {
            rate: outcome.relayed as f64 / outcome.seconds,
            cpu_us: cpu * 1e6 / outcome.relayed.max(1) as f64,
            loss: outcome.lost as f64 / outcome.sent.max(1) as f64,
        })
    }

    fn report(&self, way: Way, count: usize, samples: &[Sample]) -> Value {
        let of = |pick: fn(&Sample) -> f64| median(samples.iter().map(pick).collect());
        let (rate, cpu_us, loss) = (of(|s| s.rate), of(|s| s.cpu_us), of(|s| s.loss));
        let (way, memory) = (way.name(), self.bytes_per_allocation);
        println!(
            "{way:>9} {count:>6} {:>11} {rate:>12.0} {cpu_us:>10.2} {:>6.2}% {memory:>14.0}",
            self.name,
            loss * 100.0
        );
        json!({
            "way": way, "allocations": count, "server": self.name, "packets_per_second": rate,
            "cpu_us_per_packet": cpu_us, "loss": loss, "bytes_per_allocation": memory,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
