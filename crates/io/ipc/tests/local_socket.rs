//! Clients and server over real sockets, with an engine that answers from a script.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{io, os::unix::net::UnixListener, path::Path, sync::Arc};

use partyline_ipc::{
    Access, Call, Connection, Endpoint, MAX_CLIENTS, MAX_PENDING_REQUESTS, Server, connect, reconnect,
};
use partyline_model::{
    AppError, Command, DeviceId, DeviceView, ErrorCode, InviteId, NetworkView, PartyId, PartyPhase,
    PartyView, Phase, PingSample, Reply, Role, Snapshot,
};
use partyline_wire::ipc::{ClientFrame, Decoder, Frame, Hello, ServerFrame, VERSION, encode};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

fn snapshot(revision: u32) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        revision,
        phase: Phase::Ready,
        device: DeviceView { id: DeviceId([1; 32]), version: "0".into() },
        parties: Vec::new(),
        former_parties: Vec::new(),
        network: NetworkView::default(),
        settings: partyline_model::Settings::default(),
    })
}

fn big_snapshot(revision: u32, bytes: usize) -> Arc<Snapshot> {
    let party = PartyView {
        id: PartyId([2; 32]),
        name: "x".repeat(bytes),
        phase: PartyPhase::Up,
        role: Role::Owner,
        range: None,
        range_requested: false,
        incoming: partyline_model::IncomingPolicy::default(),
        interface: None,
        members: Vec::new(),
        invites: Vec::new(),
        approval: false,
        join_requests: Vec::new(),
        waits_for: None,
        servers: Vec::new(),
        discovery: None,
        problem: None,
    };
    Arc::new(Snapshot { parties: vec![party], ..(*snapshot(revision)).clone() })
}

/// A server and the channels of its engine.
struct Service {
    directory: TempDir,
    endpoint: Endpoint,
    calls: mpsc::Receiver<Call>,
    state: watch::Sender<Arc<Snapshot>>,
    server: JoinHandle<()>,
}

impl Service {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_dir(directory.path());
        let server = Server::bind(&endpoint, Access::default()).unwrap();
        let (sender, calls) = mpsc::channel(64);
        let (state, snapshots) = watch::channel(snapshot(1));
        let server = tokio::spawn(server.serve(sender, snapshots));
        Self { directory, endpoint, calls, state, server }
    }

    async fn connect(&self) -> Connection {
        connect(&self.endpoint).await.unwrap()
    }

    async fn raw(&self) -> Raw {
        Raw::connect(self.endpoint.path()).await
    }

    /// The next call of any client.
    async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }
}

/// A client that can send any frame.
struct Raw {
    stream: UnixStream,
    decoder: Decoder<ServerFrame>,
}

impl Raw {
    async fn connect(path: &Path) -> Self {
        Self { stream: UnixStream::connect(path).await.unwrap(), decoder: Decoder::default() }
    }

    async fn send(&mut self, frame: &ClientFrame) {
        self.stream.write_all(&encode(frame).unwrap()).await.unwrap();
    }

    async fn hello(&mut self) {
        self.send(&ClientFrame::Hello(Hello::from_software("test"))).await;
        assert!(matches!(self.receive().await, Some(ServerFrame::Hello(_))));
    }

    /// The next frame, or `None` when the server has hung up.
    async fn receive(&mut self) -> Option<ServerFrame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(self.decoder.buffer()).await {
                Ok(0) => return None,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                read => read.unwrap(),
            };
        }
    }
}

async fn ask(connection: &Connection, command: Command) -> oneshot::Receiver<Result<Reply, AppError>> {
    let (answer, answered) = oneshot::channel();
    connection.calls.send((command.into(), answer)).await.unwrap();
    answered
}

#[tokio::test]
async fn responses_reach_their_requests_in_any_order() {
    let mut service = Service::start();
    let (ann, bob) = (service.connect().await, service.connect().await);
    let first = ask(&ann, Command::Doctor).await;
    let (_, first_answer) = service.call().await;
    let second = ask(&ann, Command::Snapshot).await;
    let (_, second_answer) = service.call().await;
    let third = ask(&bob, Command::Stop).await;
    let (command, third_answer) = service.call().await;
    assert_eq!(command, Command::Stop);
    third_answer.send(Ok(Reply::Done)).unwrap();
    second_answer.send(Ok(Reply::Pong(PingSample { rtt_ms: 2.5 }))).unwrap();
    let refusal = AppError::new(ErrorCode::NotOwner, "no", "ask");
    first_answer.send(Err(refusal.clone())).unwrap();
    assert_eq!(second.await.unwrap(), Ok(Reply::Pong(PingSample { rtt_ms: 2.5 })));
    assert_eq!(first.await.unwrap(), Err(refusal));
    assert_eq!(third.await.unwrap(), Ok(Reply::Done));
}

#[tokio::test]
async fn every_client_gets_the_current_state_and_its_changes() {
    let service = Service::start();
    let mut clients = [service.connect().await, service.connect().await, service.connect().await];
    for client in &clients {
        assert_eq!(client.snapshots.borrow().revision, 1);
    }
    service.state.send_replace(snapshot(2));
    for client in &mut clients {
        client.snapshots.changed().await.unwrap();
        assert_eq!(client.snapshots.borrow_and_update().revision, 2);
    }
}

#[tokio::test]
async fn client_that_does_not_read_blocks_no_other_and_then_gets_the_newest_state() {
    let mut service = Service::start();
    let mut sleeper = service.raw().await;
    sleeper.hello().await;
    sleeper.send(&ClientFrame::Subscribe).await;
    // Far more than the socket's buffer holds, while the sleeper reads nothing.
    let mut awake = service.connect().await;
    for revision in 2..=6 {
        service.state.send_replace(big_snapshot(revision, 900_000));
        while awake.snapshots.borrow_and_update().revision < revision {
            awake.snapshots.changed().await.unwrap();
        }
    }
    let answered = ask(&awake, Command::Stop).await;
    service.call().await.1.send(Ok(Reply::Done)).unwrap();
    assert_eq!(answered.await.unwrap(), Ok(Reply::Done));
    let mut seen = Vec::new();
    while seen.last() != Some(&6) {
        match sleeper.receive().await.unwrap() {
            ServerFrame::Snapshot(snapshot) => seen.push(snapshot.revision),
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.len() < 6, "old snapshots were queued: {seen:?}");
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_responses() {
    let mut service = Service::start();
    let mut greedy = service.raw().await;
    greedy.hello().await;
    for id in 0..=u32::try_from(MAX_PENDING_REQUESTS).unwrap() {
        greedy.send(&ClientFrame::Request { id, command: Command::Doctor.into() }).await;
    }
    let mut held = Vec::new();
    for _ in 0..MAX_PENDING_REQUESTS {
        held.push(service.call().await);
    }
    // The rest is not read yet; further clients are served at once.
    let other = service.connect().await;
    let answered = ask(&other, Command::Stop).await;
    let (command, answer) = service.call().await;
    assert_eq!(command, Command::Stop);
    answer.send(Ok(Reply::Done)).unwrap();
    answered.await.unwrap().unwrap();
    held.pop().unwrap().1.send(Ok(Reply::Done)).unwrap();
    assert_eq!(service.call().await.0, Command::Doctor);
}

#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let service = Service::start();
    let steady = service.connect().await;
    let oversized = u32::MAX.to_be_bytes().to_vec();
    let not_json = [&5_u32.to_be_bytes()[..], b"hello"].concat();
    let not_hello = encode(&ClientFrame::Subscribe).unwrap();
    for bytes in [oversized, not_json, vec![0; 4], not_hello] {
        let mut hostile = service.raw().await;
        hostile.stream.write_all(&bytes).await.unwrap();
        let mut last = None;
        while let Some(frame) = hostile.receive().await {
            last = Some(frame);
        }
        assert!(matches!(last, Some(ServerFrame::Refused(_))), "{bytes:?}: {last:?}");
    }
    let mut later = service.raw().await;
    later.hello().await;
    later.stream.write_all(&[0xff; 64]).await.unwrap();
    while later.receive().await.is_some() {}
    let mut half = service.raw().await;
    half.stream.write_all(&[0, 0]).await.unwrap();
    drop(half);
    service.state.send_replace(snapshot(2));
    let mut snapshots = steady.snapshots;
    snapshots.changed().await.unwrap();
    assert_eq!(snapshots.borrow().revision, 2);
}

#[tokio::test]
async fn version_mismatch_is_reported_on_both_sides() {
    let service = Service::start();
    let mut newer = service.raw().await;
    let hello = Hello { version: VERSION + 1, software: "partyline 9".into() };
    newer.send(&ClientFrame::Hello(hello.clone())).await;
    assert!(matches!(newer.receive().await, Some(ServerFrame::Hello(Hello { version: VERSION, .. }))));
    assert_eq!(newer.receive().await, None);

    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_dir(directory.path());
    let listener = tokio::net::UnixListener::bind(endpoint.path()).unwrap();
    let newer_service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&encode(&ServerFrame::Hello(hello)).unwrap()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = connect(&endpoint).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionMismatch);
    assert!(error.message.contains("partyline 9"), "{error:?}");
    newer_service.await.unwrap();
}

#[tokio::test]
async fn full_service_refuses_with_the_reason() {
    let service = Service::start();
    let mut clients = Vec::new();
    for _ in 0..MAX_CLIENTS {
        clients.push(service.connect().await);
    }
    let error = connect(&service.endpoint).await.unwrap_err();
    assert!(error.message.contains("clients"), "{error:?}");
    clients.pop();
    reconnect(&service.endpoint).await.unwrap();
}

#[tokio::test]
async fn service_that_does_not_run_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_dir(directory.path());
    let error = connect(&endpoint).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceUnreachable);
    assert!(error.hint.contains("service install"), "{error:?}");
}

#[tokio::test]
async fn stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_dir(directory.path());
    drop(UnixListener::bind(endpoint.path()).unwrap());
    assert!(endpoint.path().exists(), "the crashed service left its socket");
    assert_eq!(connect(&endpoint).await.unwrap_err().code, ErrorCode::ServiceUnreachable);

    let live = Server::bind(&endpoint, Access::default()).unwrap();
    let error = Server::bind(&endpoint, Access::default()).unwrap_err();
    assert_eq!(error.code, ErrorCode::AlreadyRunning);
    drop(live);
    assert!(!endpoint.path().exists(), "a service that ends takes its socket with it");
}

#[tokio::test]
async fn file_that_is_no_socket_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_dir(directory.path());
    std::fs::write(endpoint.path(), "precious").unwrap();
    assert!(Server::bind(&endpoint, Access::default()).is_err());
    assert_eq!(std::fs::read(endpoint.path()).unwrap(), b"precious");
}

#[tokio::test]
async fn end_of_the_engine_reaches_clients_after_their_last_responses() {
    let Service { directory, endpoint, mut calls, state, server } = Service::start();
    let (asking, mut watching) = (connect(&endpoint).await.unwrap(), connect(&endpoint).await.unwrap());
    let stopped = ask(&asking, Command::Stop).await;
    let unanswered = ask(&watching, Command::Doctor).await;
    let mut answers = [calls.recv().await.unwrap(), calls.recv().await.unwrap()];
    answers.sort_by_key(|(command, _)| *command != Command::Stop);
    let [(_, stop), (_, doctor)] = answers;
    stop.send(Ok(Reply::Done)).unwrap();
    drop((doctor, calls, state));
    assert_eq!(stopped.await.unwrap(), Ok(Reply::Done));
    assert_eq!(unanswered.await.unwrap().unwrap_err().code, ErrorCode::ServiceUnreachable);
    assert!(watching.snapshots.changed().await.is_err());
    server.await.unwrap();
    assert!(!endpoint.path().exists());
    drop(directory);
}

#[tokio::test]
async fn client_reconnects_when_the_service_returns() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_dir(directory.path());
    let waiting = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { reconnect(&endpoint).await }
    });
    tokio::task::yield_now().await;
    let server = Server::bind(&endpoint, Access::default()).unwrap();
    let (calls, _inbox) = mpsc::channel(1);
    let (_state, snapshots) = watch::channel(snapshot(5));
    let server = tokio::spawn(server.serve(calls, snapshots));
    let connection = waiting.await.unwrap().unwrap();
    assert_eq!(connection.snapshots.borrow().revision, 5);
    server.abort();
}

#[tokio::test]
async fn snapshot_too_long_for_a_frame_is_sent_without_histories() {
    let mut service = Service::start();
    let connection = service.connect().await;
    let answered = ask(&connection, Command::Snapshot).await;
    let mut long = (*big_snapshot(7, 0)).clone();
    long.parties[0].members = members_with_histories(400);
    service.call().await.1.send(Ok(Reply::Snapshot(Box::new(long.clone())))).unwrap();
    service.state.send_replace(Arc::new(long));
    let Reply::Snapshot(short) = answered.await.unwrap().unwrap() else { panic!("another reply") };
    assert_eq!(short.parties[0].members.len(), 400);
    let mut snapshots = connection.snapshots;
    snapshots.changed().await.unwrap();
    assert_eq!(snapshots.borrow().parties[0].members.len(), 400);
    assert!(encode(&ServerFrame::Snapshot(snapshots.borrow().clone())).unwrap().len() < ServerFrame::LIMIT);
}

fn members_with_histories(count: u32) -> Vec<partyline_model::MemberView> {
    let event = |at| partyline_model::PathEvent { at, kind: Some(partyline_model::PathKind::MemberRelay) };
    let member = |number: u32| partyline_model::MemberView {
        id: DeviceId(std::array::from_fn(|i| number.to_be_bytes()[i % 4])),
        name: format!("member {number}"),
        alike: false,
        role: Role::Member,
        me: false,
        confirmed: true,
        invite: InviteId([7; 32]),
        joined_at: 0,
        online: true,
        address: None,
        address_v6: None,
        badge: None,
        path: None,
        quality: partyline_model::Quality::default(),
        traffic: partyline_model::TrafficView::default(),
        history: (0..64).map(|at| event(1_700_000_000 + at)).collect(),
        notices: Default::default(),
    };
    (0..count).map(member).collect()
}
