//! Traces and metrics as a collector receives them, from the real server and from both members of a connection attempt.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ed25519_dalek::{Signer, SigningKey};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::Span};
use partyline_model::{AddressScope, Command, Handle, HandleKey, Topic};
use partyline_net::{Roots, TlsClient, WebSocket, connect_ws};
use partyline_telemetry::{Logging, OtlpSettings};
use partyline_tests_interop::{collector::Collector, server::Server};
use partyline_tests_sim::World;
use partyline_wire::{
    rendezvous::{ClientFrame, EntryProof, ServerFrame, handle_of},
    trace_id,
};

/// Time limit for the server to shut down: five seconds for its connections, two for the last export, and reserve for a
/// slow computer.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn anna() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn ben() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn handle_key(device: &SigningKey) -> HandleKey {
    HandleKey(device.verifying_key().to_bytes())
}

fn handle(device: &SigningKey) -> Handle {
    handle_of(&handle_key(device))
}

fn topic() -> Topic {
    Topic(key().verifying_key().to_bytes())
}

/// Starts a server that exports ten times per second.
fn server(endpoint: &str) -> Result<Server> {
    Server::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
    ])
}

/// Connects to the server and enters the topic as one of the devices.
async fn enter(server: &Server, device: &SigningKey) -> Result<WebSocket> {
    let client = TlsClient::new(&Roots { extra_ca: Some(server.certificate()) })?;
    let mut socket =
        connect_ws(&format!("wss://localhost:{}", server.tls_port), &client, AddressScope::Any).await?;
    let ServerFrame::Welcome { challenge, .. } = receive(&mut socket).await? else { bail!("no welcome") };
    let proof = EntryProof::sign(
        (&challenge, &topic(), handle_key(device)),
        |message| key().sign(message).to_bytes(),
        |message| device.sign(message).to_bytes(),
    );
    let frame = ClientFrame::Enter { topic: topic(), proof, record: vec![1] };
    socket.send(frame.encode()?).await?;
    Ok(socket)
}

async fn receive(socket: &mut WebSocket) -> Result<ServerFrame> {
    Ok(ServerFrame::decode(&socket.next().await.context("the connection ended")??)?)
}

/// Sends a message from Anna to Ben through the server.
async fn exchange(server: &Server) -> Result<[WebSocket; 2]> {
    let to = handle(&ben());
    let (mut anna, mut ben) = (enter(server, &anna()).await?, enter(server, &ben()).await?);
    let frame = ClientFrame::Send { topic: topic(), to, id: 1, kept: false, message: b"hello".to_vec() };
    anna.send(frame.encode()?).await?;
    while !matches!(receive(&mut ben).await?, ServerFrame::Message { .. }) {}
    Ok([anna, ben])
}

#[tokio::test]
async fn server_exports_forwarded_messages_under_the_trace_id_of_their_members() -> Result<()> {
    let collector = Collector::start()?;
    let server = server(&collector.endpoint())?;
    let _members = exchange(&server).await?;
    let received = collector.wait_for(|received| {
        received.spans_named("forward").next().is_some()
            && received.newest_value("partyline_rendezvous_members") == Some(2)
    })?;
    let forward = received.spans_named("forward").next().context("a span")?;
    assert_eq!(forward.trace_id, trace_id(&topic(), handle(&anna()), handle(&ben())));
    assert!(forward.parent_span_id.is_empty(), "a trace begins with it");
    let services: Vec<_> = received.spans.iter().map(|(service, _)| service.as_str()).collect();
    assert!(services.iter().all(|service| *service == "partyline-server"), "{services:?}");
    let text = format!("{:?}", received.spans);
    assert!(!text.contains("127.0.0.1"), "no address leaves");
    Ok(())
}

#[tokio::test]
async fn server_works_and_shuts_down_with_a_dead_or_silent_collector() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = format!("http://{}", listener.local_addr()?);
    let dead = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    for endpoint in [silent, dead] {
        let server = server(&endpoint)?;
        let members = exchange(&server).await?;
        drop(members);
        let started = Instant::now();
        server.shut_down()?;
        assert!(started.elapsed() < SHUTDOWN_LIMIT, "{endpoint}");
    }
    drop(listener);
    Ok(())
}

#[test]
fn both_members_and_the_server_share_one_trace_of_a_connection_attempt() -> Result<()> {
    let collector = Collector::start()?;
    let settings = OtlpSettings::with_endpoint(&collector.endpoint())?.context("settings")?;
    let logging = Logging::verbosity(0).export_to(settings).start()?;
    let mut world = World::new(1);
    world.start_server();
    let party = world.party(2);
    // Two that need no punching say nothing to each other on their topic by way of the server, until one has news.
    let range = Some("10.77.9.0/24".parse()?);
    world.command(0, Command::SetRange { party, range }).map_err(|error| anyhow::anyhow!(error.message))?;
    world.run(Duration::from_secs(1));
    drop(world);
    drop(logging);
    let received = collector.wait_for(|received| received.spans_named("connection_attempt").count() >= 2)?;

    let mut attempts: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in received.spans_named("connection_attempt") {
        attempts.entry(&span.trace_id).or_default().push(span);
    }
    let shared = attempts.iter().find(|(trace_id, spans)| {
        let peers: std::collections::BTreeSet<_> =
            spans.iter().filter_map(|span| field(span, "peer")).collect();
        peers.len() == 2 && received.spans_named("forward").any(|span| span.trace_id == **trace_id)
    });
    let (_, spans) = shared.with_context(|| format!("no trace has spans of all three: {attempts:?}"))?;
    assert!(spans.iter().any(|span| field(span, "outcome").is_some()), "{spans:?}");
    assert!(spans.iter().any(|span| !span.events.is_empty()), "{spans:?}");
    Ok(())
}

fn field<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
