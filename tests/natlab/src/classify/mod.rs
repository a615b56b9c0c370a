//! Whether the check tells every network from inside: all 27 types of NAT, the kernel's own, and what else there is.
//!
//! Each network is a home at the end of a line, and the real check runs in it from real sockets, against the real
//! server; with `--program`, the real `partyline netcheck` does. Servers are one with two addresses and two ports (RFC 5780), or
//! two that have one each, as most public STUN servers do; then a member of the party elsewhere may lend its ports.

mod friend;
mod measure;
mod networks;
mod report;
mod verdict;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use partyline_netcheck::StunServer;

use self::{
    measure::Question,
    networks::{Network, networks},
    report::Row,
    verdict::Verdict,
};
use crate::{
    Host, Lab, Line,
    party::{Server, World},
    sweep::sweep,
};

/// The port of STUN.
const STUN: u16 = 3478;
/// Networks that are looked at side by side.
const AT_ONCE: usize = 4;

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

/// Which servers are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Servers {
    /// One with two addresses and two ports, as RFC 5780 wants.
    Full,
    /// Two with one address and one port each.
    Plain,
    /// The same, and a member elsewhere who lends two ports.
    Friend,
}

/// Classifies networks and prints how that went.
///
/// # Errors
/// When none is chosen, or the lab cannot be made.
pub fn play(options: &Options) -> Result<ExitCode> {
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
    let (_running, servers) = start(&world, options.servers)?;
    let program = options.program.then(|| world.program("partyline"));
    ensure!(
        program.is_none() || options.servers != Servers::Friend,
        "the program meets friends in parties only"
    );
    let friend = (options.servers == Servers::Friend).then(|| far_host(&world.lab, line)).transpose()?;
    let question = Question { servers, program, friend, ..Question::default() };
    let rows = all(&world.lab, &chosen, line, options.servers, &question);
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

/// The servers, and how the check knows them.
fn start(world: &World, servers: Servers) -> Result<(Vec<Server>, Vec<StunServer>)> {
    let (mut running, mut known) = (Vec::new(), Vec::new());
    let names: &[&str] = match servers {
        Servers::Full => &["server"],
        Servers::Plain | Servers::Friend => &["server", "other"],
    };
    for name in names {
        let host = world.lab.server(name)?;
        let first = [Some(IpAddr::V4(host.v4())), host.v6().map(IpAddr::V6)];
        let mut listen: Vec<IpAddr> = first.into_iter().flatten().collect();
        known.extend(listen.iter().map(|ip| StunServer::new(*name, (*ip, STUN).into())));
        let mut arguments = Vec::new();
        match servers {
            Servers::Full => {
                let (v4, v6) = world.lab.second_addresses(&host)?;
                listen.extend([IpAddr::V4(v4), IpAddr::V6(v6)]);
            }
            Servers::Plain | Servers::Friend => {
                arguments.extend(["--relay-alternate-port".to_owned(), "0".to_owned()])
            }
        }
        arguments.extend(listen.iter().flat_map(|ip| ["--relay-listen".to_owned(), ip.to_string()]));
        running.push(world.server_on(host, arguments)?);
    }
    Ok((running, known))
}

/// A few at a time, in their order.
fn all(lab: &Lab, chosen: &[Network], line: Line, kind: Servers, question: &Question) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(network) = chosen.get(number) else { return };
                    let row = one(lab, network, number, line, kind, question.clone());
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(number, _)| *number);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn one(lab: &Lab, network: &Network, number: usize, line: Line, kind: Servers, question: Question) -> Row {
    let router = question.program.is_none();
    match network.measure(lab, number, line, question) {
        Ok(said) => Row::new(network, &said, Verdict::of(&network.truth, &said, kind, router)),
        Err(error) => Row::failed(network, &error),
    }
}
