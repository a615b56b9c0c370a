//! Members behind one NAT that does not hairpin, and that do not reach each other inside either.

use anyhow::{Result, ensure};
use partyline_model::{PathKind, SharedNat};

use super::{Member, Server, World, traffic_check::exchange_traffic, world::CONNECT_TIMEOUT};
use crate::{Host, RouterOptions, until, wait::that};

/// Two on one Wi-Fi whose access point keeps its clients apart: status and doctor say so, the relay carries, and once
/// the isolation is off the two use the LAN.
pub(super) fn client_isolation(world: &World) -> Result<()> {
    let server = checking_server(world)?;
    let cafe = world.lab.site("cafe", RouterOptions::HOME)?;
    let hosts = vec![cafe.host("anna")?, cafe.host("ben")?];
    isolate(&hosts, true)?;
    let members = world.party(Some(&server), hosts)?;
    kept_apart(&members, SharedNat::Router, "client isolation")?;
    exchange_traffic(&members[0], &members[1])?;
    let hosts: Vec<Host> = members.iter().map(|member| member.host.clone()).collect();
    isolate(&hosts, false)?;
    members[0].wait_for_path(&members[1], PathKind::Lan)?;
    let notice = members[0].sees("ben")?.notices.no_hairpin;
    ensure!(notice.is_none(), "the notice outlived its cause: {notice:?}");
    Ok(())
}

/// A customer with a modem of the carrier's and one with a router below the same carrier, whose NAT does not hairpin.
pub(super) fn shared_carrier(world: &World) -> Result<()> {
    let server = checking_server(world)?;
    let carrier = world.lab.site("carrier", RouterOptions { carrier: true, ..RouterOptions::HOME })?;
    let anna = carrier.host("anna")?;
    let home = carrier.site("home", RouterOptions::HOME)?;
    anna.isolate(true)?;
    home.isolate(true)?;
    let members = world.party(Some(&server), vec![anna, home.host("ben")?])?;
    kept_apart(&members, SharedNat::Carrier, "carrier's NAT")?;
    exchange_traffic(&members[0], &members[1])
}

/// Waits until both members say why they are not connected directly.
fn kept_apart(members: &[Member], shared: SharedNat, reason: &str) -> Result<()> {
    for (from, to) in [(&members[0], &members[1]), (&members[1], &members[0])] {
        from.wait_for_path(to, PathKind::Relay)?;
        until(&format!("{} to say what keeps {} apart", from.name(), to.name()), CONNECT_TIMEOUT, || {
            let (nat, member) = (from.status()?.network.nat, from.sees(to.name())?);
            let found = member.notices.no_hairpin;
            that(found == Some(shared), || format!("{found:?}; {nat:?}; {:?}", member.path))
        })?;
        for command in ["status", "doctor"] {
            let said = from.partyline(&[command]).unwrap_or_else(|error| format!("{error:#}"));
            ensure!(
                said.contains(reason) && said.contains("no hairpinning"),
                "{command} does not say it: {said}"
            );
        }
    }
    Ok(())
}

/// A server with two addresses, which shows how a NAT maps and so whether silence means that it does not hairpin.
fn checking_server(world: &World) -> Result<Server> {
    let host = world.lab.server("server")?;
    let (second, _) = world.lab.second_addresses(&host)?;
    let listen = [host.v4(), second].map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
    world.server_on(host, listen.concat())
}

fn isolate(hosts: &[Host], isolated: bool) -> Result<()> {
    hosts.iter().try_for_each(|host| host.isolate(isolated))
}
