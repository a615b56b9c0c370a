//! A member that tries to change the other members' networks.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
};

use anyhow::{Result, ensure};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::{World, connected, world::homes};
use crate::RouterOptions;

/// The party's network device on every computer.
const DEVICE: &str = "partyline0";
/// Hosts accept neighbor discovery only with this hop limit (RFC 4861, section 6.1.2).
const HOP_LIMIT: u32 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Lets one member advertise itself as a router to another one, even if that one's system is told to believe it.
pub(super) fn router_advertisement(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    connected(&members)?;
    let [anna, ben] = &members[..] else { anyhow::bail!("two members") };
    for setting in ["accept_ra", "autoconf", "accept_redirects"] {
        let value = ben.host.run("sysctl", &["-n", &format!("net.ipv6.conf.{DEVICE}.{setting}")])?;
        ensure!(value.trim() == "0", "{setting} is {}", value.trim());
    }
    for setting in ["accept_ra=2", "autoconf=1"] {
        ben.host.run("sysctl", &["-qw", &format!("net.ipv6.conf.{DEVICE}.{setting}")])?;
    }
    anna.host.enter(advertise)??;
    // It arrives behind the advertisement.
    anna.ping(ben.address()?)?;
    let learned = ben.host.run("ip", &["-6", "route", "show", "dev", DEVICE, "proto", "ra"])?;
    ensure!(learned.trim().is_empty(), "ben's routes were changed: {learned}");
    Ok(())
}

/// Sends a Router Advertisement (RFC 4861, section 4.2) into the party: a default route of high preference (RFC 4191), and
/// a prefix that is on this link.
fn advertise() -> io::Result<()> {
    let index = if_nametoindex(DEVICE)?;
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_if_v6(index)?;
    let mut message = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08];
    message.extend([0; 8]);
    message.extend([3, 4, 64, 0xc0]);
    message.extend([3600_u32, 3600, 0].iter().flat_map(|seconds| seconds.to_be_bytes()));
    message.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets());
    socket.send_to(&message, &SocketAddrV6::new(ALL_NODES, 0, 0, index).into())?;
    Ok(())
}
