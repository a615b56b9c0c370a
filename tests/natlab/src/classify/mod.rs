//! Tests whether the network check recognizes every network: all 27 types of NAT, the kernel's NAT, and special cases.
//!
//! Each network is a home at the end of a line, and the real check runs in it from real sockets, against the real
//! server; with `--program`, the real `partyline netcheck` does. Servers are one with two addresses and two ports (RFC 5780), or
//! two that have one each, as most public STUN servers do; then a member elsewhere may help with a second port.

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

/// Networks that are checked at the same time.
const MAX_PARALLEL: usize = 4;

/// What to classify, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Ends with one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Only networks whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Only some that have everything once; takes a few seconds.
    #[arg(long)]
    spread: bool,
    /// Lets `partyline netcheck` ask instead of the library it is made of.
    #[arg(long)]
    program: bool,
    /// Servers to ask.
    #[arg(long, value_enum, default_value_t = Servers::Full)]
    servers: Servers,
    /// Of a hundred packets each way, so many are lost.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: u8,
    /// Milliseconds that a packet takes more, at most.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// Milliseconds that a packet takes one way.
    #[arg(long, default_value_t = 20)]
    latency: u64,
}

/// Classifies networks and prints how that went.
///
/// # Errors
/// None is chosen, or the lab cannot be made.
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

/// A computer with an address that no carrier would give to one of the homes too.
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
