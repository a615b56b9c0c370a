//! `partyline netcheck --watch` while the computer moves to another network.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use partyline_model::{Allocation, Badge, Filtering, Mapping, NetworkView};
use partyline_nat::Rules;

use super::World;
use crate::{Host, Line, Nat, Process, RouterOptions, until, wait::that};

/// Time limit from a change of network to its report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for the program to release its resources and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The router at home. The one in the café uses the kernel's NAT, which loses its mappings when the line goes down.
const HOME: RouterOptions = RouterOptions {
    nat: Nat::Modelled(Rules::new(
        Mapping::EndpointIndependent,
        Filtering::AddressDependent,
        Allocation::Preserving,
    )),
    ..RouterOptions::HOME
};

/// Moves a laptop from home to a café, whose router then changes its address. One program reports the networks as JSON,
/// another one as text.
pub(super) fn other_networks(world: &World) -> Result<()> {
    let server = world.far_server("server", Line::FAR)?;
    let (home, cafe) = (world.lab.site("home", HOME)?, world.lab.site("cafe", RouterOptions::SYMMETRIC)?);
    let laptop = home.host("laptop")?;
    let stun = format!("{}:3478", server.name());
    let mut programs = [watch(world, &laptop, &stun, true)?, watch(world, &laptop, &stun, false)?];
    let first = home.public_v4().context("no internet")?;
    all_told(&mut programs, Badge::Restricted, first)?;
    cafe.adopt(&laptop)?;
    all_told(&mut programs, Badge::Symmetric, cafe.public_v4().context("no internet")?)?;
    cafe.go_down()?;
    let second = cafe.come_up_elsewhere()?;
    all_told(&mut programs, Badge::Symmetric, second)?;
    let [program, person] = programs;
    let reports = reports(&program.log())?;
    ensure!(reports.iter().all(|report| !report.report.running), "a report of half a measurement");
    ends_well(program, Signal::SIGTERM)?;
    ends_well(person, Signal::SIGINT)
}

fn watch(world: &World, host: &Host, stun: &str, json: bool) -> Result<Process> {
    let mut command = host.command(&world.program("partyline").to_string_lossy());
    command.args(["netcheck", "--here", "--watch", "--stun", stun]);
    if json {
        command.arg("--json");
    }
    host.spawn(if json { "watch-json" } else { "watch" }, command)
}

/// Waits until the last reports of both programs have this badge and public address.
fn all_told([program, person]: &mut [Process; 2], badge: Badge, public: Ipv4Addr) -> Result<()> {
    until(&format!("a report of {badge:?} at {public}"), REPORT_TIMEOUT, || {
        program.alive()?;
        let said = reports(&program.log())?.pop().context("no report yet")?;
        that(said.nat.public.contains(&public.into()) && said.badge == Some(badge), || {
            format!("{:?}: {:?}", said.badge, said.nat)
        })
    })?;
    let word = if badge == Badge::Symmetric { "symmetric" } else { "restricted" };
    until(&format!("the text output to have {word} at {public}"), REPORT_TIMEOUT, || {
        person.alive()?;
        let log = person.log();
        let last = log.rsplit("Your network: ").next().unwrap_or_default();
        that(last.starts_with(word) && last.contains(&format!(" {public}\n")), || last.to_owned())
    })
}

/// Parses the log: every complete line must be a report.
fn reports(log: &str) -> Result<Vec<NetworkView>> {
    let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let report = |line| serde_json::from_str(line).with_context(|| format!("no report: {line}"));
    whole.lines().map(report).collect()
}

/// Sends a signal, and checks that the program exits with 0 and removes its files.
fn ends_well(mut process: Process, signal: Signal) -> Result<()> {
    let files = std::env::temp_dir().join(format!("partyline-netcheck-{}", process.id()));
    ensure!(files.exists(), "it keeps its files elsewhere than in {}", files.display());
    process.signal(signal)?;
    let status = process.wait(STOP_TIMEOUT)?;
    ensure!(status.success(), "{signal} ended {} with {status}", process.name());
    ensure!(!files.exists(), "{} was left behind", files.display());
    Ok(())
}
