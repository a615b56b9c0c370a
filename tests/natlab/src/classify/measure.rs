//! Runs the real network check on a host of the lab, either the library with real sockets or the real program.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use partyline_model::{Badge, NatProfile, NetworkView, SocketId};
use partyline_netcheck::{Config, Event, Netcheck, StunServer};

use super::friend::Friend;
use crate::{Host, checked};

/// Number of probe sockets besides the tunnel's, as in the engine.
const PROBE_SOCKETS: usize = 7;
/// Time limit for a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for a TCP connection to a server. A lost SYN is repeated after 1 s and 3 s, and the line may lose
/// packets.
const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// Input of a check.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// STUN servers to use.
    pub servers: Vec<StunServer>,
    /// Outside address of the router, as port mapping would report it.
    pub router: Option<IpAddr>,
    /// Port of the tunnel's socket; 0 takes any.
    pub port: u16,
    /// Host and address of a member with a second port.
    pub friend: Option<(Host, Ipv4Addr)>,
    /// The `partyline` program, if it is to run the check. It finds router and port by itself.
    pub program: Option<PathBuf>,
}

/// Result of a check, with the time it took.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Measured behavior of the NAT.
    pub profile: NatProfile,
    /// Summary shown to users.
    pub badge: Option<Badge>,
    /// Time until the first public address was known.
    pub address: Option<Duration>,
    /// Time until the mapping behavior was known.
    pub mapping: Option<Duration>,
    /// Time until the check ended.
    pub whole: Option<Duration>,
    /// Number of datagrams sent.
    pub packets: u32,
    /// What remained unknown, with reasons.
    pub gaps: Vec<String>,
}

/// Runs a check on a host.
///
/// # Errors
/// Returns an error if sockets cannot be opened, or the check does not end.
pub fn measure(host: &Host, question: &Question) -> Result<Measured> {
    match &question.program {
        Some(program) => run(host, program, question),
        None => host.enter(|| Check::begin(host, question)?.finish())?,
    }
}

/// Runs `partyline netcheck` without party or service, as a player does who tests the network before installing
/// anything.
fn run(host: &Host, program: &Path, question: &Question) -> Result<Measured> {
    let mut command = host.command(&program.to_string_lossy());
    command.args(["netcheck", "--here", "--json"]);
    question.servers.iter().for_each(|server| {
        command.args(["--stun", &server.address.to_string()]);
    });
    let said = checked(&mut command)?;
    let NetworkView { badge, nat, report, .. } =
        serde_json::from_str(&said).with_context(|| format!("netcheck said {said:?}"))?;
    Ok(Measured {
        profile: nat,
        badge,
        address: None,
        mapping: None,
        whole: Some(Duration::from_millis(report.took_ms.into())),
        packets: report.packets,
        gaps: report.gaps,
    })
}

struct Check {
    netcheck: Netcheck,
    sockets: Vec<UdpSocket>,
    friend: Option<Friend>,
    begun: Instant,
    address: Option<Duration>,
    mapping: Option<Duration>,
}

impl Check {
    fn begin(host: &Host, question: &Question) -> Result<Self> {
        let any = if host.v6().is_some() { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::from([0; 4]) };
        let ports = [question.port].into_iter().chain([0; PROBE_SOCKETS]);
        let sockets = ports
            .map(|port| UdpSocket::bind((any, port)).and_then(|s| s.set_nonblocking(true).map(|()| s)))
            .collect::<io::Result<Vec<_>>>()?;
        let mut local = Vec::new();
        for socket in &sockets {
            local.push(SocketAddr::new(host.v4().into(), socket.local_addr()?.port()));
        }
        let reachable = reachable(&question.servers);
        let own = host.v6().map(|v6| SocketAddr::new(v6.into(), local[0].port()));
        let begun = Instant::now();
        let seed = std::array::from_fn(|i| local[0].port().to_be_bytes()[i % 2]);
        let mut netcheck = Netcheck::new(begun, seed, Config::default());
        netcheck.set_online(begun, !reachable.is_empty());
        netcheck.set_tcp_reachable(begun, reachable);
        netcheck.set_local_addresses(begun, [local[0]].into_iter().chain(own).collect());
        netcheck.set_router_address(begun, question.router);
        let ports = local[1..].iter().map(|address| Some(address.port()));
        let opened: Vec<_> = (0..).map(SocketId::probe).zip(ports).collect();
        netcheck.probe_sockets_opened(begun, &opened);
        let server = question.servers.iter().map(|server| server.address).find(SocketAddr::is_ipv4);
        let friend = question
            .friend
            .as_ref()
            .zip(server)
            .map(|((host, own), server)| Friend::new(host, *own, server))
            .transpose()?;
        netcheck.set_observers_available(begun, friend.is_some());
        netcheck.set_servers(begun, question.servers.clone());
        Ok(Self { netcheck, sockets, friend, begun, address: None, mapping: None })
    }

    fn finish(mut self) -> Result<Measured> {
        let mut buffer = [0; 2048];
        loop {
            self.send();
            self.note();
            let report = self.netcheck.report();
            if report.finished {
                return Ok(Measured {
                    profile: self.netcheck.profile().clone(),
                    badge: self.netcheck.badge(),
                    address: self.address,
                    mapping: self.mapping,
                    whole: report.duration,
                    packets: report.packets,
                    gaps: report.gaps.into_iter().map(str::to_owned).collect(),
                });
            }
            if self.begun.elapsed() > CHECK_TIMEOUT {
                bail!("the check does not end: {report:?}");
            }
            self.wait()?;
            self.receive(&mut buffer);
            if self.netcheck.poll_timeout().is_some_and(|at| at <= Instant::now()) {
                self.netcheck.handle_timeout(Instant::now());
            }
        }
    }

    fn send(&mut self) {
        while let Some(transmit) = self.netcheck.poll_transmit() {
            let mut named = (0..).map(socket_id).zip(&self.sockets);
            let Some((_, socket)) = named.find(|(id, _)| *id == transmit.socket) else { continue };
            let six = socket.local_addr().is_ok_and(|local| local.is_ipv6());
            let destination = match transmit.destination {
                SocketAddr::V4(to) if six => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
                other => other,
            };
            // Without a route nothing comes back, which the check has to find out by itself.
            let _ = socket.send_to(&transmit.bytes, destination);
        }
    }

    fn note(&mut self) {
        let passed = self.begun.elapsed();
        while let Some(event) = self.netcheck.poll_event() {
            match event {
                Event::Reflexive(addresses) if !addresses.is_empty() => {
                    self.address.get_or_insert(passed);
                }
                Event::Profile(profile) if profile.mapping.is_some() => {
                    self.mapping.get_or_insert(passed);
                }
                Event::RequestFilteringProbe(request) => {
                    self.friend.iter().for_each(|friend| friend.send_requested(request))
                }
                Event::RequestProbeRound(round) => {
                    self.friend.iter().for_each(|friend| friend.send_round(round))
                }
                _ => {}
            }
        }
    }

    fn wait(&self) -> Result<()> {
        let friends = self.friend.iter().flat_map(Friend::sockets);
        let mut polled: Vec<_> = self
            .sockets
            .iter()
            .chain(friends)
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let until = self.netcheck.poll_timeout().unwrap_or(self.begun + CHECK_TIMEOUT);
        let left = until.saturating_duration_since(Instant::now()).min(CHECK_TIMEOUT);
        match ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for (index, socket) in (0..).zip(&self.sockets) {
            let name = socket_id(index);
            while let Ok((length, from)) = socket.recv_from(buffer) {
                self.netcheck.handle_datagram(Instant::now(), name, from, &buffer[..length]);
            }
        }
        if let Some(pair) = self.friend.as_mut().and_then(|friend| friend.receive(buffer)) {
            self.netcheck.set_port_pair(Instant::now(), pair);
        }
    }
}

/// Returns the id of a socket by its index. The main socket comes first.
fn socket_id(index: u16) -> SocketId {
    index.checked_sub(1).map_or(SocketId::MAIN, SocketId::probe)
}

/// Returns the addresses of the servers whose HTTPS port accepts connections.
fn reachable(servers: &[StunServer]) -> Vec<IpAddr> {
    let ips = servers.iter().map(|server| server.address.ip());
    ips.filter(|ip| TcpStream::connect_timeout(&SocketAddr::new(*ip, 443), TCP_CONNECT_TIMEOUT).is_ok())
        .collect()
}
