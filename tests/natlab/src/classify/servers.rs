//! The STUN servers of a check.

use std::net::IpAddr;

use anyhow::Result;
use clap::ValueEnum;
use partyline_netcheck::StunServer;

use crate::party::{Server, World};

/// The default port of STUN (RFC 8489, section 2).
const STUN_PORT: u16 = 3478;

/// The kinds of servers that a check can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Servers {
    /// One server with two addresses and two ports, as RFC 5780 requires.
    Full,
    /// Two servers with one address and one port each, as most public STUN servers have.
    Plain,
    /// The same as `plain`, and another member that answers from a second port.
    Friend,
}

impl Servers {
    /// Starts the servers, and returns them with the description that the check gets.
    pub fn start(self, world: &World) -> Result<(Vec<Server>, Vec<StunServer>)> {
        let (mut running, mut known) = (Vec::new(), Vec::new());
        let names: &[&str] = match self {
            Self::Full => &["server"],
            Self::Plain | Self::Friend => &["server", "other"],
        };
        for name in names {
            let host = world.lab.server(name)?;
            let first = [Some(IpAddr::V4(host.v4())), host.v6().map(IpAddr::V6)];
            let mut listen: Vec<IpAddr> = first.into_iter().flatten().collect();
            known.extend(listen.iter().map(|ip| StunServer::new(*name, (*ip, STUN_PORT).into())));
            let mut arguments = Vec::new();
            match self {
                Self::Full => {
                    let (v4, v6) = world.lab.second_addresses(&host)?;
                    listen.extend([IpAddr::V4(v4), IpAddr::V6(v6)]);
                }
                Self::Plain | Self::Friend => {
                    arguments.extend(["--relay-alternate-port".to_owned(), "0".to_owned()]);
                }
            }
            arguments.extend(listen.iter().flat_map(|ip| ["--relay-listen".to_owned(), ip.to_string()]));
            running.push(world.server_on(host, arguments)?);
        }
        Ok((running, known))
    }
}
