//! Measures the server's memory per idle member of a rendezvous, with and without TLS.
//!
//! Members connect to the real program, enter parties of eight with records of a realistic size, and then stay idle.
//! The result is the growth of the server's resident memory divided by the number of members. It excludes the kernel's
//! memory for sockets, which is the same for every program.

mod crowd;
pub(crate) mod server;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use self::{crowd::Crowd, server::Server};

const WITHOUT_RELAY: &str = "[relay]\nenabled = false\n";

/// Options of the members benchmark.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Path of our server, built in release mode.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/partyline-server"))]
    server: PathBuf,
    /// Number of members.
    #[arg(long, default_value_t = 10_000)]
    members: usize,
    /// Number of members in each party.
    #[arg(long, default_value_t = 8)]
    party: usize,
    /// Size of each member's record in bytes.
    #[arg(long, default_value_t = 600)]
    record: usize,
}

/// A measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    transport: &'static str,
    /// Resident memory of the server without members, in bytes.
    empty: u64,
    /// Resident memory of the server with all members idle, in bytes.
    full: u64,
    members: usize,
}

impl Sample {
    fn per_member(&self) -> f64 {
        self.full.saturating_sub(self.empty) as f64 / self.members as f64
    }

    fn per_gib(&self) -> f64 {
        f64::from(1 << 30) / self.per_member()
    }
}

/// Runs the benchmark, prints a table and returns `{"members": …}`.
///
/// # Errors
/// Returns an error if the server does not start, or members cannot connect.
pub fn run(options: &Options) -> Result<Value> {
    ensure!(options.server.exists(), "build it first: cargo build --release -p partyline-server");
    let runtime = Builder::new_current_thread().enable_all().build()?;
    println!(
        "{:<6} {:>8} {:>11} {:>11} {:>12} {:>14}",
        "", "members", "empty MiB", "full MiB", "bytes each", "members/GiB"
    );
    let mut results = Vec::new();
    for secure in [false, true] {
        let sample = runtime.block_on(measure(options, secure))?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{:<6} {:>8} {:>11.1} {:>11.1} {:>12.0} {:>14.0}",
            sample.transport,
            sample.members,
            mib(sample.empty),
            mib(sample.full),
            sample.per_member(),
            sample.per_gib()
        );
        results.push(json!({
            "transport": sample.transport,
            "members": sample.members,
            "record_bytes": options.record,
            "bytes_per_member": sample.per_member().round(),
            "members_per_gib": sample.per_gib().round(),
        }));
    }
    Ok(json!({ "members": results }))
}

async fn measure(options: &Options, secure: bool) -> Result<Sample> {
    let server = Server::start(&options.server, secure, WITHOUT_RELAY)?;
    // One member connects and leaves first, so that memory allocated once is not counted.
    drop(Crowd::gather(&server, 1, options.party, options.record).await?);
    let empty = server.resident()?;
    let crowd = Crowd::gather(&server, options.members, options.party, options.record).await?;
    let full = server.resident()?;
    let transport = if secure { "wss" } else { "ws" };
    Ok(Sample { transport, empty, full, members: crowd.len() })
}
