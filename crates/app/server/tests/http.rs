//! What browsers, probes and operators see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::SocketAddr;

use common::{Member, config, start};
use partyline_server::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn the_invite_page_is_whole_and_may_load_nothing() {
    let (server, address) = start(config());
    let page = ask(address, "GET /join HTTP/1.1").await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("content-security-policy: default-src 'none';"));
    assert!(page.contains("referrer-policy: no-referrer"));
    assert!(page.contains("partyline://join/") && page.ends_with("</html>\n"));
    server.stop().await;
}

#[tokio::test]
async fn everything_else_has_its_status() {
    let (server, address) = start(config());
    for (head, expected) in [
        ("GET /healthz HTTP/1.1", "200"),
        ("HEAD /healthz HTTP/1.1", "200"),
        ("GET / HTTP/1.1", "200"),
        ("GET /nothing HTTP/1.1", "404"),
        ("POST /join HTTP/1.1", "405"),
        ("GET /v1 HTTP/1.1", "426"),
        ("GET /v1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade, close", "426"),
        ("GET /v1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13", "400"),
    ] {
        assert_eq!(status(&ask(address, head).await), expected, "{head}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_without_end_is_not_kept() {
    let (server, address) = start(config());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let filler = format!("x: {}\r\n", "y".repeat(1000));
    while stream.write_all(filler.as_bytes()).await.is_ok() {}
    let _ = stream.read_to_end(&mut answer).await;
    server.stop().await;
}

#[tokio::test]
async fn figures_tell_what_happens() {
    let (server, address) = start(config());
    let mut member = Member::enter(address, 1, 1).await;
    member.socket.send(vec![0xff]).await.unwrap();
    member.goodbye().await;
    let _other = Member::enter(address, 1, 2).await;
    let figures = ask(address, "GET /metrics HTTP/1.1").await;
    for line in ["partyline_members 1", "partyline_topics 1", "partyline_rendezvous_refused_total{reason=\"malformed\"} 1"]
    {
        assert!(figures.contains(line), "{line} is not in {figures}");
    }
    let proxied = ask(address, "GET /metrics HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1").await;
    assert_eq!(status(&proxied), "404");
    server.stop().await;
}

#[tokio::test]
async fn figures_may_have_an_address_of_their_own() {
    let admin = Some("127.0.0.1:0".parse().unwrap());
    let (server, address) = start(Config { admin, ..config() });
    let admin = server.admin_address().unwrap();
    assert_eq!(status(&ask(address, "GET /metrics HTTP/1.1").await), "404");
    assert_eq!(status(&ask(admin, "GET /metrics HTTP/1.1").await), "200");
    assert_eq!(status(&ask(admin, "GET /healthz HTTP/1.1").await), "200");
    assert_eq!(status(&ask(admin, "GET /join HTTP/1.1").await), "404");
    server.stop().await;
}
