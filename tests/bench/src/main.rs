//! Runs benchmarks. Each prints a table and, on the last line, one JSON object.

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;

/// Benchmarks Partyline, and comparable programs for reference.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Runs the benchmarks `members` and `relay` with their defaults.
    Server,
    /// Measures reads and writes of the DHT client in simulated networks.
    Dht(partyline_tests_bench::dht::Options),
    /// Measures what a flood of handshake messages costs a member.
    Handshakes(partyline_tests_bench::handshakes::Options),
    /// Measures the memory of the rendezvous server per idle member.
    Members(partyline_tests_bench::members::Options),
    /// Measures the cost of a large party for each member, with real nodes on loopback sockets.
    Mesh(partyline_tests_bench::mesh::Options),
    /// Compares the relay with coturn.
    Relay(partyline_tests_bench::relay::Options),
}

/// Parses a benchmark's options as if none were given.
#[derive(Debug, Parser)]
struct Defaults<Options: clap::Args> {
    #[command(flatten)]
    options: Options,
}

fn defaults<Options: clap::Args>() -> Options {
    Defaults::parse_from(["bench"]).options
}

fn main() -> Result<()> {
    let result = match Arguments::parse().benchmark {
        Benchmark::Server => {
            let relay = partyline_tests_bench::relay::run(&defaults())?;
            let members = partyline_tests_bench::members::run(&defaults())?;
            json!({ "server": [relay, members] })
        }
        Benchmark::Dht(options) => partyline_tests_bench::dht::run(&options)?,
        Benchmark::Handshakes(options) => partyline_tests_bench::handshakes::run(&options)?,
        Benchmark::Members(options) => partyline_tests_bench::members::run(&options)?,
        Benchmark::Mesh(options) => partyline_tests_bench::mesh::run(&options)?,
        Benchmark::Relay(options) => partyline_tests_bench::relay::run(&options)?,
    };
    println!("{result}");
    Ok(())
}
