//! A party of the real programs whose members are behind symmetric NATs, one of which maps ports.

use anyhow::{Context, Result, ensure};
use partyline_model::PathKind;

use super::{
    client::RESULT_TIMEOUT,
    home::{Daemon, install, maps, start},
};
use crate::{Lab, RouterOptions, party::World, until, wait::that};

/// Connects two members behind symmetric NATs, one of which offers UPnP, PCP and NAT-PMP.
pub(super) fn run(_: &Lab) -> Result<String> {
    let world = World::new()?;
    let server = world.server()?;
    let home = world.lab.site("home", RouterOptions::SYMMETRIC)?;
    let host = home.host("anna")?;
    install(&home)?;
    let _daemon = start(&home, &host, Daemon::Igd2)?;
    let ben = world.lab.home("ben", RouterOptions::SYMMETRIC)?;
    let mut members = world.party(Some(&server), vec![host, ben])?;
    let port = members[0].status()?.network.port;
    ensure!(maps(&home, port)?, "port {port} is not mapped");
    let mapped = members[1].wait_for_path(&members[0], PathKind::Mapped);
    mapped.with_context(|| world.last_words("portmap-party"))?;
    members[0].crash()?;
    ensure!(maps(&home, port)?, "the killed service left no mapping");
    members[0].start()?;
    let successor = members[0].status()?.network.port;
    until("the successor's mapping alone to stand", RESULT_TIMEOUT, || {
        let (old, new) = (maps(&home, port)?, maps(&home, successor)?);
        that(new && (port == successor || !old), || format!("old {old}, new {new}"))
    })?;
    members[0].stop()?;
    ensure!(!maps(&home, successor)?, "the mapping outlived the service");
    Ok("path over the mapped port; deleted after kill -9 and at stop".into())
}
