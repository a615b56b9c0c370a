//! Benchmarks: each prints a table and, as the last line, one JSON object.

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;

/// Partyline beside the field's other programs.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The server as a whole: both of the following, with their defaults.
    Server,
    /// Memory of the rendezvous per idle member.
    Members(partyline_tests_bench::members::Options),
    /// What a member of a large party costs its computer: real nodes on real sockets of the loopback.
    Mesh(partyline_tests_bench::mesh::Options),
    /// The relay beside coturn.
    Relay(partyline_tests_bench::relay::Options),
}

/// A benchmark's options as they are when none is given.
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
        Benchmark::Members(options) => partyline_tests_bench::members::run(&options)?,
        Benchmark::Mesh(options) => partyline_tests_bench::mesh::run(&options)?,
        Benchmark::Relay(options) => partyline_tests_bench::relay::run(&options)?,
    };
    println!("{result}");
    Ok(())
}
