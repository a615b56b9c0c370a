//! NAT behavior discovery (RFC 5780) with a real coturn, without a NAT and through the kernel's NAT.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use partyline_model::{Allocation, Badge, Filtering, Mapping, SocketId};
use partyline_netcheck::{Config, CredentialMechanism, Netcheck, StunCredentials, StunServer};
use partyline_tests_interop::netns::{Netns, PublicHost, Running, Street};

const RESULT_TIMEOUT: Duration = Duration::from_secs(30);

const OPEN: &[&str] = &["--no-auth"];
/// coturn that requires credentials even for STUN.
const CLOSED: &[&str] = &["--lt-cred-mech", "--secure-stun", "--realm=example", "--user=anna:secret"];

fn coturn_arguments(ips: [Ipv4Addr; 2], port: u16, alternate: u16, who: &[&str]) -> Vec<String> {
    let common =
        ["-n", "--no-tls", "--no-dtls", "--no-tcp", "--no-cli", "--log-file=stdout", "--pidfile=/dev/null"];
    let mut arguments: Vec<String> = common.iter().chain(who).map(ToString::to_string).collect();
    arguments.extend(ips.map(|ip| format!("--listening-ip={ip}")));
    arguments.extend([format!("--listening-port={port}"), format!("--alt-listening-port={alternate}")]);
    arguments
}

/// Runs the check with a real socket until it has finished.
fn survey(bind: SocketAddr, server: SocketAddr) -> Result<Netcheck> {
    survey_as(bind, StunServer::new("coturn", server))
}

fn survey_as(bind: SocketAddr, server: StunServer) -> Result<Netcheck> {
    let socket = UdpSocket::bind(bind)?;
    let start = Instant::now();
    let mut netcheck = Netcheck::new(start, [3; 32], Config::default());
    netcheck.set_local_addresses(start, vec![socket.local_addr()?]);
    netcheck.set_servers(start, vec![server]);
    let mut buffer = [0; 1500];
    while !netcheck.report().finished {
        while let Some(transmit) = netcheck.poll_transmit() {
            socket.send_to(&transmit.bytes, transmit.destination)?;
        }
        if start.elapsed() > RESULT_TIMEOUT {
            bail!("not finished: {:?}", netcheck.report());
        }
        let wait = netcheck.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.unwrap_or(RESULT_TIMEOUT).clamp(Duration::from_millis(1), Duration::from_secs(1));
        socket.set_read_timeout(Some(wait))?;
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            netcheck.handle_datagram(Instant::now(), SocketId::MAIN, from, &buffer[..length]);
        }
        netcheck.handle_timeout(Instant::now());
    }
    Ok(netcheck)
}

/// The two addresses outside at which coturn listens.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(11, 0, 1, 1), Ipv4Addr::new(11, 0, 1, 2)];
const PORT: u16 = 3478;
const OTHER_PORT: u16 = 3479;

/// Starts coturn outside, and waits until it answers.
fn start_coturn(outside: &Netns, who: &[&str]) -> Result<Running> {
    let arguments = coturn_arguments(OUTSIDE, PORT, OTHER_PORT, who);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let coturn = outside.start("coturn", "turnserver", &arguments)?;
    outside.wait_for_udp(OTHER_PORT)?;
    Ok(coturn)
}

#[test]
fn host_without_nat_is_classified_as_open() -> Result<()> {
    let network = PublicHost::build()?;
    let _coturn = start_coturn(&network.outside, OPEN)?;
    let netcheck = network.host.enter(|| survey("11.0.0.1:0".parse()?, (OUTSIDE[0], PORT).into()))?;
    let (profile, report) = (netcheck.profile(), netcheck.report());
    assert_eq!(profile.mapping, Some(Mapping::EndpointIndependent), "{report:?}");
    assert_eq!(profile.filtering, Some(Filtering::EndpointIndependent), "{report:?}");
    assert_eq!(netcheck.badge(), Some(Badge::Open));
    assert_eq!(report.servers[0].other_address, Some((OUTSIDE[1], OTHER_PORT).into()));
    assert_eq!(netcheck.counters().dropped, partyline_netcheck::DropCounters::default());
    Ok(())
}

#[test]
fn server_that_requires_credentials_gets_them() -> Result<()> {
    let network = PublicHost::build()?;
    let _coturn = start_coturn(&network.outside, CLOSED)?;
    let server = StunServer::new("coturn", (OUTSIDE[0], PORT).into());
    let login = |password: &str| {
        Some(StunCredentials {
            username: "anna".into(),
            password: password.into(),
            mechanism: CredentialMechanism::LongTerm,
        })
    };
    let ask = |credentials| {
        let server = StunServer { credentials, ..server.clone() };
        network.host.enter(|| survey_as("11.0.0.1:0".parse()?, server))
    };
    let known = ask(login("secret"))?;
    let (profile, report) = (known.profile(), known.report());
    assert_eq!(profile.mapping, Some(Mapping::EndpointIndependent), "{report:?}");
    assert_eq!(profile.filtering, Some(Filtering::EndpointIndependent), "{report:?}");
    for stranger in [login("guess"), None] {
        let refused = ask(stranger)?;
        let report = refused.report();
        assert!(report.servers[0].timed_out && refused.counters().dropped.unusable > 0, "{report:?}");
    }
    Ok(())
}

/// A server in the computer's own network cannot show what the router does, and the report says so.
#[test]
fn server_in_the_own_network_classifies_nothing() -> Result<()> {
    let namespace = Netns::new("alone")?;
    let ips = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let arguments = coturn_arguments(ips, PORT, OTHER_PORT, OPEN);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let _coturn = namespace.start("coturn", "turnserver", &arguments)?;
    namespace.wait_for_udp(OTHER_PORT)?;
    let netcheck = namespace.enter(|| survey((Ipv4Addr::LOCALHOST, 0).into(), (ips[0], PORT).into()))?;
    let report = netcheck.report();
    assert_eq!((netcheck.badge(), netcheck.profile().mapping), (None, None), "{report:?}");
    assert!(report.gaps.iter().any(|gap| gap.contains("own network")), "{report:?}");
    Ok(())
}

fn through_the_router(street: &Street) -> Result<Netcheck> {
    let _coturn = start_coturn(&street.outside, OPEN)?;
    street.home.enter(|| survey("192.168.77.2:41641".parse()?, (OUTSIDE[0], PORT).into()))
}

#[test]
fn kernel_masquerade_is_classified_as_port_restricted() -> Result<()> {
    let street = Street::build()?;
    let netcheck = through_the_router(&street)?;
    let (profile, report) = (netcheck.profile(), netcheck.report());
    assert_eq!(profile.mapping, Some(Mapping::EndpointIndependent), "{report:?}");
    assert_eq!(profile.filtering, Some(Filtering::AddressAndPortDependent), "{report:?}");
    assert_eq!(profile.allocation, Some(Allocation::Preserving));
    assert_eq!(profile.public, vec![IpAddr::from([11, 0, 0, 1])]);
    assert_eq!(netcheck.badge(), Some(Badge::PortRestricted));
    Ok(())
}

#[test]
fn fully_random_masquerade_is_classified_as_symmetric() -> Result<()> {
    let street = Street::build()?;
    street.router.run("nft", &["flush chain inet filter postrouting"])?;
    street.router.run("nft", &["add rule inet filter postrouting oifname wan0 masquerade fully-random"])?;
    let netcheck = through_the_router(&street)?;
    let (profile, report) = (netcheck.profile(), netcheck.report());
    assert_eq!(profile.mapping, Some(Mapping::AddressAndPortDependent), "{report:?}");
    assert_eq!(profile.filtering, Some(Filtering::AddressAndPortDependent), "{report:?}");
    assert!(matches!(profile.allocation, Some(Allocation::Random) | None), "{report:?}");
    assert_eq!(netcheck.badge(), Some(Badge::Symmetric));
    Ok(())
}
