//! Starting, reloading and stopping, and the errors of a wrong configuration.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use common::{Authority, Member, client, config, load, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use partyline_model::AddressScope;
use partyline_net::{CertificateProblem, ConnectError, connect_ws};
use partyline_server::{
    Server, StartError,
    config::{Args, Config},
};
use partyline_wire::rendezvous::close;
use tempfile::TempDir;

#[tokio::test]
async fn members_are_notified_of_a_restart_and_can_reconnect() {
    let (server, address) = start(config());
    let mut member = Member::enter(address, 1, 1).await;
    let ((), (code, reason)) = tokio::join!(server.stop(), member.close_frame());
    assert_eq!(code, close::GOING_AWAY);
    assert!(reason.contains("restarting"));
    let refused = connect_ws(&format!("ws://{address}"), &client(), AddressScope::Any).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })));

    let (server, again) = start(Config { listen: vec![address], ..config() });
    assert_eq!(again, address);
    Member::enter(address, 1, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn reloaded_certificate_is_used_at_once_and_an_invalid_one_never() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("other.example", (2020, 2100));
    let args = Args {
        tls_certificate: Some(certificate.clone()),
        tls_key: Some(key),
        no_relay: true,
        ..Args::default()
    };
    let (server, address) = start(load(args));
    let url = format!("wss://localhost:{}", address.port());
    let error = connect_ws(&url, &authority.client(), AddressScope::Any).await.unwrap_err();
    let wrong_name = CertificateProblem::WrongName;
    assert!(matches!(error, ConnectError::Certificate { problem, .. } if problem == wrong_name));

    authority.issue("localhost", (2020, 2100));
    server.reload().unwrap();
    Member::connect_to(&url, &authority.client()).await.unwrap();
    std::fs::write(&certificate, "nonsense").unwrap();
    assert!(matches!(server.reload(), Err(StartError::CertificateWrong { .. })));
    Member::connect_to(&url, &authority.client()).await.unwrap();
    server.stop().await;
}

#[test]
fn each_fault_of_a_certificate_has_its_own_error() {
    let authority = Authority::new();
    let attempt = |(certificate, key)| {
        Config::load(&Args { tls_certificate: Some(certificate), tls_key: Some(key), ..Args::default() })
            .unwrap_err()
    };
    let expired = attempt(authority.issue("localhost", (2020, 2021)));
    assert!(matches!(expired, StartError::CertificateExpired { .. }), "{expired}");
    let early = attempt(authority.issue("localhost", (2090, 2100)));
    assert!(matches!(early, StartError::CertificateNotYetValid { .. }), "{early}");
    let other = Authority::new();
    let (certificate, _) = authority.issue("localhost", (2020, 2100));
    let (_, key) = other.issue("localhost", (2020, 2100));
    let mismatch = attempt((certificate.clone(), key));
    assert!(matches!(mismatch, StartError::KeyMismatch { .. }), "{mismatch}");
    let no_key = attempt((certificate.clone(), certificate));
    assert!(matches!(no_key, StartError::CertificateWrong { what: "private key", .. }), "{no_key}");
}

#[tokio::test]
async fn port_in_use_and_foreign_address_have_their_own_errors() {
    let (server, address) = start(config());
    let taken = Server::start(Config { listen: vec![address], ..config() });
    assert!(matches!(taken.err(), Some(StartError::AddressInUse { address: at }) if at == address));
    let foreign = Server::start(Config { listen: vec!["192.0.2.77:1".parse().unwrap()], ..config() });
    assert!(matches!(foreign.err(), Some(StartError::AddressNotAvailable { .. })));
    server.stop().await;
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partyline-server"));
    command.args(arguments);
    command
}

/// Starts the program on a free port; returns it with the URL it prints.
fn run() -> (Child, String) {
    let mut command = program(&["--listen", "127.0.0.1:0", "--no-relay"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    (child, url)
}

#[tokio::test]
async fn program_prints_its_addresses_and_exits_cleanly_on_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut child, url) = run();
        let mut member = Member::connect_to(&url, &client()).await.unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGHUP).unwrap();
        Member::connect_to(&url, &client()).await.unwrap();
        kill(pid, signal).unwrap();
        assert_eq!(member.close_frame().await.0, close::GOING_AWAY);
        assert!(child.wait().unwrap().success());
    }
}

fn error_text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn program_explains_a_wrong_configuration() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("server.toml");
    let path_text = path.to_str().unwrap();
    std::fs::write(&path, "listen = [\"127.0.0.1:0\"]\n[relay]\nenabled = false\n").unwrap();
    let good = program(&["check-config", "--config", path_text]).output().unwrap();
    assert!(
        good.status.success() && String::from_utf8_lossy(&good.stdout).contains("serves ws://127.0.0.1:0")
    );

    std::fs::write(&path, "lissen = []\n").unwrap();
    let (code, message) = error_text(&program(&["check-config", "--config", path_text]).output().unwrap());
    assert!(code == Some(78) && message.contains("lissen"), "{message}");
    let mut mistyped = program(&["check-config"]);
    let (code, message) = error_text(&mistyped.env("PARTYLINE_SERVER_LISTN", "x").output().unwrap());
    assert!(code == Some(78) && message.contains("PARTYLINE_SERVER_LISTN"), "{message}");
    let (code, message) = error_text(&program(&["--listen", "0.0.0.0:0"]).output().unwrap());
    assert!(code == Some(78) && message.contains("--insecure-plain"), "{message}");
}
