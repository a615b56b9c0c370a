//! Our STUN and TURN server with clients of other projects: coturn's `turnutils_uclient` and `turnutils_natdiscovery`,
//! and stun-client's `stun`, which still uses RFC 3489.

use partyline_tests_interop::{
    server::{Peer, SECRET, Server},
    tool,
};

fn server() -> Server {
    Server::start().expect("start partyline-server")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Udp => &[],
            Self::Tcp => &["-t"],
            Self::Tls => &["-t", "-S"],
        }
    }
}

/// coturn's client picks a TLS version at random, and some are too old for current servers. In that case it runs again.
fn run_client(arguments: &[&str]) -> String {
    let mut said = String::new();
    for _ in 0..8 {
        said = tool::run("turnutils_uclient", "coturn", arguments).expect("run turnutils_uclient");
        if !said.contains("alert handshake failure") && !said.contains("alert protocol version") {
            break;
        }
    }
    said
}

/// Runs two clients that send 20 messages each through the relay to a peer that echoes them. None may be lost.
fn relays(transport: Transport, address: &str, peer: &str, flags: &[&str]) {
    let server = server();
    let port = if transport == Transport::Tls { server.tls_port } else { server.port };
    let echo = Peer::start(peer.parse().expect("an address")).expect("start the peer");
    let (port, peer_port) = (port.to_string(), echo.port.to_string());
    let fixed = ["-u", "interop", "-W", SECRET, "-n", "20", "-m", "2", "-l", "200", "-c"];
    let places = ["-p", &port, "-e", peer, "-r", &peer_port];
    let arguments = [&fixed[..], &places, transport.flags(), flags, &[address]].concat();
    let said = run_client(&arguments);
    assert!(said.contains("tot_send_msgs=40, tot_recv_msgs=40"), "turnutils_uclient {arguments:?}\n{said}");
}

#[test]
fn relays_udp_with_channels() {
    relays(Transport::Udp, "127.0.0.1", "127.0.0.1", &[]);
}

#[test]
fn relays_udp_with_indications() {
    relays(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-s"]);
}

#[test]
fn relays_tcp_with_channels() {
    relays(Transport::Tcp, "127.0.0.1", "127.0.0.1", &[]);
}

#[test]
fn relays_tcp_with_indications() {
    relays(Transport::Tcp, "127.0.0.1", "127.0.0.1", &["-s"]);
}

#[test]
fn relays_tls_with_channels() {
    relays(Transport::Tls, "127.0.0.1", "127.0.0.1", &[]);
}

#[test]
fn relays_ipv6_over_udp() {
    relays(Transport::Udp, "::1", "::1", &["-x"]);
}

#[test]
fn relays_ipv6_over_tcp() {
    relays(Transport::Tcp, "::1", "::1", &["-x"]);
}

#[test]
fn ipv4_client_gets_an_ipv6_relayed_address() {
    relays(Transport::Udp, "127.0.0.1", "::1", &["-x"]);
}

/// The clients' peers are each other's relayed addresses, so that the data stays inside the server.
#[test]
fn clients_exchange_data_between_relayed_addresses() {
    for (transport, flags) in
        [(Transport::Udp, &["-y"][..]), (Transport::Tcp, &["-y"]), (Transport::Udp, &["-y", "-s"])]
    {
        relays(transport, "127.0.0.1", "127.0.0.1", flags);
    }
}

#[test]
fn wrong_credentials_are_rejected() {
    let server = server();
    let port = server.port.to_string();
    let arguments = [
        "-u",
        "interop",
        "-W",
        "another secret",
        "-n",
        "1",
        "-c",
        "-p",
        &port,
        "-e",
        "127.0.0.1",
        "127.0.0.1",
    ];
    let said = tool::run("turnutils_uclient", "coturn", &arguments).expect("run turnutils_uclient");
    assert!(said.contains("Cannot complete Allocation") && !said.contains("tot_recv_msgs=1"), "{said}");
}

#[test]
fn coturns_discovery_client_finds_no_nat() {
    let server = server();
    let port = server.port.to_string();
    let arguments = ["-m", "-f", "-p", &port, "127.0.0.1"];
    let said = tool::run("turnutils_natdiscovery", "coturn", &arguments).expect("run turnutils_natdiscovery");
    assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{said}");
    assert!(said.contains("NAT with Endpoint Independent Filtering!"), "{said}");
    assert_eq!(said.matches("RFC 5780 response").count(), 4, "{said}");
}

#[test]
fn rfc_3489_client_finds_no_nat() {
    let server = server();
    let address = format!("127.0.0.1:{}", server.port);
    let said = tool::run("stun", "stun-client", &[&address]).expect("run stun");
    assert!(said.contains("Primary: Open"), "{said}");
}
