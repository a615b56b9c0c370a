//! Scenarios with networks without IPv4.

use anyhow::Result;
use partyline_model::PathKind;

use super::{World, traffic_check::exchange_traffic};
use crate::RouterOptions;

/// Host name of the server. A member with IPv6 only needs a name that resolves to an IPv6 address.
const NAME: &str = "server.party.test";

/// Connects two members without IPv4.
pub(super) fn only(world: &World) -> Result<()> {
    between(world, [RouterOptions::IPV6_ONLY; 2])
}

/// Connects a member without IPv4 and one with IPv4 and IPv6.
pub(super) fn mixed(world: &World) -> Result<()> {
    between(world, [RouterOptions::IPV6_ONLY, RouterOptions::DUAL_STACK])
}

fn between(world: &World, [one, other]: [RouterOptions; 2]) -> Result<()> {
    let server = world.named_server(NAME)?;
    let hosts = vec![world.lab.home("anna", one)?, world.lab.home("ben", other)?];
    let members = world.party(Some(&server), hosts)?;
    members[0].wait_for_path(&members[1], PathKind::DirectV6)?;
    members[1].wait_for_path(&members[0], PathKind::DirectV6)?;
    exchange_traffic(&members[0], &members[1])
}

/// Connects a member without IPv4 and one without IPv6. Only the relay has both.
pub(super) fn apart(world: &World) -> Result<()> {
    let server = world.named_server(NAME)?;
    let hosts =
        vec![world.lab.home("anna", RouterOptions::IPV6_ONLY)?, world.lab.home("ben", RouterOptions::HOME)?];
    let members = world.party(Some(&server), hosts)?;
    members[0].wait_for_path(&members[1], PathKind::Relay)?;
    exchange_traffic(&members[0], &members[1])
}
