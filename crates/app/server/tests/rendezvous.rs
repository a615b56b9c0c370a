//! The rendezvous protocol and STUN over real sockets, with and without TLS.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::SocketAddr;

use common::{Authority, Member, client, config, config_with_relay, handle, load, send, start, topic};
use partyline_net::TlsClient;
use partyline_server::config::Args;
use partyline_wire::rendezvous::{ClientFrame, ServerFrame, TopicMember};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Two members enter a topic, exchange messages, and leave.
async fn exchange(url: &str, client: &TlsClient) {
    let mut a = Member::connect_to(url, client).await.unwrap();
    a.send_frame(&a.enter_frame(1, 1)).await;
    assert_eq!(a.receive().await, ServerFrame::Roster { topic: topic(1), members: vec![], more: false });
    a.send_frame(&send(2, 1, b"wait for me")).await;

    let mut b = Member::connect_to(url, client).await.unwrap();
    b.send_frame(&b.enter_frame(1, 2)).await;
    let members = vec![TopicMember { handle: handle(1), record: vec![1] }];
    assert_eq!(b.receive().await, ServerFrame::Roster { topic: topic(1), members, more: false });
    let message = b"wait for me".to_vec();
    assert_eq!(b.receive().await, ServerFrame::Message { topic: topic(1), from: handle(1), message });
    assert_eq!(
        a.receive().await,
        ServerFrame::Present { topic: topic(1), handle: handle(2), record: vec![2] }
    );

    let long = vec![9; 16 * 1024];
    b.send_frame(&send(1, 2, &long)).await;
    assert_eq!(a.receive().await, ServerFrame::Message { topic: topic(1), from: handle(2), message: long });
    b.send_frame(&ClientFrame::Announce { topic: topic(1), record: b"moved".to_vec() }).await;
    let record = b"moved".to_vec();
    assert_eq!(a.receive().await, ServerFrame::Present { topic: topic(1), handle: handle(2), record });
    a.send_frame(&ClientFrame::Time { echo: 77 }).await;
    assert!(matches!(a.receive().await, ServerFrame::TimeReply { echo: 77, .. }));

    b.socket.close().await;
    assert_eq!(a.receive().await, ServerFrame::Gone { topic: topic(1), handle: handle(2) });
}

#[tokio::test]
async fn members_exchange_messages_without_tls() {
    let (server, address) = start(config());
    exchange(&format!("ws://{address}"), &client()).await;
    server.stop().await;
}

#[tokio::test]
async fn members_exchange_messages_over_tls() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", (2020, 2100));
    let args =
        Args { tls_certificate: Some(certificate), tls_key: Some(key), no_relay: true, ..Args::default() };
    let (server, address) = start(load(args));
    exchange(&format!("wss://localhost:{}", address.port()), &authority.client()).await;
    server.stop().await;
}

#[tokio::test]
async fn members_are_granted_relay_credentials() {
    let (server, address) = start(config_with_relay());
    let mut member = Member::enter(address, 1, 1).await;
    member.send_frame(&ClientFrame::Relays { topic: topic(1) }).await;
    let ServerFrame::RelayGrant(grant) = member.receive().await else { panic!() };
    let udp = server.relay_addresses()[0];
    let urls: Vec<_> = grant.servers.iter().map(|relay| relay.url.as_str()).collect();
    assert_eq!(urls, [format!("turn:{udp}?transport=udp"), format!("turn:{address}?transport=tcp")]);
    assert!(grant.username.ends_with(&handle(1).to_string()));
    server.stop().await;
}

#[tokio::test]
async fn relay_with_two_addresses_and_one_name_is_offered_once() {
    let mut config = config_with_relay();
    config.host = Some("relay.example".into());
    let relay = config.relay.as_mut().unwrap();
    let mut second = relay.config.listen[0];
    second.bind = "127.0.0.2".parse().unwrap();
    relay.config.listen.push(second);
    let (server, address) = start(config);
    let mut member = Member::enter(address, 1, 1).await;
    member.send_frame(&ClientFrame::Relays { topic: topic(1) }).await;
    let ServerFrame::RelayGrant(grant) = member.receive().await else { panic!() };
    let count = |way: &str| grant.servers.iter().filter(|server| server.url.ends_with(way)).count();
    assert_eq!((count("?transport=udp"), count("?transport=tcp")), (1, 1), "{:?}", grant.servers);
    server.stop().await;
}

/// A STUN Binding request without attributes.
const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

async fn answers_stun(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    stream.write_all(&BINDING).await.unwrap();
    let mut head = [0; 20];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..2], [1, 1], "a success response");
    assert_eq!(head[8..], BINDING[8..]);
}

#[tokio::test]
async fn stun_is_served_on_the_http_port_and_its_own() {
    let (server, address) = start(config_with_relay());
    answers_stun(TcpStream::connect(address).await.unwrap()).await;
    let own: SocketAddr = server.relay_addresses()[0];
    answers_stun(TcpStream::connect(own).await.unwrap()).await;
    server.stop().await;
}

#[tokio::test]
async fn stun_is_served_on_the_https_port() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", (2020, 2100));
    let (server, address) = start(load(Args {
        tls_certificate: Some(certificate),
        tls_key: Some(key),
        relay_listen: vec!["127.0.0.1".parse().unwrap()],
        relay_port: Some(0),
        relay_alternate_port: Some(0),
        dev: true,
        ..Args::default()
    }));
    let stream = partyline_net::connect_tls("localhost", address.port(), &authority.client()).await.unwrap();
    answers_stun(stream).await;
    server.stop().await;
}
