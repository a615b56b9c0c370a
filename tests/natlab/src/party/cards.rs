//! Scenarios with more network cards than the one that matters: other VPNs, bridges, deprecated addresses, odd routes.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use partyline_model::PathKind;

use super::{
    Member, World,
    world::{CONNECT_TIMEOUT, connected, homes},
};
use crate::{RouterOptions, until};

/// Echo requests in a look at a connection, ten a second.
const ECHOES: u32 = 40;
/// Packets on the card in that time that are far from a loop: echo requests and responses, checks, signaling.
const MAX_PACKETS: u64 = 1000;
/// The network of the other VPN.
const OVERLAY: [u8; 3] = [10, 147, 17];

/// A VPN that rides on the party never becomes its path.
pub(super) fn vpn_over_party(world: &World) -> Result<()> {
    let server = world.server()?;
    let mut members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    members[0].wait_for_path(&members[1], PathKind::Direct)?;
    overlay_over_party(&members)?;
    look(world, "added later", &members, PathKind::Direct)?;
    let through_both = address(2).to_string();
    members[0]
        .host
        .run("ping", &["-n", "-q", "-c", "3", "-W", "5", &through_both])
        .context("the VPN itself")?;
    for restarted in [&[0][..], &[0, 1]] {
        for member in restarted {
            members[*member].stop()?;
        }
        for member in restarted {
            members[*member].start()?;
        }
        connected(&members)?;
        look(world, &format!("there at {} starts", restarted.len()), &members, PathKind::Direct)?;
    }
    for member in &members {
        remove_overlay(member)?;
    }
    look(world, "gone", &members, PathKind::Direct)
}

/// A VPN over the same LAN is slower than the LAN, and goes away without trouble.
pub(super) fn vpn_on_lan(world: &World) -> Result<()> {
    let server = world.server()?;
    let home = world.lab.site("flat", RouterOptions::HOME)?;
    let mut members = world.party(Some(&server), vec![home.host("ben")?, home.host("cora")?])?;
    members[0].wait_for_path(&members[1], PathKind::Lan)?;
    let ends = [members[0].host.v4(), members[1].host.v4()].map(IpAddr::from);
    overlay(&members, ends)?;
    look(world, "added later", &members, PathKind::Lan)?;
    for member in &mut members {
        member.stop()?;
        member.start()?;
    }
    connected(&members)?;
    look(world, "there at the start", &members, PathKind::Lan)?;
    remove_overlay(&members[1])?;
    look(world, "gone", &members, PathKind::Lan)
}

/// While nothing else works, another VPN carries the party; it makes way for whatever works again.
pub(super) fn vpn_as_last_resort(world: &World) -> Result<()> {
    let home = world.lab.lonely_lan("flat")?;
    let members = world.party(None, vec![home.host("ben")?, home.host("cora")?])?;
    members[0].wait_for_path(&members[1], PathKind::Lan)?;
    let ends = [members[0].host.v4(), members[1].host.v4()].map(IpAddr::from);
    overlay(&members, ends)?;
    for member in &members {
        let rules = "table inet wall { chain in { type filter hook input priority 0; \
                     iifname \"eth0\" udp dport != 4789 drop; }; }";
        member.host.run("nft", &[rules])?;
    }
    for (from, to) in [(0, 1), (1, 0)] {
        members[from].wait_for_path(&members[to], PathKind::Overlay)?;
    }
    echo(&members[0], &members[1])?;
    for member in &members {
        member.host.run("nft", &["delete table inet wall"])?;
    }
    members[0].wait_for_path(&members[1], PathKind::Lan)?;
    look(world, "open again", &members, PathKind::Lan)
}

/// Where every IPv6 address of the card is deprecated, packets leave from it nevertheless, not from the party's own.
pub(super) fn deprecated_addresses(world: &World) -> Result<()> {
    let server = world.named_server("party.example")?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::IPV6_ONLY)?;
    members[0].wait_for_path(&members[1], PathKind::DirectV6)?;
    deprecate(&members[0])?;
    look(world, "one side", &members, PathKind::DirectV6)?;
    deprecate(&members[1])?;
    look(world, "both sides", &members, PathKind::DirectV6)
}

/// The same on one LAN.
pub(super) fn deprecated_on_lan(world: &World) -> Result<()> {
    let server = world.named_server("party.example")?;
    let home = world.lab.site("flat", RouterOptions::IPV6_ONLY)?;
    let members = world.party(Some(&server), vec![home.host("ben")?, home.host("cora")?])?;
    let kind = members[0].sees("cora")?.path.context("no path")?.kind;
    deprecate(&members[1])?;
    look(world, "one side", &members, kind)
}

/// Thirty bridges and other cards do not crowd out the address that the other side needs.
pub(super) fn many_cards(world: &World) -> Result<()> {
    let server = world.server()?;
    let hosts = ["anna", "ben"].map(|name| world.lab.home(name, RouterOptions::HOME));
    let hosts = hosts.into_iter().collect::<Result<Vec<_>>>()?;
    for number in 0..30 {
        let lines = format!(
            "link add port{number} type veth peer name inside{number}\nlink set inside{number} up\n\
             link add bridge{number} type bridge forward_delay 0\n\
             link set port{number} master bridge{number}\nlink set port{number} up\n\
             addr add 172.{}.0.1/16 dev bridge{number}\nlink set bridge{number} up",
            number + 20 - number / 12 * 12
        );
        hosts.iter().try_for_each(|host| host.namespace().ip(&lines))?;
    }
    let members = world.party(Some(&server), hosts)?;
    for (from, to) in [(0, 1), (1, 0)] {
        members[from].wait_for_path(&members[to], PathKind::Direct)?;
    }
    look(world, "thirty bridges", &members, PathKind::Direct)
}

/// A friend's public address that is routed into the party is not sent to; the relay carries.
pub(super) fn routed_into_party(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    anna.wait_for_path(ben, PathKind::Direct)?;
    let remote = anna.sees("ben")?.path.context("no path")?.remote.ip();
    let device = anna.party()?.interface.context("no device")?;
    anna.host.run("ip", &["route", "add", &format!("{remote}/32"), "dev", &device])?;
    anna.wait_for_path(ben, PathKind::Relay)?;
    ben.wait_for_path(anna, PathKind::Relay)?;
    look(world, "routed into the party", &members, PathKind::Relay)?;
    anna.host.run("ip", &["route", "del", &format!("{remote}/32")])?;
    anna.wait_for_path(ben, PathKind::Direct)?;
    look(world, "as before", &members, PathKind::Direct)
}

/// Looks at a connection for some seconds: each echo request is answered, nothing runs in circles, and the path is of the
/// kind that is expected, before and after.
fn look(world: &World, when: &str, members: &[Member], kind: PathKind) -> Result<()> {
    let [one, other] = members else { anyhow::bail!("two members are looked at") };
    until(&format!("{} to be connected ({when})", other.name()), CONNECT_TIMEOUT, || {
        one.ping(other.address()?)
    })?;
    one.wait_for_path(other, kind)?;
    let before = packets(one)?;
    echo(one, other).with_context(|| when.to_owned())?;
    let count = packets(one)? - before;
    world.note(&format!("packets, {when}"), count);
    ensure!(count <= MAX_PACKETS, "{when}: {count} packets for {ECHOES} echo requests");
    one.wait_for_path(other, kind)?;
    other.wait_for_path(one, kind)
}

fn echo(from: &Member, to: &Member) -> Result<()> {
    let count = ECHOES.to_string();
    let address = to.address()?.to_string();
    let said = from.host.run("ping", &["-n", "-q", "-c", &count, "-i", "0.1", "-W", "2", &address])?;
    ensure!(said.contains(&format!(" {ECHOES} received")), "echo requests were lost: {said}");
    Ok(())
}

/// Returns how many packets the computer's card has sent and received.
fn packets(member: &Member) -> Result<u64> {
    let said = member.host.run("ip", &["-j", "-s", "link", "show", "dev", "eth0"])?;
    let json: serde_json::Value = serde_json::from_str(&said)?;
    let count = |direction: &str| json[0]["stats64"][direction]["packets"].as_u64();
    count("rx").zip(count("tx")).map(|(received, sent)| received + sent).context("no counters")
}

fn address(number: usize) -> IpAddr {
    let [a, b, c] = OVERLAY;
    [a, b, c, u8::try_from(number).unwrap_or(u8::MAX)].into()
}

/// Sets up a VPN between the two members' addresses in the party.
fn overlay_over_party(members: &[Member]) -> Result<()> {
    overlay(members, [members[0].address()?.into(), members[1].address()?.into()])
}

/// Sets up a VPN between two addresses.
fn overlay(members: &[Member], ends: [IpAddr; 2]) -> Result<()> {
    for (number, member) in members.iter().enumerate() {
        let (local, remote, own) = (ends[number], ends[1 - number], address(number + 1));
        let lines = format!(
            "link add zt0 type vxlan id 7 local {local} remote {remote} dstport 4789\n\
             addr add {own}/24 dev zt0\nlink set zt0 up"
        );
        member.host.namespace().ip(&lines)?;
    }
    Ok(())
}

fn remove_overlay(member: &Member) -> Result<()> {
    member.host.namespace().ip("link del zt0")
}

/// Deprecates the card's global IPv6 address, and makes sure that the system then prefers the party's own.
fn deprecate(member: &Member) -> Result<()> {
    let v6 = member.host.v6().context("no IPv6")?;
    let change = format!("addr change {v6}/64 dev eth0 preferred_lft 0 valid_lft forever");
    member.host.namespace().ip(&change)?;
    let route = member.host.run("ip", &["-6", "route", "get", "2001:db8:9::1"])?;
    ensure!(route.contains("src fd"), "the system would not take the party's address: {route}");
    Ok(())
}
