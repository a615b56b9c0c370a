//! A member that tries to change the other members' networks.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Member, World, connected, world::homes};
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

/// A system service, and a game.
const FILE_SHARING: u16 = 445;
const GAME: u16 = 27_015;
/// How long to try a connection. What is blocked is not answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Lets one member try the ports of another one: of its game, of its file sharing before and after it allowed that, and of
/// both when it lets nothing in. Its own connections work all the same.
pub(super) fn blocked_ports(world: &World) -> Result<()> {
    let server = world.server()?;
    let members = homes(world, &server, &["anna", "ben"], RouterOptions::HOME)?;
    connected(&members)?;
    let [anna, ben] = &members[..] else { anyhow::bail!("two members") };
    let listen = |port: u16| move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let _services = [ben.host.enter(listen(FILE_SHARING))??, ben.host.enter(listen(GAME))??];
    let _game = anna.host.enter(listen(GAME))??;
    let (to_anna, to_ben) = (anna.address()?, ben.address()?);
    let reaches = |from: &Member, to: Ipv4Addr, port: u16| -> Result<bool> {
        let to = SocketAddr::from((to, port));
        Ok(from.host.enter(move || TcpStream::connect_timeout(&to, CONNECT_TIMEOUT))?.is_ok())
    };
    ensure!(reaches(anna, to_ben, GAME)?, "the game cannot be reached");
    ensure!(!reaches(anna, to_ben, FILE_SHARING)?, "file sharing can be reached by default");
    let listed = ben.partyline(&["ports"])?;
    ensure!(listed.contains("tcp/445") && listed.contains("blocked by default"), "{listed}");
    ben.partyline(&["ports", "allow", "tcp/445"])?;
    ensure!(reaches(anna, to_ben, FILE_SHARING)?, "file sharing cannot be reached although it is allowed");
    ben.partyline(&["ports", "forget", "tcp/445"])?;
    ben.partyline(&["ports", "level", "nothing"])?;
    for port in [FILE_SHARING, GAME] {
        ensure!(!reaches(anna, to_ben, port)?, "port {port} can be reached although nothing should");
    }
    ensure!(reaches(ben, to_anna, GAME)?, "ben's own connection gets no answers");
    anna.ping(to_ben)
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
