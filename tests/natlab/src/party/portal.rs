//! A network that wants its users to log in first.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use partyline_model::ErrorCode;

use super::{World, world::CONNECT_TIMEOUT};
use crate::{RouterOptions, Site, until, wait::that};

/// The port at which the portal answers on the router.
const PORTAL: u16 = 8080;
/// Where the portal sends everybody.
const LOGIN: &str = "http://login.hotel.test/welcome";

/// A captive portal is named, with its login page, and the party connects once the user has logged in.
pub(super) fn captive_portal(world: &World) -> Result<()> {
    let server = world.server()?;
    let hotel = world.lab.site("hotel", RouterOptions::HOME)?;
    answer_everybody(&hotel)?;
    let anna = world.member(hotel.host("anna")?)?;
    anna.create(Some(&server))?;
    let problem = until("the portal to be named", CONNECT_TIMEOUT, || {
        let party = anna.party()?;
        let problem =
            party.servers.first().and_then(|server| server.problem.clone()).context("no problem")?;
        that(problem.code == ErrorCode::CaptivePortal, || problem.message.clone())?;
        Ok(problem)
    })?;
    ensure!(problem.hint.contains(LOGIN), "the hint does not name the login page: {}", problem.hint);
    let doctor = anna.partyline(&["doctor"]).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(doctor.contains("log in first"), "doctor does not say it: {doctor}");
    hotel.router().nft("delete table ip portal")?;
    until("anna to be connected once she has logged in", CONNECT_TIMEOUT, || {
        let servers = anna.party()?.servers;
        that(servers.iter().all(|server| server.connected), || format!("{servers:?}"))
    })
}

/// Lets the router answer for every server over TCP, and drop everything else.
fn answer_everybody(site: &Site<'_>) -> Result<()> {
    let listener = site.router().enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORTAL)))??;
    // Ends with the process; a scenario has no more than one.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(format!("HTTP/1.1 302 Found\r\nLocation: {LOGIN}\r\n\r\n").as_bytes());
        }
    });
    site.router().nft(&format!(
        r#"table ip portal {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                iifname "lan0" ip protocol tcp redirect to :{PORTAL}
            }}
            chain forward {{
                type filter hook forward priority filter - 1;
                iifname "lan0" drop
            }}
        }}"#
    ))
}
