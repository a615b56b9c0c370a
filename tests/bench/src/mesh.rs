//! Measures the cost of a large party for each member, while members connect and at rest.
//!
//! Every member is the real node with a UDP socket on an address of its own in 127.0.0.0/8, and a WebSocket to the real
//! server, which also relays. The network is not simulated: datagrams go through the kernel. There are no TUN devices,
//! since no game runs. All members run in this process, and each is charged an equal share of its processor time. That
//! includes the kernel's time for their packets, but not the server's.

mod member;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;
use partyline_model::DeviceId;
use serde_json::{Value, json};
use tokio::{runtime::Builder, time::sleep};

use self::member::{Counts, Member};
use crate::members::server::Server;

/// Number of pairs that connect before more members join, since one computer does the work of all.
const MAX_JOINING_PAIRS: usize = 512;
/// Time limit for these members to connect to all others.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(240);
/// Interval between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of members named in the error if some are not connected.
const MAX_NAMED_MEMBERS: usize = 12;
const RELAY: &str = "[relay]
listen = [\"127.0.0.1\"]
port = 0
alternate_port = 0
allow_private_peers = true
allocations_per_address = 10000
";

/// Options of the mesh benchmark.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Path of our server, built in release mode.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/partyline-server"))]
    server: PathBuf,
    /// Sizes of the parties to measure, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 128, 250])]
    members: Vec<usize>,
    /// Time at rest that is measured, after the same time unmeasured, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The cost for one member.
#[derive(Debug, Clone, Copy)]
struct Sample {
    members: usize,
    /// Time until all members had joined and were connected to each other.
    met: Duration,
    /// Processor time of a member until then.
    meeting: Duration,
    /// Number of datagrams that a member sent until then.
    meeting_datagrams: f64,
    /// Processor time of a member per second at rest.
    rest: Duration,
    /// Number of datagrams that a member sends per second at rest.
    rest_datagrams: f64,
}

/// Runs the benchmark, prints a table and returns `{"mesh": …}`.
///
/// # Errors
/// Returns an error if the server does not start, or members do not connect to each other.
pub fn run(options: &Options) -> Result<Value> {
    ensure!(options.server.exists(), "build it first: cargo build --release -p partyline-server");
    println!("{:>7} {:>8} | {:^31} | {:^47}", "", "all", "for each peer, until then", "at rest, each member");
    println!(
        "{:>7} {:>8} | {:>15} {:>15} | {:>10} {:>17} {:>18}",
        "members", "met, s", "processor, ms", "datagrams", "us/s", "us/s a peer", "datagrams/15 s a peer"
    );
    let mut results = Vec::new();
    for members in &options.members {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let sample = runtime.block_on(measure(options, *members))?;
        results.push(sample.show());
    }
    Ok(json!({ "mesh": results }))
}

impl Sample {
    /// Prints the sample as a line of the table, and returns it as JSON.
    fn show(self) -> Value {
        let Self { members, met, meeting, meeting_datagrams, rest, rest_datagrams } = self;
        let peers = (members - 1) as f64;
        let (met, meeting) = (met.as_secs_f64(), meeting.as_secs_f64() * 1e3 / peers);
        let (meeting_datagrams, rest) = (meeting_datagrams / peers, rest.as_secs_f64() * 1e6);
        let (rest_a_peer, datagrams) = (rest / peers, rest_datagrams * 15.0 / peers);
        println!(
            "{members:>7} {met:>8.1} | {meeting:>15.2} {meeting_datagrams:>15.1} | {rest:>10.0} {rest_a_peer:>17.1} {datagrams:>18.2}"
        );
        json!({
            "members": members, "met_s": met, "meeting_ms_a_peer": meeting,
            "meeting_datagrams_a_peer": meeting_datagrams, "rest_us_per_s": rest,
            "rest_us_per_s_a_peer": rest_a_peer, "rest_datagrams_in_15_s_a_peer": datagrams,
        })
    }
}

async fn measure(options: &Options, members: usize) -> Result<Sample> {
    let server = Server::start(&options.server, false, RELAY)?;
    let counts = Arc::new(Counts::default());
    let (start, begun) = (Instant::now(), processor_time()?);
    let host = Member::host(&server, &counts).await?;
    let mut all = vec![host];
    let mut pairs = 0;
    for number in 1..members {
        all.push(Member::guest(&server, &counts, number, &all[0].link).await?);
        pairs += number;
        if pairs >= MAX_JOINING_PAIRS || number + 1 == members {
            meet(&all).await?;
            pairs = 0;
        }
    }
    let (met, meeting) = (start.elapsed(), processor_time()? - begun);
    counts.rests.store(true, Ordering::Relaxed);
    let sent = counts.datagrams.load(Ordering::Relaxed);
    let span = Duration::from_secs(options.seconds);
    sleep(span).await;
    let (start, begun, before) =
        (Instant::now(), processor_time()?, counts.datagrams.load(Ordering::Relaxed));
    sleep(span).await;
    let (lasted, used) = (start.elapsed().as_secs_f64(), processor_time()? - begun);
    let rested = counts.datagrams.load(Ordering::Relaxed) - before;
    let each = members as f64;
    Ok(Sample {
        members,
        met,
        meeting: meeting.div_f64(each),
        meeting_datagrams: sent as f64 / each,
        rest: used.div_f64(each * lasted),
        rest_datagrams: rested as f64 / each / lasted,
    })
}

async fn meet(all: &[Member]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found: Vec<_> = all.iter().map(Member::found).collect();
        if found.iter().all(|found| found.len() == all.len() - 1) {
            return Ok(());
        }
        ensure!(begun.elapsed() < DISCOVERY_TIMEOUT, "{}", lacking(all, &found));
        sleep(POLL_INTERVAL).await;
    }
}

/// Describes the members that most others have not found, with the number of members that each has found itself.
fn lacking(all: &[Member], found: &[BTreeSet<DeviceId>]) -> String {
    let others = all.len() - 1;
    let unseen = |device| others - found.iter().filter(|found| found.contains(&device)).count();
    let mut members: Vec<_> = all.iter().zip(found).enumerate().collect();
    let count = members.iter().filter(|(_, (member, _))| unseen(member.device) > 0).count();
    members.sort_by_cached_key(|(_, (member, _))| Reverse(unseen(member.device)));
    let worst: Vec<_> = members
        .iter()
        .take(MAX_NAMED_MEMBERS)
        .map(|(number, (member, own))| format!("{number} by {} (found {})", unseen(member.device), own.len()))
        .collect();
    format!("{count} of {} members were not found by all others: {}", all.len(), worst.join(", "))
}

/// Returns the user and system time of this process so far.
fn processor_time() -> Result<Duration> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let span = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs())
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(span(usage.user_time()) + span(usage.system_time()))
}
