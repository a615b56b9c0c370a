//! Datagrams and streams through NATs, lines and servers.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::{Nat, Rules};
use partyline_relay::{PeerPolicy, Secret, Settings};
use partyline_tests_netsim::{
    Card, Delivery, Direction, Event, HostId, Line, LongTermCredentials, Output, Overlay, Place, RouterId,
    Segment, Simulation, StunServer, TurnServer, stun,
};

const SECOND: Duration = Duration::from_secs(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn restricted() -> Rules {
    Rules::new(
        Mapping::EndpointIndependent,
        Filtering::AddressAndPortDependent,
        Allocation::Contiguous { delta: 1 },
    )
}

fn router(net: &mut Simulation<()>, above: Place, external: &str, rules: Rules) -> RouterId {
    net.network.add_router(above, Nat::new(1, external.parse().unwrap(), rules))
}

fn host(net: &mut Simulation<()>, place: Place, ip: &str) -> HostId {
    net.network.add_host(place, [ip.parse().unwrap()], Line::GOOD)
}

/// Returns the datagrams that arrive within a second.
fn arrivals(net: &mut Simulation<()>) -> Vec<Delivery> {
    let end = net.now().instant + SECOND;
    let datagrams = std::iter::from_fn(|| net.next(end)).map(|event| match event {
        Event::Datagram(delivery) => delivery,
        other => panic!("{other:?}"),
    });
    datagrams.collect()
}

/// Sends one datagram and returns who received it, from where, at which address and when.
fn send(
    net: &mut Simulation<()>,
    from: HostId,
    source: &str,
    to: SocketAddr,
) -> Option<(HostId, SocketAddr, SocketAddr)> {
    net.send(from, address(source), to, b"hello".to_vec());
    let mut arrived = arrivals(net);
    assert!(arrived.len() <= 1);
    arrived.pop().map(|delivery| (delivery.host, delivery.source, delivery.destination))
}

#[test]
fn nat_translates_and_filters_both_ways() {
    let mut net = Simulation::new(1);
    let home = router(&mut net, None, "12.0.0.1", restricted());
    let client = host(&mut net, Some(home), "192.168.1.2");
    let [server, stranger] = ["11.0.0.1", "11.0.0.2"].map(|ip| host(&mut net, None, ip));
    let (_, seen, _) = send(&mut net, client, "192.168.1.2:5000", address("11.0.0.1:1")).unwrap();
    assert_eq!(seen.ip(), address("12.0.0.1:0").ip());
    let back = send(&mut net, server, "11.0.0.1:1", seen);
    assert_eq!(back, Some((client, address("11.0.0.1:1"), address("192.168.1.2:5000"))));
    assert_eq!(send(&mut net, server, "11.0.0.1:2", seen), None, "another port is filtered");
    assert_eq!(send(&mut net, stranger, "11.0.0.2:1", seen), None, "another address is filtered");
    net.network.routers[home].udp = false;
    assert_eq!(send(&mut net, server, "11.0.0.1:1", seen), None, "UDP is blocked");
    assert_eq!(send(&mut net, client, "192.168.1.2:5000", address("11.0.0.1:1")), None, "UDP is blocked");
}

#[test]
fn two_nats_translate_one_after_the_other() {
    let mut net = Simulation::new(2);
    let carrier = router(&mut net, None, "12.0.0.1", restricted());
    let home = router(&mut net, Some(carrier), "100.64.0.1", restricted());
    let other = router(&mut net, Some(carrier), "100.64.0.2", Rules { hairpin: true, ..restricted() });
    let [client, neighbor] = [home, other].map(|home| host(&mut net, Some(home), "192.168.1.2"));
    let server = host(&mut net, None, "11.0.0.1");
    let (_, seen, _) = send(&mut net, client, "192.168.1.2:5000", address("11.0.0.1:1")).unwrap();
    assert_eq!(seen.ip(), address("12.0.0.1:0").ip());
    assert_eq!(net.network.public_address(client), Some(seen.ip()));
    let (at, _, inside) = send(&mut net, server, "11.0.0.1:1", seen).unwrap();
    assert_eq!((at, inside), (client, address("192.168.1.2:5000")));
    // Within the carrier's network, a mapped port of the other home is reached without the carrier's NAT.
    let mapped = net.network.routers[other].map_port(address("192.168.1.2:6000"));
    let (at, source, _) = send(&mut net, client, "192.168.1.2:5000", mapped).unwrap();
    assert_eq!((at, source.ip()), (neighbor, address("100.64.0.1:0").ip()));
}

#[test]
fn hairpinning_depends_on_the_nat() {
    for hairpin in [false, true] {
        let mut net = Simulation::new(3);
        let rules = Rules { hairpin, filtering: Filtering::EndpointIndependent, ..restricted() };
        let home = router(&mut net, None, "12.0.0.1", rules);
        let [one, other] = ["192.168.1.2", "192.168.1.3"].map(|ip| host(&mut net, Some(home), ip));
        host(&mut net, None, "11.0.0.1");
        let (_, seen, _) = send(&mut net, other, "192.168.1.3:5000", address("11.0.0.1:1")).unwrap();
        let found = send(&mut net, one, "192.168.1.2:5000", seen);
        assert_eq!(found.map(|(at, source, _)| (at, source.ip())), hairpin.then_some((other, seen.ip())));
        // At its private address a neighbor is reached without the NAT.
        let found = send(&mut net, one, "192.168.1.2:5000", address("192.168.1.3:5000"));
        assert_eq!(found.map(|(at, source, _)| (at, source)), Some((other, address("192.168.1.2:5000"))));
    }
}

#[test]
fn ipv6_is_filtered_but_not_translated() {
    let mut net = Simulation::new(4);
    let home = router(&mut net, None, "12.0.0.1", restricted());
    let client = host(&mut net, Some(home), "2001:db8:1::2");
    let server = host(&mut net, None, "2001:db8:2::1");
    let inside = address("[2001:db8:1::2]:5000");
    assert_eq!(send(&mut net, server, "[2001:db8:2::1]:1", inside), None, "nothing was sent yet");
    let (_, seen, _) = send(&mut net, client, "[2001:db8:1::2]:5000", address("[2001:db8:2::1]:1")).unwrap();
    assert_eq!(seen, inside);
    assert_eq!(send(&mut net, server, "[2001:db8:2::1]:1", inside).map(|(at, ..)| at), Some(client));
    assert_eq!(net.network.routers[home].map_port(inside), inside);
    assert!(send(&mut net, server, "[2001:db8:2::1]:2", inside).is_some(), "by the pinhole");
}

#[test]
fn cuts_moves_and_sleep_stop_datagrams() {
    let mut net = Simulation::new(5);
    let [one, other] = ["11.0.0.1", "11.0.0.2"].map(|ip| host(&mut net, None, ip));
    let there = |net: &mut Simulation<()>| send(net, one, "11.0.0.1:1", address("11.0.0.2:1")).is_some();
    net.network.cut(other, one);
    assert!(!there(&mut net));
    net.network.restore_cuts();
    assert!(there(&mut net));
    net.network.hosts[other].asleep = true;
    assert!(!there(&mut net));
    net.network.hosts[other].asleep = false;
    net.network.move_host(other, None, [[11, 0, 0, 3].into()]);
    assert!(!there(&mut net));
    assert!(send(&mut net, one, "11.0.0.1:1", address("11.0.0.3:1")).is_some());
}

#[test]
fn lines_at_both_ends_add_up_and_duplicate() {
    let mut net = Simulation::new(6);
    let [one, other] = ["11.0.0.1", "11.0.0.2"].map(|ip| host(&mut net, None, ip));
    net.network.hosts[other].line.duplication = 1.0;
    net.network.hosts[one].wireless = Some(Line { latency: Duration::from_millis(3), ..Line::IDEAL });
    net.send(one, address("11.0.0.1:1"), address("11.0.0.2:1"), vec![1]);
    let end = net.now().instant + SECOND;
    let times: Vec<_> = std::iter::from_fn(|| net.next(end).map(|_| net.elapsed())).collect();
    assert_eq!(times, [23, 24].map(Duration::from_millis), "the original and its duplicate");
    net.network.hosts[one].wireless = Some(Line { loss: 1.0, ..Line::IDEAL });
    assert_eq!(send(&mut net, one, "11.0.0.1:1", address("11.0.0.2:1")), None);
}

#[test]
fn rate_of_a_line_limits_throughput() {
    let mut net = Simulation::new(7);
    let [one, _] = ["11.0.0.1", "11.0.0.2"].map(|ip| host(&mut net, None, ip));
    net.network.hosts[one].line.rate = Some(100_000);
    for _ in 0..100 {
        net.send(one, address("11.0.0.1:1"), address("11.0.0.2:1"), vec![0; 1_000]);
    }
    let start = net.elapsed();
    assert_eq!(arrivals(&mut net).len(), 31, "as many as the queue of the line holds");
    assert!(net.elapsed() - start >= Duration::from_millis(310));
}

#[test]
fn streams_keep_their_order_on_a_bad_line() {
    let mut net = Simulation::<()>::new(8);
    let [client, server] = ["11.0.0.1", "11.0.0.2"].map(|ip| host(&mut net, None, ip));
    net.network.hosts[client].line = Line { loss: 0.3, jitter: Duration::from_millis(50), ..Line::GOOD };
    let stream = net.streams.open(net.now().instant, client, server);
    (0..100).for_each(|number| net.write(stream, Direction::ToServer, vec![number]));
    let end = net.now().instant + SECOND;
    let bytes = |event| match event {
        Event::Segment(Segment { client: by, bytes: Some(bytes), .. }) if by == client => bytes[0],
        other => panic!("{other:?}"),
    };
    let received: Vec<u8> = std::iter::from_fn(|| net.next(end)).map(bytes).collect();
    assert_eq!(received, (0..100).collect::<Vec<u8>>());
    net.streams.break_all_of(client);
    net.write(stream, Direction::ToServer, vec![1]);
    assert_eq!(net.next(end + SECOND), None);
}

#[test]
fn stun_server_is_reached_through_a_nat() {
    let mut net = Simulation::<()>::new(9);
    let home = router(&mut net, None, "12.0.0.1", restricted());
    let client = host(&mut net, Some(home), "192.168.1.2");
    let server = StunServer::new([11, 0, 1, 1], 3478).with_other([11, 0, 1, 2], 3479);
    let server_host = net.network.add_host(None, server.ips(), Line::IDEAL);
    let request = stun::encode(&stun::request(stun_rs::methods::BINDING).build());
    net.send(client, address("192.168.1.2:5000"), server.address, request);
    let delivery = arrivals(&mut net).pop().unwrap();
    assert_eq!(delivery.host, server_host);
    let response = server.respond(delivery.destination, delivery.source, &delivery.bytes).unwrap();
    net.send(server_host, response.source, response.destination, response.bytes);
    let delivery = arrivals(&mut net).pop().unwrap();
    assert_eq!((delivery.host, delivery.destination), (client, address("192.168.1.2:5000")));
}

/// Sends a request from a client with a public address over the network, and returns the response.
fn ask(net: &mut Simulation<()>, server: &mut TurnServer, client: HostId, request: &[u8]) -> Vec<u8> {
    net.send(client, address("11.0.0.5:5000"), address("11.0.255.1:3478"), request.to_vec());
    let delivery = arrivals(net).pop().unwrap();
    let mut outputs = server.receive(net.now(), &delivery);
    let Some(Output::Datagram { source, destination, bytes }) = outputs.pop() else { panic!("no response") };
    net.send(delivery.host, source, destination, bytes);
    arrivals(net).pop().unwrap().bytes
}

#[test]
fn turn_server_relays_between_a_client_and_a_peer() {
    let mut net = Simulation::<()>::new(10);
    let [client, peer] = ["11.0.0.5", "11.0.0.6"].map(|ip| host(&mut net, None, ip));
    let relay = host(&mut net, None, "11.0.255.1");
    let settings = Settings {
        users: [("ann".to_owned(), Secret::new("secret"))].into(),
        peers: PeerPolicy { allow_private: true, denied: Vec::new() },
        foreign_payloads: true,
        ..Settings::default()
    };
    let (realm, listener) = (settings.realm.clone(), address("11.0.255.1:3478"));
    let mut server = TurnServer::new(settings, vec![listener], &[listener.ip()], net.dice.seed());
    let mut ask =
        |net: &mut _, message| stun::decode(&ask(net, &mut server, client, &stun::encode(&message))).unwrap();
    let challenge = ask(&mut net, stun::allocate().build());
    let credentials = LongTermCredentials::from_challenge(&challenge, &realm, "ann", "secret");
    let allocated = ask(&mut net, credentials.sign(stun::allocate()));
    let relayed = stun::relayed_address(&allocated);
    let bound = ask(&mut net, credentials.sign(stun::channel_bind(0x4000, address("11.0.0.6:6000"))));
    assert_eq!((relayed.ip(), stun::error_code(&bound)), (listener.ip(), 0));
    assert_eq!((server.allocations(), server.open_sockets()), (1, 1));

    net.send(peer, address("11.0.0.6:6000"), relayed, b"to the client".to_vec());
    let delivery = arrivals(&mut net).pop().unwrap();
    assert_eq!(delivery.host, relay);
    let expected = Output::Datagram {
        source: listener,
        destination: address("11.0.0.5:5000"),
        bytes: stun::channel_data(0x4000, b"to the client"),
    };
    assert_eq!(server.receive(net.now(), &delivery), [expected]);
    net.advance_to(net.now().instant + Duration::from_secs(601));
    server.handle_timeout(net.now());
    assert_eq!((server.allocations(), server.open_sockets()), (0, 0), "the allocation has expired");
}

#[test]
fn virtual_cards_lead_to_the_members_of_their_vpn_or_nowhere() {
    let mut net = Simulation::new(9);
    let homes = ["12.0.0.1", "12.0.0.2"].map(|external| router(&mut net, None, external, restricted()));
    let [one, other] = homes.map(|home| host(&mut net, Some(home), "192.168.1.2"));
    net.network.overlays = vec![Overlay { line: Line::GOOD, up: true, multicast: false }];
    let card = |text: &str, overlay| Card { network: text.parse().unwrap(), overlay };
    for (host, own) in [(one, "10.147.0.1/24"), (other, "10.147.0.2/24")] {
        net.network.hosts[host].cards = vec![card("172.17.0.1/16", None), card(own, Some(0))];
    }
    let source = |net: &Simulation<()>, to: &str| net.network.hosts[one].source_to(to.parse().unwrap());
    assert_eq!(source(&net, "10.147.0.2"), Some([10, 147, 0, 1].into()));
    assert_eq!(source(&net, "11.0.0.1"), Some([192, 168, 1, 2].into()));
    let there = address("10.147.0.2:7");
    assert_eq!(send(&mut net, one, "10.147.0.1:5", there), Some((other, address("10.147.0.1:5"), there)));
    let itself = address("172.17.0.1:7");
    assert_eq!(send(&mut net, one, "172.17.0.1:5", itself).map(|(host, ..)| host), Some(one));
    assert_eq!(send(&mut net, one, "172.17.0.1:5", address("172.17.0.2:7")), None, "nobody is there");
    assert_eq!(net.network.overlay_neighbors(one).count(), 0);
    net.network.overlays[0].multicast = true;
    assert_eq!(net.network.overlay_neighbors(one).collect::<Vec<_>>(), [(other, [10, 147, 0, 1].into())]);
    net.network.overlays[0].up = false;
    assert_eq!(send(&mut net, one, "10.147.0.1:5", there), None, "it carries nothing");
}
