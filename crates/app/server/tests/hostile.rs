//! Members that violate the protocol or the limits affect only themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Member, client, config, device, handle, key, refusal, send, start, topic};
use partyline_model::AddressScope;
use partyline_net::{ConnectError, connect_ws};
use partyline_rendezvous::{Limits, Rate};
use partyline_server::config::Config;
use partyline_wire::rendezvous::{ClientFrame, RefusalCode, ServerFrame, close};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn malformed_frame_closes_the_connection_with_a_reason() {
    let (server, address) = start(config());
    let mut friend = Member::enter(address, 1, 1).await;
    let mut member = Member::enter(address, 1, 2).await;
    member.socket.send(vec![0xff; 100]).await.unwrap();
    assert_eq!(refusal(&member.receive().await), Some(RefusalCode::Malformed));
    assert_eq!(member.close_frame().await.0, close::MALFORMED);
    let gone = ServerFrame::Gone { topic: topic(1), handle: handle(2) };
    friend.receive_until(|frame| *frame == gone).await;
    server.stop().await;
}

#[tokio::test]
async fn oversized_message_closes_the_connection() {
    let (server, address) = start(config());
    let mut member = Member::connect(address).await;
    member.socket.send(vec![0; 40_000]).await.unwrap();
    assert_eq!(member.close_frame().await.0, 1009);
    server.stop().await;
}

#[tokio::test]
async fn unknown_protocols_are_disconnected() {
    let (server, address) = start(config());
    for garbage in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"\xff\xff", b"GET / HTTP/9.9\r\n\r\n", b"\x00\x01garbage"]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        // The stream ends, with or without an answer.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    Member::enter(address, 1, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn member_that_enters_again_replaces_its_older_connection() {
    let (server, address) = start(config());
    let mut older = Member::enter(address, 1, 1).await;
    let mut newer = Member::enter(address, 1, 1).await;
    assert_eq!(refusal(&older.receive().await), Some(RefusalCode::Replaced));
    assert_eq!(older.close_frame().await.0, close::REPLACED);
    newer.send_frame(&send(1, 1, b"to myself")).await;
    assert!(matches!(newer.receive().await, ServerFrame::Message { .. }));
    server.stop().await;
}

/// The holder of the topic's key knows every handle, and can sign for none but its own.
#[tokio::test]
async fn holder_of_the_topic_key_cannot_throw_out_a_member() {
    let (server, address) = start(config());
    let mut member = Member::enter(address, 1, 1).await;
    let mut attacker = Member::connect(address).await;
    for signer in [device(2), key(1)] {
        attacker.send_frame(&attacker.enter_frame_as(1, 1, &signer)).await;
        assert_eq!(refusal(&attacker.receive().await), Some(RefusalCode::BadProof));
    }
    member.send_frame(&send(1, 1, b"still here")).await;
    assert!(matches!(member.receive().await, ServerFrame::Message { .. }));
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_with_a_status() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let (server, address) = start(Config { limits, ..config() });
    let first = Member::connect(address).await;
    let _second = Member::connect(address).await;
    let refused = connect_ws(&format!("ws://{address}"), &client(), AddressScope::Any).await;
    assert!(matches!(refused, Err(ConnectError::Http { status: 429, .. })), "{refused:?}");
    first.socket.close().await;
    // The server may notice the end later.
    while connect_ws(&format!("ws://{address}"), &client(), AddressScope::Any).await.is_err() {}
    server.stop().await;
}

#[tokio::test]
async fn flood_is_refused_and_then_disconnected() {
    let limits = Limits { address_rate: Rate::per_second(1, 20), strikes: 10, ..Limits::default() };
    let (server, address) = start(Config { limits, ..config() });
    let mut member = Member::connect(address).await;
    for echo in 0..40 {
        if member.socket.send(ClientFrame::Time { echo }.encode().unwrap()).await.is_err() {
            break;
        }
    }
    member.receive_until(|frame| refusal(frame) == Some(RefusalCode::RateLimited)).await;
    assert_eq!(member.close_frame().await.0, close::RATE);
    server.stop().await;
}

#[tokio::test]
async fn member_that_does_not_read_is_disconnected_and_blocks_no_other() {
    let plenty = Rate::per_second(1_000_000, 1_000_000);
    let limits = Limits { address_rate: plenty, topic_rate: plenty, ..Limits::default() };
    let (server, address) = start(Config { limits, ..config() });
    let _not_reading = Member::enter(address, 1, 9).await;
    let mut a = Member::enter(address, 1, 1).await;
    let mut b = Member::enter(address, 1, 2).await;
    let gone = ServerFrame::Gone { topic: topic(1), handle: handle(9) };
    let mut disconnected = false;
    // More than the kernel's buffers and the send queue hold; afterwards the mailbox takes the rest and fills up.
    for id in 0..2_000 {
        a.send_frame(&send(9, id, &[0; 16 * 1024])).await;
        if id % 50 == 0 {
            a.send_frame(&send(2, id, b"still there?")).await;
            let received =
                b.receive_until(|frame| *frame == gone || matches!(frame, ServerFrame::Message { .. })).await;
            disconnected |= received == gone;
            if disconnected {
                break;
            }
        }
    }
    assert!(disconnected);
    server.stop().await;
}
