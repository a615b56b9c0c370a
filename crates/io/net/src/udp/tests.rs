//! Real sockets on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{BindError, Outgoing, RecvBatch, SendDrop, UdpEndpoint};

fn v4(endpoint: &UdpEndpoint) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, endpoint.port()).into()
}

fn v6(endpoint: &UdpEndpoint) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, endpoint.port()).into()
}

/// Receives `count` datagrams: their first bytes, lengths and destinations.
async fn receive(endpoint: &UdpEndpoint, count: usize) -> Vec<(u8, usize)> {
    let mut batch = RecvBatch::new();
    let mut received = Vec::new();
    while received.len() < count {
        endpoint.recv(&mut batch).await.unwrap();
        received.extend(batch.datagrams().map(|datagram| (datagram.bytes[0], datagram.bytes.len())));
    }
    received
}

#[tokio::test]
async fn both_families_share_a_port() {
    let (a, b) = (UdpEndpoint::bind(0).unwrap(), UdpEndpoint::bind(0).unwrap());
    assert_eq!(a.port_v6(), Some(a.port()));
    assert!(a.has_v4());
    for to in [v4(&b), v6(&b)] {
        a.send(&Outgoing::one(to, b"hello")).await.unwrap();
        let mut batch = RecvBatch::new();
        b.recv(&mut batch).await.unwrap();
        let datagram = batch.datagrams().next().unwrap();
        assert_eq!((datagram.bytes, datagram.from.port()), (&b"hello"[..], a.port()));
        assert_eq!(datagram.to, Some(to.ip()));
    }
}

#[tokio::test]
async fn bursts_arrive_as_separate_datagrams() {
    let (a, b) = (UdpEndpoint::bind(0).unwrap(), UdpEndpoint::bind(0).unwrap());
    let mut bytes = Vec::new();
    for i in 0..200u8 {
        bytes.extend(std::iter::repeat_n(i, 100));
    }
    bytes.extend([200; 7]);
    let burst = Outgoing { to: v4(&b), from: None, bytes: &bytes, segment: 100 };
    a.send(&burst).await.unwrap();
    let received = receive(&b, 201).await;
    let expected: Vec<_> = (0..200).map(|i| (i, 100)).chain([(200, 7)]).collect();
    assert_eq!(received, expected);
    assert_eq!((a.counters().sent_datagrams, a.counters().sent_bytes), (201, 20_007));
    assert_eq!((b.counters().received_datagrams, b.counters().received_bytes), (201, 20_007));
}

#[tokio::test]
async fn a_taken_port_is_named_in_the_error() {
    let a = UdpEndpoint::bind(0).unwrap();
    let error = UdpEndpoint::bind(a.port()).unwrap_err();
    assert!(matches!(error, BindError::InUse { port } if port == a.port()), "{error}");
}

#[tokio::test]
async fn unsendable_datagrams_are_counted_and_do_not_disturb_others() {
    let (a, b) = (UdpEndpoint::bind(0).unwrap(), UdpEndpoint::bind(0).unwrap());
    let long = vec![1; 65_530];
    assert_eq!(a.send(&Outgoing::one(v4(&b), &long)).await, Err(SendDrop::TooBig));
    // Nobody listens there; the kernel's answer must not disturb either side.
    let closed = UdpEndpoint::bind(0).unwrap();
    let nowhere = v4(&closed);
    drop(closed);
    let _ = a.send(&Outgoing::one(nowhere, b"?")).await;
    let _ = a.send(&Outgoing::one(nowhere, b"?")).await;
    a.send(&Outgoing::one(v4(&b), b"fine")).await.unwrap();
    assert_eq!(receive(&b, 1).await, [(b'f', 4)]);
    assert_eq!(a.counters().drops.too_big, 1);
}

#[tokio::test]
async fn receiving_without_datagrams_is_not_an_error() {
    let a = UdpEndpoint::bind(0).unwrap();
    assert!(!a.try_recv(&mut RecvBatch::new()).unwrap());
}

#[tokio::test]
async fn rebinding_keeps_the_port() {
    let mut a = UdpEndpoint::bind(0).unwrap();
    let b = UdpEndpoint::bind(0).unwrap();
    let port = a.port();
    a.rebind().unwrap();
    assert_eq!((a.port(), a.port_v6()), (port, Some(port)));
    b.send(&Outgoing::one(v6(&a), b"still there")).await.unwrap();
    assert_eq!(receive(&a, 1).await, [(b's', 11)]);
}

#[tokio::test]
async fn counters_do_not_go_back_when_the_sockets_are_reopened() {
    let mut endpoint = UdpEndpoint::bind(0).unwrap();
    let refused = std::io::Error::from(std::io::ErrorKind::InvalidInput);
    for socket in [&endpoint.v4, &endpoint.v6].into_iter().flatten() {
        socket.on_gso_refused(&refused);
    }
    let to = ([127, 0, 0, 1], endpoint.port()).into();
    endpoint.send(&Outgoing::one(to, b"counted")).await.unwrap();
    let before = endpoint.counters();
    assert!(before.gso_fallbacks > 0 && before.sent_datagrams == 1);
    endpoint.rebind().unwrap();
    assert_eq!(endpoint.counters(), before);
    if let Some(socket) = &endpoint.v4 {
        socket.on_gso_refused(&refused);
        assert_eq!(endpoint.counters().gso_fallbacks, before.gso_fallbacks + 1);
    }
}
