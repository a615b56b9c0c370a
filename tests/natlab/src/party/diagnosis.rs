//! Tests that a log file answers the first questions of a support engineer: why is this member on the relay, and why
//! was this packet dropped? The lines found are printed, as `docs/troubleshooting.md` shows them.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use partyline_model::PathKind;

use super::{
    Member, World, connected,
    world::{CONNECT_TIMEOUT, Environment},
};
use crate::{Host, Line, RouterOptions, until, wait::that};

/// UDP port of every member, fixed so that a neighbor can send to it.
const TUNNEL_PORT: u16 = 41_641;
/// The log filter that the documentation recommends, and the fixed port.
const ENVIRONMENT: Environment = &[
    ("PARTYLINE_LOG", "info,partyline_node=debug,partyline_paths=debug,partyline_tunnel=trace"),
    ("PARTYLINE_PORT", "41641"),
];
/// Target and message of the log line for a path decision.
const PATH_CHANGED: &str = "partyline_paths::selection: path changed";
/// Time limit for both networks to be measured and a strategy to be chosen.
const STRATEGY_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects two members whose routers allocate a random port per destination and filter by address and port, so that no
/// direct path can exist.
pub(super) fn log_explains_relay_and_drops(world: &World) -> Result<()> {
    let server = world.far_server("server", Line::FAR)?;
    let home = world.lab.site("home", RouterOptions::SYMMETRIC)?;
    let (anna, neighbor) = (home.host("anna")?, home.host("neighbor")?);
    let ben = world.lab.home("ben", RouterOptions::SYMMETRIC)?;
    let members = [world.member_with(anna, ENVIRONMENT)?, world.member_with(ben, ENVIRONMENT)?];
    members[1].join(&members[0].create(Some(&server))?)?;
    connected(&members)?;
    let [anna, ben] = &members;
    anna.wait_for_path(ben, PathKind::Relay)?;
    explains_the_relay(anna)?;
    explains_a_foreign_source(anna, ben.address()?)?;
    explains_garbage(anna, &neighbor)
}

/// Checks that the log has the strategy with its reason, the outcome of the direct candidates, and the path decision
/// with its reason.
fn explains_the_relay(member: &Member) -> Result<()> {
    logged(member, STRATEGY_TIMEOUT, &["strategy chosen", "strategy=Relay(BothRandom)"])?;
    logged(
        member,
        CONNECT_TIMEOUT,
        &["candidate pair changed state", "kind=ServerReflexive", "to=Failed", "reason=\""],
    )?;
    logged(member, CONNECT_TIMEOUT, &[PATH_CHANGED, "to=Relay", "reason=\""])?;
    let log = member.log()?;
    let last = log.lines().rfind(|line| line.contains(PATH_CHANGED)).unwrap_or_default();
    ensure!(last.contains("to=Relay"), "the last decision in the log is another one: {last}");
    let why = member.partyline(&["status", "--why"])?;
    ensure!(why.contains("the routers change ports unpredictably"), "`status --why` has no reason: {why}");
    Ok(())
}

/// Sends a packet into the party's device from an address outside the party, as a program on the member's computer may.
fn explains_a_foreign_source(member: &Member, destination: Ipv4Addr) -> Result<()> {
    let source = member.host.v4();
    send(&member.host, source, (destination, 9), b"from an address outside the party")?;
    logged(member, CONNECT_TIMEOUT, &["packet from the device dropped", "reason=\"foreign_source\""])
}

/// Sends datagrams that look like WireGuard's from a neighbor on the LAN to the tunnel's port.
fn explains_garbage(member: &Member, neighbor: &Host) -> Result<()> {
    let source = format!("source={}", neighbor.v4());
    let kinds = [(1, 148, "unknown_peer"), (4, 64, "unknown_receiver_index"), (2, 20, "malformed")];
    for (kind, length, reason) in kinds {
        let mut datagram = vec![0xa5; length];
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        send(neighbor, neighbor.v4(), (member.host.v4(), TUNNEL_PORT), &datagram)?;
        logged(member, CONNECT_TIMEOUT, &["datagram dropped", &source, &format!("reason=\"{reason}\"")])?;
    }
    Ok(())
}

fn send(from: &Host, source: Ipv4Addr, to: (Ipv4Addr, u16), bytes: &[u8]) -> Result<()> {
    from.enter(|| UdpSocket::bind((source, 0))?.send_to(bytes, to))?
        .with_context(|| format!("send from {} to {to:?}", from.name()))?;
    Ok(())
}

/// Waits until a line of the member's log contains all of these fragments, and prints it.
fn logged(member: &Member, within: Duration, fragments: &[&str]) -> Result<()> {
    let what = format!("the log of {} to have a line with {fragments:?}", member.name());
    let line = until(&what, within, || {
        let log = member.log()?;
        let found = log.lines().find(|line| fragments.iter().all(|fragment| line.contains(fragment)));
        let near = || log.lines().rfind(|line| line.contains(fragments[0])).unwrap_or("nothing like it");
        that(found.is_some(), || format!("it has {}", near()))?;
        Ok(found.unwrap_or_default().to_owned())
    })?;
    println!("{}: {line}", member.name());
    Ok(())
}
