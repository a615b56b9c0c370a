//! Tests of the lab itself with plain sockets.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use natlab::{Host, Lab, RouterOptions, checked, sweep, traffic};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

fn bind(host: &Host, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port))));
    let socket = socket.unwrap().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn bind_v4(host: &Host) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// Sends a packet to `address`, and returns the sender's address as `to` sees it.
fn seen(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> SocketAddr {
    from.send_to(b"hello", address).unwrap();
    let (_, sender) = to.recv_from(&mut [0; 16]).unwrap();
    SocketAddr::new(sender.ip().to_canonical(), sender.port())
}

fn hears_nothing(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SHORT)).unwrap();
    let silent = socket.recv(&mut [0; 16]).is_err();
    socket.set_read_timeout(Some(LONG)).unwrap();
    silent
}

fn connects(from: &Host, to: SocketAddr) -> bool {
    from.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(800)).is_ok()).unwrap()
}

fn listen(on: &Host, port: u16) -> TcpListener {
    on.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap().unwrap()
}

#[test]
fn masquerade_keeps_one_port_for_all_destinations_and_accepts_responses() {
    let lab = Lab::new().unwrap();
    let (one, two) = (lab.server("one").unwrap(), lab.server("two").unwrap());
    let site = lab.site("home", RouterOptions::HOME).unwrap();
    let home = site.host("pc").unwrap();
    let (first, second, inside) = (bind(&one, 5000), bind(&two, 5000), bind_v4(&home));

    let seen_by_one = seen(&inside, &first, (one.v4(), 5000).into());
    let seen_by_two = seen(&inside, &second, (two.v4(), 5000).into());

    assert_eq!(seen_by_one.ip(), IpAddr::from(site.public_v4().unwrap()));
    assert_eq!(seen_by_one, seen_by_two);
    first.send_to(b"answer", SocketAddr::new(mapped(seen_by_one.ip()), seen_by_one.port())).unwrap();
    assert_eq!(inside.recv(&mut [0; 16]).unwrap(), 6);
}

/// Maps an IPv4 address to IPv6, as a dual-stack socket needs it.
fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    }
}

#[test]
fn symmetric_router_allocates_a_port_per_destination() {
    let lab = Lab::new().unwrap();
    let (one, two) = (lab.server("one").unwrap(), lab.server("two").unwrap());
    let home = lab.home("pc", RouterOptions::SYMMETRIC).unwrap();
    let (first, second, inside) = (bind(&one, 5000), bind(&two, 5000), bind_v4(&home));

    let seen_by_one = seen(&inside, &first, (one.v4(), 5000).into());
    let seen_by_two = seen(&inside, &second, (two.v4(), 5000).into());

    assert_ne!(seen_by_one.port(), seen_by_two.port());
}

#[test]
fn homes_drop_unsolicited_packets_but_can_be_hole_punched() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let (alice, bob) =
        (lab.home("alice", RouterOptions::HOME).unwrap(), lab.home("bob", RouterOptions::HOME).unwrap());
    let (meeting, a, b) = (bind(&server, 5000), bind_v4(&alice), bind_v4(&bob));
    let at_a = seen(&a, &meeting, (server.v4(), 5000).into());
    let at_b = seen(&b, &meeting, (server.v4(), 5000).into());

    a.send_to(b"unsolicited", at_b).unwrap();
    assert!(hears_nothing(&b));

    b.send_to(b"hole", at_a).unwrap();
    assert_eq!(a.recv(&mut [0; 16]).unwrap(), 4);
    a.send_to(b"hole!", at_b).unwrap();
    assert_eq!(b.recv(&mut [0; 16]).unwrap(), 5);
}

#[test]
fn blocked_udp_passes_again_once_unblocked() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let (alice, bob) = (
        lab.home("alice", RouterOptions::HOME).unwrap(),
        lab.home("bob", RouterOptions::DUAL_STACK).unwrap(),
    );
    let (meeting, a, b) = (bind(&server, 5000), bind_v4(&alice), bind_v4(&bob));
    let at_a = seen(&a, &meeting, (server.v4(), 5000).into());
    let at_b = seen(&b, &meeting, (server.v4(), 5000).into());

    lab.block_udp(&alice, &bob).unwrap();
    a.send_to(b"1", at_b).unwrap();
    b.send_to(b"2", at_a).unwrap();
    assert!(hears_nothing(&a) && hears_nothing(&b));
    assert_eq!(seen(&a, &meeting, (server.v4(), 5000).into()), at_a, "others are still reached");

    lab.unblock().unwrap();
    a.send_to(b"1", at_b).unwrap();
    b.send_to(b"2", at_a).unwrap();
    assert!(!hears_nothing(&a));
}

#[test]
fn office_passes_only_outgoing_https() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let office = lab.home("clerk", RouterOptions::OFFICE).unwrap();
    let (_https, _other, echo) = (listen(&server, 443), listen(&server, 8443), bind(&server, 443));

    assert!(connects(&office, (server.v4(), 443).into()));
    assert!(!connects(&office, (server.v4(), 8443).into()));
    bind_v4(&office).send_to(b"udp", (server.v4(), 443)).unwrap();
    assert!(hears_nothing(&echo));
}

#[test]
fn lan_without_router_reaches_neighbors_only() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let cabin = lab.lonely_lan("cabin").unwrap();
    let (one, two) = (cabin.host("one").unwrap(), cabin.host("two").unwrap());
    let (_public, _near) = (listen(&server, 443), listen(&two, 443));

    assert!(connects(&one, (two.v4(), 443).into()));
    assert!(!connects(&one, (server.v4(), 443).into()));
}

#[test]
fn ipv6_is_end_to_end_behind_a_stateful_firewall() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let home = lab.home("pc", RouterOptions::DUAL_STACK).unwrap();
    let (outside, inside) = (bind(&server, 5000), bind(&home, 5000));
    let (server_v6, home_v6) = (server.v6().unwrap(), home.v6().unwrap());

    outside.send_to(b"unsolicited", (home_v6, 5000)).unwrap();
    assert!(hears_nothing(&inside));
    assert_eq!(seen(&inside, &outside, (server_v6, 5000).into()), (home_v6, 5000).into());
    outside.send_to(b"answer", (home_v6, 5000)).unwrap();
    assert_eq!(inside.recv(&mut [0; 16]).unwrap(), 6);
}

#[test]
fn cut_cable_carries_nothing_until_restored() {
    let lab = Lab::new().unwrap();
    let (server, home) = (lab.server("server").unwrap(), lab.home("pc", RouterOptions::HOME).unwrap());
    for computer in [&server, &home] {
        let (outside, inside) = (bind(&server, 0), bind_v4(&home));
        let address = (server.v4(), outside.local_addr().unwrap().port()).into();
        seen(&inside, &outside, address);
        computer.cut().unwrap();
        let _ = inside.send_to(b"lost", address);
        assert!(hears_nothing(&outside));
        computer.restore().unwrap();
        natlab::until("traffic again", LONG, || {
            inside.send_to(b"back", address)?;
            outside.set_read_timeout(Some(SHORT))?;
            Ok(outside.recv(&mut [0; 16])?)
        })
        .unwrap();
    }
}

#[test]
fn traffic_is_verified_and_broadcasts_are_received() {
    let lab = Lab::new().unwrap();
    let site = lab.site("lan", RouterOptions::HOME).unwrap();
    let hosts: Vec<Host> = ["a", "b", "c"].iter().map(|name| site.host(name).unwrap()).collect();
    let address = hosts[1].v4().into();
    traffic::tcp(&hosts[0], &hosts[1], address, 1 << 20).unwrap();
    traffic::udp(&hosts[0], &hosts[1], address, 200, 1200).unwrap();

    let flow = traffic::Flow::start(&hosts[0], &hosts[1], address).unwrap();
    let listeners: Vec<_> =
        hosts[1..].iter().map(|host| traffic::Listener::start(host, 27015).unwrap()).collect();
    traffic::send_broadcast(&hosts[0], (Ipv4Addr::new(192, 168, 1, 255), 27015).into(), "who is there?")
        .unwrap();
    let expected: BTreeMap<_, _> = [("who is there?".to_owned(), vec![IpAddr::from(hosts[0].v4())])].into();
    for listener in listeners {
        natlab::until("the broadcast", LONG, || {
            let received = listener.received();
            anyhow::ensure!(received == expected, "received {received:?}");
            Ok(())
        })
        .unwrap();
    }
    assert!(flow.stop().unwrap().rounds > 0);
}

#[test]
fn programs_run_in_their_namespace_and_their_output_is_kept() {
    let lab = Lab::new().unwrap();
    let server = lab.server("server").unwrap();
    let mut command = server.command("sh");
    command.args(["-c", "ip -o -4 addr show dev wan0; sleep 60"]);
    let mut process = server.spawn("show", command).unwrap();
    process.wait_for_log("11.0.0.1", LONG).unwrap();
    process.alive().unwrap();
    process.kill().unwrap();
    let said = server.run("sh", &["-c", "echo told; echo why >&2; exit 3"]).unwrap_err().to_string();
    assert!(said.contains("told") && said.contains("why"), "{said}");
}

#[test]
fn dropped_lab_removes_namespaces_and_files() {
    let lab = Lab::new().unwrap();
    let directory = lab.directory().to_owned();
    let prefix = directory.file_name().unwrap().to_str().unwrap().to_owned();
    let home = lab.home("pc", RouterOptions::HOME).unwrap();
    let mut command = home.command("sleep");
    command.arg("60");
    let process = home.spawn("sleep", command).unwrap();
    assert_eq!(namespaces(&prefix).len(), 3);

    drop(lab);
    assert_eq!(namespaces(&prefix), Vec::<String>::new());
    assert!(!directory.exists());
    drop(process);
}

#[test]
fn sweep_removes_labs_of_dead_processes() {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_natlab"))
        .args(["shell", "alice"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (lab.stdin.take().unwrap(), BufReader::new(lab.stdout.take().unwrap()));
    keys.write_all(b"echo ready $((6 * 7))\n").unwrap();
    let mut line = String::new();
    while !line.contains("ready 42") {
        line.clear();
        assert_ne!(screen.read_line(&mut line).unwrap(), 0, "the lab ended early");
    }
    let prefix = format!("{}{}-", sweep::PREFIX, lab.id());
    assert!(namespaces(&prefix).len() > 3);

    lab.kill().unwrap();
    lab.wait().unwrap();
    assert!(namespaces(&prefix).len() > 3, "a killed process cannot clean up");
    let swept = sweep::sweep().unwrap();
    assert!(swept.iter().any(|name| name.starts_with(&prefix)), "{swept:?}");
    assert_eq!(namespaces(&prefix), Vec::<String>::new());
}

fn namespaces(prefix: &str) -> Vec<String> {
    let all = checked(Command::new("ip").args(["netns", "list"])).unwrap();
    all.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
}
