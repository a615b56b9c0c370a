//! Tests whether the network check recognizes every network: all 27 types of NAT, the kernel's NAT, and special cases.
//!
//! Each network is a home at the end of a line. The real check runs in it with real sockets against the real server;
//! with `--program`, the real `partyline netcheck` runs instead. There is either one server with two addresses and two
//! ports (RFC 5780), or two servers with one address and one port each, as most public STUN servers have. In the latter
//! case, another member may help with a second port.

mod friend;
mod measure;
mod networks;
mod report;
mod servers;
mod verdict;

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;

pub use self::servers::Servers;
use self::{
    measure::Question,
    networks::{Network, networks},
    report::Row,
    verdict::Verdict,
};
use crate::{Host, Lab, Line, parallel::run_parallel, party::World, sweep::sweep};

/// Number of networks that are checked in parallel.
const MAX_PARALLEL: usize = 4;

/// Options of `natlab classify`.
#[derive(Debug, Args)]
pub struct Options {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Checks only networks whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Checks only a selection that has every behavior at least once; takes a few seconds.
    #[arg(long)]
    spread: bool,
    /// Runs `partyline netcheck` instead of the library that it is built on.
    #[arg(long)]
    program: bool,
    /// Servers to use.
    #[arg(long, value_enum, default_value_t = Servers::Full)]
    servers: Servers,
    /// Packets lost in each direction, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: u8,
    /// Maximum additional delay of a packet, in milliseconds.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// One-way latency, in milliseconds.
    #[arg(long, default_value_t = 20)]
    latency: u64,
}

/// Classifies networks and prints the results.
///
/// # Errors
/// Returns an error if no network matches, or the lab cannot be built.
pub fn run(options: &Options) -> Result<ExitCode> {
    sweep()?;
    let wanted = |network: &Network| {
        options.only.as_ref().is_none_or(|name| network.name.contains(name.as_str()))
            && (!options.spread || network.in_spread)
    };
    let chosen: Vec<_> = networks().into_iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no network of that name");
    let line = Line {
        latency: Duration::from_millis(options.latency),
        jitter: Duration::from_millis(options.jitter),
        loss: u16::from(options.loss) * 10,
    };
    let world = World::new()?;
    let (_running, servers) = options.servers.start(&world)?;
    let program = options.program.then(|| world.program("partyline"));
    ensure!(
        program.is_none() || options.servers != Servers::Friend,
        "the program meets friends in parties only"
    );
    let friend = (options.servers == Servers::Friend).then(|| far_host(&world.lab, line)).transpose()?;
    let question = Question { servers, program, friend, ..Question::default() };
    let rows = run_parallel(MAX_PARALLEL, &chosen, |number, network| {
        one(&world.lab, network, number, line, options.servers, question.clone())
    });
    if options.json {
        println!("{}", report::object(&rows, line));
    } else {
        report::print(&rows, line);
    }
    Ok(if rows.iter().all(Row::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Creates a host with an address from another subnet than those of the homes.
fn far_host(lab: &Lab, line: Line) -> Result<(Host, Ipv4Addr)> {
    let host = lab.open_host("friend", line)?;
    let (v4, _) = lab.second_addresses(&host)?;
    Ok((host, v4))
}

fn one(lab: &Lab, network: &Network, number: usize, line: Line, kind: Servers, question: Question) -> Row {
    let router = question.program.is_none();
    match network.measure(lab, number, line, question) {
        Ok(said) => Row::new(network, &said, Verdict::of(&network.truth, &said, kind, router)),
        Err(error) => Row::failed(network, &error),
    }
}
