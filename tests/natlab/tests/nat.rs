//! Tests of the user-space NAT with plain sockets. Where the kernel implements a NAT type, model and kernel have to
//! behave the same.

#![allow(clippy::unwrap_used)]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use natlab::{Host, Lab, Nat, RouterOptions};
use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::{Protocol, Rules};

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(60);
const PORT: u16 = 40_000;

const CONE: Rules =
    Rules::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, Allocation::Preserving);
const SYMMETRIC: Rules =
    Rules::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent, Allocation::Random);

/// The observable behavior of a NAT. For each of four destinations (two addresses with two ports each): the number of
/// the mapping, and whether it kept the port. For each of the four as a sender: whether its packets are let in, first
/// when only one destination has been sent to, and then by each mapping.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    mappings: Vec<(usize, bool)>,
    first: Vec<bool>,
    all: Vec<Vec<bool>>,
}

/// A NAT with one socket behind it and four sockets outside.
trait Behind {
    /// Sends to a destination, and returns the external address that it sees.
    fn send(&mut self, to: usize) -> SocketAddr;
    /// Returns true if a packet from there is let in at `external`, which belongs to the mapping for the destination
    /// `known`.
    fn passes(&mut self, from: usize, external: SocketAddr, known: usize) -> bool;
}

fn show(nat: &mut impl Behind) -> Shown {
    let begun = nat.send(0);
    let first = (0..4).map(|from| nat.passes(from, begun, 0)).collect();
    let seen: Vec<_> = (0..4).map(|to| nat.send(to)).collect();
    let number = |external: &SocketAddr| seen.iter().position(|other| other == external).unwrap();
    let mappings = seen.iter().map(|external| (number(external), external.port() == PORT)).collect();
    let mut all = Vec::new();
    for (known, external) in seen.iter().enumerate() {
        all.push((0..4).map(|from| nat.passes(from, *external, known)).collect());
    }
    Shown { mappings, first, all }
}

struct Real {
    inside: UdpSocket,
    outside: Vec<UdpSocket>,
}

impl Real {
    fn new(home: &Host, servers: [&Host; 2]) -> Self {
        let bind = |host: &Host, ip: Ipv4Addr, port| {
            let socket = host.enter(|| UdpSocket::bind((ip, port))).unwrap().unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket
        };
        let outside = servers.iter().flat_map(|host| [7001, 7002].map(|port| bind(host, host.v4(), port)));
        Self { inside: bind(home, home.v4(), PORT), outside: outside.collect() }
    }
}

impl Behind for Real {
    fn send(&mut self, to: usize) -> SocketAddr {
        self.inside.send_to(b"out", self.outside[to].local_addr().unwrap()).unwrap();
        self.outside[to].recv_from(&mut [0; 16]).unwrap().1
    }

    fn passes(&mut self, from: usize, external: SocketAddr, known: usize) -> bool {
        let probe = [b'p', from as u8];
        self.outside[from].send_to(&probe, external).unwrap();
        self.outside[known].send_to(b"end", external).unwrap();
        let (mut passed, mut buffer) = (false, [0; 16]);
        self.inside.set_read_timeout(Some(LONG)).unwrap();
        // The probe takes another path than the end marker, and may arrive a moment after it.
        while let Ok(length) = self.inside.recv(&mut buffer) {
            passed |= buffer[..length] == probe;
            if &buffer[..length] == b"end" {
                self.inside.set_read_timeout(Some(SHORT)).unwrap();
            }
        }
        passed
    }
}

struct Pure(partyline_nat::Nat, Instant);

impl Pure {
    const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10)), PORT);

    fn outside(number: usize) -> SocketAddr {
        ([11, 0, 0, number as u8 / 2], 7001 + number as u16 % 2).into()
    }
}

impl Behind for Pure {
    fn send(&mut self, to: usize) -> SocketAddr {
        self.0.outbound(self.1, Protocol::Udp, Self::INSIDE, Self::outside(to)).unwrap()
    }

    fn passes(&mut self, from: usize, external: SocketAddr, _: usize) -> bool {
        self.0.inbound(self.1, Protocol::Udp, external, Self::outside(from)) == Some(Self::INSIDE)
    }
}

#[test]
fn modelled_nat_behaves_as_the_kernels_masquerade() {
    let lab = Lab::new().unwrap();
    let (one, two) = (lab.server("one").unwrap(), lab.server("two").unwrap());
    for (number, kernel, rules) in [(0, Nat::PortRestricted, CONE), (1, Nat::Symmetric, SYMMETRIC)] {
        let home = |name: &str, nat| {
            let options = RouterOptions { nat, ..RouterOptions::HOME };
            show(&mut Real::new(&lab.home(&format!("{name}{number}"), options).unwrap(), [&one, &two]))
        };
        let pure = partyline_nat::Nat::new(1, Ipv4Addr::new(11, 0, 0, 9).into(), rules);
        let model = show(&mut Pure(pure, Instant::now()));
        assert_eq!(home("kernel", kernel), model, "{rules:?}");
        assert_eq!(home("modelled", Nat::Modelled(rules)), model, "{rules:?}");
    }
}

#[test]
fn user_space_nat_translates_tcp_echo_and_icmp_errors() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let options = RouterOptions { nat: Nat::Modelled(SYMMETRIC), ..RouterOptions::HOME };
    let home = lab.home("home", options).unwrap();
    let listener = server.enter(|| TcpListener::bind((server.v4(), 80))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = home.enter(|| TcpStream::connect_timeout(&address, LONG)).unwrap().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let sent: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || client.write_all(&copy));
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(got, sent);

    home.run("ping", &["-c", "1", "-W", "5", &server.v4().to_string()]).unwrap();

    let socket = home.enter(|| UdpSocket::bind((home.v4(), 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.connect((server.v4(), 9)).unwrap();
    socket.send(b"nobody is there").unwrap();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn user_space_nat_hairpins_between_two_hosts() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let filtering = Filtering::EndpointIndependent;
    let options = RouterOptions {
        nat: Nat::Modelled(Rules { hairpin: true, filtering, ..CONE }),
        ..RouterOptions::HOME
    };
    let site = lab.site("home", options).unwrap();
    let (one, two) = (site.host("one").unwrap(), site.host("two").unwrap());
    let bind = |host: &Host| {
        let socket = host.enter(|| UdpSocket::bind((host.v4(), PORT))).unwrap().unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    let (one, two) = (bind(&one), bind(&two));
    one.send_to(b"open", (server.v4(), 9)).unwrap();
    let outside = SocketAddr::new(site.outside().unwrap().into(), PORT);
    two.send_to(b"hello", outside).unwrap();
    let mut buffer = [0; 16];
    // The server refuses the packet that opened the mapping, and its ICMP error may arrive first.
    let (length, from) = one.recv_from(&mut buffer).or_else(|_| one.recv_from(&mut buffer)).unwrap();
    assert_eq!(&buffer[..length], b"hello");
    assert_eq!(from, SocketAddr::new(outside.ip(), PORT + 1), "the port of the first is taken");
    one.send_to(b"hello back", from).unwrap();
    assert_eq!(two.recv_from(&mut buffer).unwrap(), (10, outside));
}
