//! An engine with its local socket, from start to a clean end.

use std::{future::Future, time::Duration};

use partyline_engine::{Controller, Engine, RunningEngine};
use partyline_ipc::Server;
use partyline_model::{AppError, Command, ErrorCode};
use partyline_platform::EngineLock;
use tokio::{task::JoinHandle, time::timeout};

use crate::{Place, Settings};

/// How long the engine may take to say goodbye to servers, members and routers.
const GOODBYE: Duration = Duration::from_secs(10);

/// The computer's engine, offered on the local socket.
#[derive(Debug)]
pub struct Host {
    engine: RunningEngine,
    server: JoinHandle<()>,
    lock: EngineLock,
}

impl Host {
    /// Starts the engine and the local socket.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyRunning`] if this computer has an engine, and whatever keeps the engine from starting.
    pub async fn start(place: &Place, settings: &Settings) -> Result<Self, AppError> {
        Self::around(place, settings, Box::pin(Engine::start(settings.engine(place)))).await
    }

    /// The same around any engine. It is started last, when nothing else can go wrong.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn around(
        place: &Place,
        settings: &Settings,
        engine: impl Future<Output = Result<RunningEngine, AppError>>,
    ) -> Result<Self, AppError> {
        settings.directories(place).create()?;
        let lock = EngineLock::acquire(&settings.state_dir)?;
        let server = Server::bind(&place.endpoint(), settings.access())?;
        let engine = engine.await?;
        let controller = &engine.controller;
        let server = tokio::spawn(server.serve(controller.calls(), controller.snapshots()));
        Ok(Self { engine, server, lock })
    }

    /// Drives the engine from within this process.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.engine.controller.clone()
    }

    /// Runs until `asked` to stop, or until the engine ends: because a client stopped it, or because it failed. Leaves
    /// the network as it was before.
    ///
    /// # Errors
    /// What the engine failed with, or that it did not end in time.
    pub async fn run_until(self, asked: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { engine: RunningEngine { controller, mut join }, mut server, lock } = self;
        let ended = tokio::select! {
            ended = &mut join => ended,
            () = asked => {
                tracing::info!("stopping");
                match timeout(GOODBYE, stop(controller, &mut join)).await {
                    Ok(ended) => ended,
                    Err(_) => return Err(stuck()),
                }
            }
        };
        // The last answers reach their clients before the process ends.
        let _ = timeout(GOODBYE, &mut server).await;
        server.abort();
        drop(lock);
        ended.unwrap_or_else(|_| Err(crashed()))
    }
}

type Ended = Result<Result<(), AppError>, tokio::task::JoinError>;

async fn stop(controller: Controller, join: &mut JoinHandle<Result<(), AppError>>) -> Ended {
    // An engine that is gone already cannot answer; its end is what counts.
    let _ = controller.request(Command::Stop).await;
    drop(controller);
    join.await
}

fn stuck() -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        "Partyline's engine did not stop in time.",
        "Routes it left are removed when it starts again.",
    )
}

fn crashed() -> AppError {
    AppError::new(
        ErrorCode::Internal,
        "Partyline's engine crashed.",
        "Please report it with the log. Routes it left are removed when it starts again.",
    )
}
