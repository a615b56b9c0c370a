//! What is served over HTTP: the invite page, health and metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{collections::BTreeSet, net::SocketAddr};

use common::{Member, config, config_with_relay, start};
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
async fn invite_page_is_complete_and_may_load_nothing() {
    let (server, address) = start(config());
    let page = ask(address, "GET /join HTTP/1.1").await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("content-security-policy: default-src 'none';"));
    assert!(page.contains("referrer-policy: no-referrer"));
    assert!(page.contains("partyline://join/") && page.ends_with("</html>\n"));
    server.stop().await;
}

#[tokio::test]
async fn every_path_has_its_status() {
    let (server, address) = start(config());
    for (head, expected) in [
        ("GET /healthz HTTP/1.1", "200"),
        ("HEAD /healthz HTTP/1.1", "200"),
        ("GET / HTTP/1.1", "200"),
        ("GET /nothing HTTP/1.1", "404"),
        ("GET /join/PLY1 HTTP/1.1", "200"),
        ("GET /join%23PLY1?x=1 HTTP/1.1", "200"),
        ("GET /joined HTTP/1.1", "404"),
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
async fn endless_request_head_is_refused() {
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
async fn metrics_are_shown_to_this_computer_only() {
    let (server, address) = start(config());
    let mut member = Member::enter(address, 1, 1).await;
    member.socket.send(vec![0xff]).await.unwrap();
    member.close_frame().await;
    let _other = Member::enter(address, 1, 2).await;
    let page = ask(address, "GET /metrics HTTP/1.1").await;
    for line in [
        "partyline_server_connections_accepted_total 3",
        "partyline_rendezvous_sessions 1",
        "partyline_rendezvous_members 1",
        "partyline_rendezvous_topics 1",
        "partyline_rendezvous_frames_refused_total{reason=\"malformed\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    // The server may notice the end of the session later.
    let ended = "partyline_rendezvous_sessions_ended_total{reason=\"malformed\"} 1";
    while !ask(address, "GET /metrics HTTP/1.1").await.contains(ended) {}
    let proxied = ask(address, "GET /metrics HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1").await;
    assert_eq!(status(&proxied), "404");
    server.stop().await;
}

#[tokio::test]
async fn metrics_can_have_an_address_of_their_own() {
    let admin = Some("127.0.0.1:0".parse().unwrap());
    let (server, address) = start(Config { admin, ..config() });
    let admin = server.admin_address().unwrap();
    assert_eq!(status(&ask(address, "GET /metrics HTTP/1.1").await), "404");
    assert_eq!(status(&ask(admin, "GET /metrics HTTP/1.1").await), "200");
    assert_eq!(status(&ask(admin, "GET /healthz HTTP/1.1").await), "200");
    assert_eq!(status(&ask(admin, "GET /join HTTP/1.1").await), "404");
    server.stop().await;
}

/// The name, the type and the labels of a metric, `le` excepted.
type Listed = (String, String, Vec<String>);

/// Reads what a page in the Prometheus text format shows.
fn shown(page: &str) -> BTreeSet<Listed> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let labels = |name: &str| {
        let samples = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let first = samples.filter_map(|labels| labels.split_once('=')).map(|(label, _)| label.to_owned());
        first.take(1).collect()
    };
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned(), labels(name))).collect()
}

/// Reads the table of a section of `docs/metrics.md`.
fn documented(section: &str) -> BTreeSet<Listed> {
    let docs = include_str!("../../../../docs/metrics.md");
    let (_, rest) = docs.split_once(&format!("## {section}\n")).unwrap();
    let section = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        (cells[1].clone(), cells[2].clone(), cells[4].split_whitespace().map(str::to_owned).collect())
    })
    .collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_shown() {
    let (server, address) = start(config_with_relay());
    let page = ask(address, "GET /metrics HTTP/1.1").await;
    assert_eq!(shown(&page), documented("Server"));
    for (name, ..) in shown(&page) {
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no HELP line");
    }
    server.stop().await;
}

/// The name of a metric and one value of its label, for each sample of the page that has a label with fixed words.
fn labelled(page: &str) -> BTreeSet<(String, String)> {
    let samples = page.lines().filter_map(|line| line.split_once('{'));
    let values = samples.filter_map(|(name, rest)| {
        let (label, rest) = rest.split_once("=\"")?;
        let (value, _) = rest.split_once('"')?;
        (!matches!(label, "le" | "version")).then(|| (name.to_owned(), value.to_owned()))
    });
    values.collect()
}

#[tokio::test]
async fn every_value_of_a_label_is_a_documented_word() {
    // The engine has some metrics of the same names.
    let (_, docs) = include_str!("../../../../docs/metrics.md").split_once("## Server\n").unwrap();
    let (server, address) = start(config_with_relay());
    let page = ask(address, "GET /metrics HTTP/1.1").await;
    for (name, value) in labelled(&page) {
        let row = docs.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        assert!(row.contains(&format!("`{value}`")), "{value} of {name} is not documented");
    }
    server.stop().await;
}

#[tokio::test]
async fn unlimited_bandwidth_is_not_shown_as_a_limit_of_0() {
    let mut config = config_with_relay();
    let quotas = &mut config.relay.as_mut().unwrap().config.settings.quotas;
    (quotas.bandwidth, quotas.bandwidth_per_allocation) = (None, Some(125_000));
    let (server, address) = start(config);
    let page = ask(address, "GET /metrics HTTP/1.1").await;
    assert!(!page.contains(r#"partyline_relay_limit{limit="bandwidth"}"#), "{page}");
    assert!(page.contains(r#"partyline_relay_limit{limit="bandwidth_per_allocation"} 125000"#), "{page}");
    server.stop().await;
}
