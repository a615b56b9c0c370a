//! Whole engines on loopback: real sockets and files, devices without packets, and a network that never changes.

use std::{net::UdpSocket, path::Path, time::Duration};

use partyline_model::{
    ErrorCode, IncomingLevel, IncomingPolicy, InvitePreview, MemberView, PartyId, PartyPhase, PathKind,
    PortAccess, PortRule, RelaySetting, ServicePort, TestTarget,
};
use partyline_platform::LocalAddress;
use partyline_portmap::{Health, MethodState, Protocol};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::port_mapping::RouterState;

/// Longer than anything here takes; only a defect reaches it.
const DEADLOCK: Duration = Duration::from_secs(60);

fn settings(port: u16) -> Settings {
    // Nothing may leave the computer: no router is asked, no server measures the NAT, and no node of the DHT is.
    Settings {
        display_name: "Anna".to_owned(),
        port_mapping: false,
        nat_detection: false,
        dht: false,
        port,
        ..Settings::default()
    }
}

async fn start(state: &Path, port: u16) -> Result<RunningEngine, AppError> {
    start_behind(RouterSource::Network, state, port).await
}

async fn start_behind(router: RouterSource, state: &Path, port: u16) -> Result<RunningEngine, AppError> {
    let options = EngineOptions {
        state_dir: state.to_owned(),
        runtime_dir: state.to_owned(),
        settings: settings(port),
        extra_ca: None,
    };
    let loopback = LocalAddress {
        interface: "lo".to_owned(),
        index: Some(1),
        address: [127, 0, 0, 1].into(),
        prefix: 8,
        point_to_point: false,
        card: partyline_model::CardKind::Physical,
        deprecated: false,
    };
    let network = NetworkState { addresses: vec![loopback], ..NetworkState::default() };
    let network = NetworkSource::Fixed(network);
    let environment = Environment { devices: DeviceSource::Idle, network, router };
    Engine::start_in(options, environment).await
}

async fn create(controller: &Controller) -> (PartyId, String) {
    let command = Command::Create {
        name: "Friday".to_owned(),
        display_name: String::new(),
        servers: Vec::new(),
        range: None,
    };
    match controller.request(command).await.expect("a party") {
        Reply::Created { party, link } => (party, link),
        other => panic!("{other:?}"),
    }
}

/// Waits until a snapshot satisfies the condition, and returns it.
async fn wait_for(controller: &Controller, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = controller.snapshots();
    let seen = timeout(DEADLOCK, snapshots.wait_for(|snapshot| condition(snapshot))).await;
    seen.expect("in time").expect("a running engine").clone()
}

async fn stop(engine: RunningEngine) {
    assert_eq!(engine.controller.request(Command::Stop).await, Ok(Reply::Done));
    ended(engine.join).await;
}

async fn ended(join: JoinHandle<Result<(), AppError>>) {
    timeout(DEADLOCK, join).await.expect("in time").expect("no panic").expect("a clean end");
}

fn others(snapshot: &Snapshot) -> impl Iterator<Item = &MemberView> {
    snapshot.parties.iter().flat_map(|party| &party.members).filter(|member| !member.me)
}

#[tokio::test]
async fn two_engines_find_each_other_by_beacon_and_connect() {
    let (anna_state, ben_state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let anna = start(anna_state.path(), 0).await.unwrap();
    let ben = start(ben_state.path(), 0).await.unwrap();
    let (party, link) = create(&anna.controller).await;
    let preview = ben.controller.request(Command::Preview { link: link.clone() }).await.unwrap();
    assert!(matches!(preview, Reply::Preview(InvitePreview { party: found, .. }) if found == party));
    let joined = ben.controller.request(Command::Join { link, display_name: "Ben".to_owned() }).await;
    assert_eq!(joined, Ok(Reply::Joined { party }));
    let connected = |snapshot: &Snapshot| {
        others(snapshot).any(|member| member.path.as_ref().is_some_and(|path| path.kind == PathKind::Lan))
    };
    let snapshot = wait_for(&anna.controller, connected).await;
    wait_for(&ben.controller, connected).await;
    let member = others(&snapshot).next().unwrap();
    assert_eq!((member.name.as_str(), member.online), ("Ben", true));
    let pong = anna.controller.request(Command::Ping { party, member: member.id }).await;
    assert!(matches!(pong, Ok(Reply::Pong(_))), "{pong:?}");
    let metrics = anna.controller.request(EngineCommand::Metrics).await;
    let Ok(Reply::Metrics { text }) = metrics else { panic!("{metrics:?}") };
    for line in [
        r#"partyline_path_attempts_total{method="lan",outcome="worked"}"#,
        "partyline_udp_sockets 1",
        "partyline_tunnel_sessions",
        r#"partyline_node_state_writes_total{outcome="written"}"#,
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    stop(ben).await;
    stop(anna).await;
}

#[tokio::test]
async fn parties_survive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let (party, _) = create(&engine.controller).await;
    stop(engine).await;
    let engine = start(state.path(), 0).await.unwrap();
    let up = |snapshot: &Snapshot| snapshot.parties.iter().any(|view| view.phase == PartyPhase::Up);
    let snapshot = wait_for(&engine.controller, up).await;
    assert_eq!(snapshot.parties[0].id, party);
    assert_eq!(snapshot.parties[0].interface.as_deref(), Some("idle"));
    stop(engine).await;
}

#[tokio::test]
async fn what_friends_can_reach_survives_a_restart_and_is_listed() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let (party, _) = create(&engine.controller).await;
    let (port, level) = (ServicePort::tcp(445), IncomingLevel::Nothing);
    for command in [
        Command::SetIncomingLevel { party, level },
        Command::SetPortRule { party, port, rule: Some(PortRule::Allow) },
    ] {
        assert_eq!(engine.controller.request(command).await, Ok(Reply::Done));
    }
    let unknown = Command::SetIncomingLevel { party: PartyId([9; 32]), level };
    assert_eq!(engine.controller.request(unknown).await.unwrap_err().code, ErrorCode::UnknownParty);
    stop(engine).await;
    let engine = start(state.path(), 0).await.unwrap();
    let policy = IncomingPolicy { allowed: [port].into(), ..IncomingPolicy::of(level) };
    wait_for(&engine.controller, |snapshot| snapshot.parties.iter().any(|view| view.incoming == policy))
        .await;
    let listed = engine.controller.request(EngineCommand::OfferedPorts { party }).await;
    if cfg!(target_os = "linux") {
        let Ok(Reply::OfferedPorts(ports)) = listed else { panic!("{listed:?}") };
        let smb = ports.iter().find(|offered| offered.port == port).expect("a port with a rule");
        assert_eq!(smb.access, PortAccess::AllowedByUser);
    }
    stop(engine).await;
}

#[tokio::test]
async fn a_party_that_cannot_be_saved_is_not_created() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    std::fs::remove_dir_all(state.path()).unwrap();
    let command = Command::Create {
        name: "Friday".to_owned(),
        display_name: String::new(),
        servers: Vec::new(),
        range: None,
    };
    let error = engine.controller.request(command).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Storage);
    wait_for(&engine.controller, |snapshot| snapshot.parties.is_empty()).await;
    let doctor = engine.controller.request(Command::Doctor).await;
    let Ok(Reply::Doctor(findings)) = doctor else { panic!("{doctor:?}") };
    let disk = findings.iter().find(|finding| finding.what == "Disk").unwrap();
    assert_eq!(disk.verdict, partyline_model::Verdict::Bad);
    std::fs::create_dir(state.path()).unwrap();
    stop(engine).await;
}

#[tokio::test]
async fn state_of_another_version_is_refused_and_left_as_it_is() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("state.json");
    std::fs::write(&file, b"not a state").unwrap();
    let error = start(state.path(), 0).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Storage);
    assert_eq!(std::fs::read(&file).unwrap(), b"not a state");
}

#[tokio::test]
async fn damaged_state_is_put_aside_and_replaced_by_the_last_copy() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let (party, _) = create(&engine.controller).await;
    stop(engine).await;
    // Once more, so that the copy has the party, too.
    stop(start(state.path(), 0).await.unwrap()).await;
    let file = state.path().join("state.json");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0);
    std::fs::write(&file, &damaged).unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    wait_for(&engine.controller, |snapshot| snapshot.parties.iter().any(|view| view.id == party)).await;
    let Ok(Reply::Doctor(findings)) = engine.controller.request(Command::Doctor).await else { panic!() };
    let disk = findings.iter().find(|finding| finding.what == "Disk").unwrap();
    assert!(
        disk.verdict == partyline_model::Verdict::Fair && disk.note.contains("state.json.damaged"),
        "{disk:?}"
    );
    assert_eq!(std::fs::read(state.path().join("state.json.damaged")).unwrap(), damaged);
    stop(engine).await;
    // A disk that does not return the file is simulated by a directory in its place, which cannot be read either.
    std::fs::remove_file(state.path().join("state.json.damaged")).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    wait_for(&engine.controller, |snapshot| snapshot.parties.iter().any(|view| view.id == party)).await;
    stop(engine).await;
    // Both damaged: nothing is overwritten.
    std::fs::write(&file, &damaged).unwrap();
    std::fs::write(state.path().join("state.json.last"), b"{").unwrap();
    assert_eq!(start(state.path(), 0).await.unwrap_err().code, ErrorCode::Storage);
    assert_eq!(std::fs::read(&file).unwrap(), damaged);
}

#[tokio::test]
async fn sequence_numbers_are_reserved_on_disk_before_a_run_uses_them() {
    let state = tempfile::tempdir().unwrap();
    let reserved = || -> u64 {
        let file = std::fs::read(state.path().join("state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&file).unwrap()["sequence"].as_u64().unwrap()
    };
    let mut before = 0;
    for _ in 0..3 {
        let engine = start(state.path(), 0).await.unwrap();
        assert!(reserved() > before, "by the time that the engine answers");
        before = reserved();
        stop(engine).await;
    }
}

#[tokio::test]
async fn the_main_socket_moves_to_a_free_port_and_keeps_its_own_if_that_is_taken() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let before = wait_for(&engine.controller, |snapshot| snapshot.network.port != 0).await.network.port;
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let configure = |port| Command::Configure { settings: Box::new(settings(port)) };
    let error = engine.controller.request(configure(port)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Device);
    wait_for(&engine.controller, |snapshot| snapshot.network.port == before).await;
    drop(taken);
    assert_eq!(engine.controller.request(configure(port)).await, Ok(Reply::Done));
    wait_for(&engine.controller, |snapshot| snapshot.network.port == port).await;
    stop(engine).await;
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let settings = Box::new(Settings { mtu: 100, ..settings(0) });
    let error = engine.controller.request(Command::Configure { settings }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput);
    stop(engine).await;
}

#[tokio::test]
async fn the_engine_answers_server_tests_itself() {
    let state = tempfile::tempdir().unwrap();
    let engine = start(state.path(), 0).await.unwrap();
    let relay = RelaySetting { url: "no relay".into(), username: String::new(), password: String::new() };
    let target = TestTarget::Relay { relay };
    let error = engine.controller.request(EngineCommand::TestServer { target }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput);
    stop(engine).await;
}

#[tokio::test]
async fn what_the_router_does_reaches_the_snapshot_when_it_changes() {
    let (router, watched) = watch::channel(RouterState::default());
    let state = tempfile::tempdir().unwrap();
    let engine = start_behind(RouterSource::Simulated(watched), state.path(), 0).await.unwrap();
    wait_for(&engine.controller, |snapshot| snapshot.network.port != 0).await;
    let check = |snapshot: &Snapshot| {
        let checks = &snapshot.network.report.router;
        checks.iter().map(|check| (check.works, check.problem.clone())).collect::<Vec<_>>()
    };
    let mut protocols = vec![MethodState::pending(Protocol::Pcp)];
    router.send_replace(RouterState { mapped: Vec::new(), protocols: protocols.clone() });
    wait_for(&engine.controller, |snapshot| check(snapshot) == [(false, Some("no answer yet".to_owned()))])
        .await;
    protocols[0].health = Health::Mapped;
    router.send_replace(RouterState { mapped: vec![([203, 0, 113, 9], 7000).into()], protocols });
    wait_for(&engine.controller, |snapshot| check(snapshot) == [(true, None)]).await;
    router.send_replace(RouterState::default());
    wait_for(&engine.controller, |snapshot| check(snapshot).is_empty()).await;
    stop(engine).await;
}

#[tokio::test]
async fn an_engine_without_controllers_stops() {
    let state = tempfile::tempdir().unwrap();
    let RunningEngine { controller, join } = start(state.path(), 0).await.unwrap();
    drop(controller);
    ended(join).await;
}
