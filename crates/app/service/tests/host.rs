//! The service around an engine that answers from a script.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use partyline_engine::{Call, Controller, RunningEngine};
use partyline_ipc::connect;
use partyline_model::{
    AppError, ClientCommand, Command, DeviceId, DeviceView, ErrorCode, NetworkView, Phase, Reply, Snapshot,
};
use partyline_service::{Host, Place, Settings};
use tokio::sync::{mpsc, oneshot, watch};

fn snapshot() -> Snapshot {
    Snapshot {
        revision: 1,
        phase: Phase::Ready,
        device: DeviceView { id: DeviceId([1; 32]), version: "0".into() },
        parties: Vec::new(),
        former_parties: Vec::new(),
        network: NetworkView::default(),
        settings: partyline_model::Settings::default(),
    }
}

/// Says done to everything, ends on stop, and fails on doctor.
async fn engine() -> Result<RunningEngine, AppError> {
    let (calls, mut inbox) = mpsc::channel::<Call>(4);
    let (state, snapshots) = watch::channel(Arc::new(snapshot()));
    let join = tokio::spawn(async move {
        while let Some((command, answer)) = inbox.recv().await {
            let _ = answer.send(Ok(Reply::Done));
            match command {
                ClientCommand::Node(Command::Stop) => break,
                ClientCommand::Node(Command::Doctor) => {
                    return Err(AppError::new(ErrorCode::Device, "gone", "try again"));
                }
                _ => {}
            }
        }
        drop(state);
        Ok(())
    });
    Ok(RunningEngine { controller: Controller::new(calls, snapshots), join })
}

async fn host(directory: &Path) -> Result<Host, AppError> {
    Host::around(&place(directory), &settings(directory), engine()).await
}

fn place(directory: &Path) -> Place {
    Place { runtime_dir: directory.join("run") }
}

fn settings(directory: &Path) -> Settings {
    Settings {
        state_dir: directory.join("state"),
        port: 0,
        nat_detection: partyline_service::Switch::Off,
        default_servers: Vec::new(),
        extra_ca: None,
        otlp_endpoint: None,
        allowed_users: Vec::new(),
        allowed_groups: Vec::new(),
        allowed_observers: Vec::new(),
    }
}

async fn client(directory: &Path) -> Controller {
    let connection = connect(&place(directory).endpoint()).await.unwrap();
    Controller::new(connection.calls, connection.snapshots)
}

#[tokio::test]
async fn a_signal_stops_the_engine_and_takes_the_socket_away() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path()).await.unwrap();
    let (signal, asked) = oneshot::channel::<()>();
    let running = tokio::spawn(host.run_until(async { asked.await.unwrap() }));
    let client = client(directory.path()).await;
    signal.send(()).unwrap();
    assert_eq!(running.await.unwrap(), Ok(()));
    assert!(!place(directory.path()).endpoint().path().exists());
    assert_eq!(client.request(Command::Doctor).await.unwrap_err().code, ErrorCode::ServiceUnreachable);
}

#[tokio::test]
async fn a_client_can_end_it_and_gets_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path()).await.unwrap();
    let running = tokio::spawn(host.run_until(std::future::pending()));
    assert_eq!(client(directory.path()).await.request(Command::Stop).await, Ok(Reply::Done));
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_engine_that_fails_ends_the_service_with_its_error() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path()).await.unwrap();
    host.controller().request(Command::Doctor).await.unwrap();
    assert_eq!(host.run_until(std::future::pending()).await.unwrap_err().code, ErrorCode::Device);
}

#[tokio::test]
async fn a_second_service_does_not_start_until_the_first_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let first = host(directory.path()).await.unwrap();
    assert_eq!(host(directory.path()).await.unwrap_err().code, ErrorCode::AlreadyRunning);
    first.run_until(async {}).await.unwrap();
    host(directory.path()).await.unwrap();
}
